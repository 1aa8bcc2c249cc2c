"""Streams: every consumer reads all, from its offset on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from brokers import broker_port_fixture, real_url_fixture  # noqa: F401 - fixtures
from port import STREAM, Broker, Channel, Consumer, channel_of, publish, reached

S = "s"


@pytest.fixture(name="sender")
async def sender_fixture(broker_port: Broker) -> Channel:
    """A channel that publishes; the stream is there."""
    channel = await channel_of(broker_port)
    await channel.declare_queue(S, STREAM)
    return channel


async def reading(
    broker: Broker, offset: int | str | datetime | None = "first", prefetch: int = 100
) -> tuple[Channel, Consumer]:
    channel = await channel_of(broker)
    await channel.qos(prefetch)
    return channel, await channel.consume(S, offset)


def offsets(consumer: Consumer) -> list[int]:
    return [one.headers["x-stream-offset"] for one in consumer.received]


async def test_from_the_first(broker_port: Broker, sender: Channel) -> None:
    await publish(sender, S, "abc")
    _, consumer = await reading(broker_port)
    await publish(sender, S, "de")
    await reached(broker_port, sender, {consumer: "abcde"})
    assert offsets(consumer) == [0, 1, 2, 3, 4]
    assert [one.tag for one in consumer.received] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("offset", ["next", None])
async def test_from_what_comes_next(
    broker_port: Broker, sender: Channel, offset: str | None
) -> None:
    await publish(sender, S, "abc")
    _, consumer = await reading(broker_port, offset)
    await publish(sender, S, "de")
    await reached(broker_port, sender, {consumer: "de"})
    assert offsets(consumer) == [3, 4]


async def test_from_the_last(broker_port: Broker, sender: Channel) -> None:
    """The real one hands its last chunk over: here each message is one, as each is confirmed."""
    await publish(sender, S, "abc")
    _, consumer = await reading(broker_port, "last")
    await publish(sender, S, "de")
    await reached(broker_port, sender, {consumer: "cde"})
    assert offsets(consumer) == [2, 3, 4]


@pytest.mark.parametrize("offset", ["first", "last", "next", 0])
async def test_an_empty_one_begins_with_what_comes(
    broker_port: Broker, sender: Channel, offset: str | int
) -> None:
    _, consumer = await reading(broker_port, offset)
    await publish(sender, S, "ab")
    await reached(broker_port, sender, {consumer: "ab"})
    assert offsets(consumer) == [0, 1]


async def test_from_a_number(broker_port: Broker, sender: Channel) -> None:
    await publish(sender, S, "abcde")
    _, consumer = await reading(broker_port, 3)
    await reached(broker_port, sender, {consumer: "de"})
    assert offsets(consumer) == [3, 4]


async def test_from_a_number_that_is_not_there_yet(broker_port: Broker, sender: Channel) -> None:
    await publish(sender, S, "ab")
    _, consumer = await reading(broker_port, 4)
    await publish(sender, S, "cdef")
    await reached(broker_port, sender, {consumer: "ef"})
    assert offsets(consumer) == [4, 5]


async def test_from_a_time(broker_port: Broker, sender: Channel) -> None:
    await publish(sender, S, "ab")
    now = datetime.now(UTC).replace(microsecond=0)
    await broker_port.later(now + timedelta(seconds=2))
    await publish(sender, S, "cd")
    _, consumer = await reading(broker_port, now + timedelta(seconds=1))
    _, every = await reading(broker_port, now - timedelta(hours=1))
    _, coming = await reading(broker_port, now + timedelta(hours=1))
    await publish(sender, S, "e")
    await reached(broker_port, sender, {consumer: "cde", every: "abcde", coming: "e"})


async def test_reading_takes_nothing_out(broker_port: Broker, sender: Channel) -> None:
    await publish(sender, S, "abc")
    channel, one = await reading(broker_port)
    await reached(broker_port, sender, {one: "abc"})
    await channel.ack(3, multiple=True)
    connection = await broker_port.connect()
    lost = await connection.channel()
    await lost.qos(100)
    other = await lost.consume(S, "first")
    await reached(broker_port, sender, {other: "abc"})
    await connection.drop()
    _, again = await reading(broker_port)
    await reached(broker_port, sender, {one: "abc", again: "abc"})
    assert not any(one.redelivered for one in again.received)
    assert offsets(again) == [0, 1, 2]


async def test_acks_make_room(broker_port: Broker, sender: Channel) -> None:
    await publish(sender, S, "abcdef")
    channel, consumer = await reading(broker_port, prefetch=2)
    await reached(broker_port, sender, {consumer: "ab"})
    await channel.ack(2)
    await reached(broker_port, sender, {consumer: "abc"})
    await channel.ack(3, multiple=True)
    await reached(broker_port, sender, {consumer: "abcde"})


async def test_it_hears_every_topic_beside_the_queues(broker_port: Broker, sender: Channel) -> None:
    await sender.declare_queue("q")
    await sender.declare_exchange("x")
    await sender.bind(S, "x", "#")
    await sender.bind("q", "x", "a.b")
    assert await sender.publish("1", "a.b", "x", mandatory=True) == ["confirmed"]
    # No queue hears it; that the stream does is enough not to be returned.
    assert await sender.publish("2", "c", "x", mandatory=True) == ["confirmed"]
    queue = await sender.consume("q")
    _, consumer = await reading(broker_port)
    await reached(broker_port, sender, {consumer: "12", queue: "1"}, q=0)
    assert [(one.exchange, one.routing_key) for one in consumer.received] == [
        ("x", "a.b"),
        ("x", "c"),
    ]


async def test_properties_and_headers_come_as_they_went(
    broker_port: Broker, sender: Channel
) -> None:
    properties = {
        "message_id": "id", "message_type": "o.p.v1", "correlation_id": "flow", "app_id": "me",
        "content_type": "application/json", "delivery_mode": 2,
        "timestamp": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }  # fmt: skip
    await sender.publish("x", S, headers={"cloudEvents:id": "id"}, properties=properties)
    _, consumer = await reading(broker_port)
    await reached(broker_port, sender, {consumer: "x"})
    [seen] = consumer.received
    assert seen.headers == {"cloudEvents:id": "id", "x-stream-offset": 0}
    assert seen.properties == properties


async def test_limits_drop_whole_segments_alone(broker_port: Broker, sender: Channel) -> None:
    """What is written now is never dropped, however few the bytes and however short the age."""
    await sender.declare_queue(
        "small", {"x-queue-type": "stream", "x-max-age": "1s", "x-max-length-bytes": 100}
    )
    for number in range(20):
        await sender.publish(f"{number:0100}", "small")
    await broker_port.later(datetime.now(UTC) + timedelta(seconds=2))
    await sender.publish("end", "small")
    channel = await channel_of(broker_port)
    await channel.qos(100)
    consumer = await channel.consume("small", "first")
    await reached(
        broker_port, sender, {consumer: [f"{number:0100}" for number in range(20)] + ["end"]}
    )
