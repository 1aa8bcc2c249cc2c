"""Quorum queues: order, competing consumers, prefetch, acks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from brokers import (  # noqa: F401 - fixtures, too
    Q,
    broker_port_fixture,
    consuming,
    flags,
    real_url_fixture,
    sender_fixture,
)
from port import (
    PRECONDITION_FAILED,
    Broker,
    Channel,
    RefusedError,
    channel_of,
    counts,
    publish,
    reached,
)


async def test_messages_come_in_order_and_once(broker_port: Broker, sender: Channel) -> None:
    await publish(sender, Q, "abc")
    _, consumer = await consuming(broker_port)
    await publish(sender, Q, "de")
    await reached(broker_port, sender, {consumer: "abcde"}, q=0)
    assert [one.tag for one in consumer.received] == [1, 2, 3, 4, 5]
    assert flags(consumer) == [(body, False) for body in "abcde"]


async def test_a_queue_tells_how_many_wait_and_consume(
    broker_port: Broker, sender: Channel
) -> None:
    await publish(sender, Q, "abc")
    await counts(broker_port, sender, Q, 3, 0)
    _, consumer = await consuming(broker_port, prefetch=2)
    await reached(broker_port, sender, {consumer: "ab"}, q=1)
    await counts(broker_port, sender, Q, 1, 1)


async def test_competing_consumers_take_turns(broker_port: Broker, sender: Channel) -> None:
    _, one = await consuming(broker_port)
    _, other = await consuming(broker_port)
    await publish(sender, Q, "abcdef")
    await reached(broker_port, sender, {one: "ace", other: "bdf"}, q=0)


async def test_a_full_consumer_is_passed_over(broker_port: Broker, sender: Channel) -> None:
    _, small = await consuming(broker_port, prefetch=1)
    _, large = await consuming(broker_port, prefetch=3)
    await publish(sender, Q, "abcdef")
    await reached(broker_port, sender, {small: "a", large: "bcd"}, q=2)


async def test_prefetch_is_each_consumers_own(broker_port: Broker, sender: Channel) -> None:
    channel = await channel_of(broker_port)
    await channel.qos(2)
    one = await channel.consume(Q)
    await channel.qos(1)
    other = await channel.consume(Q)
    await publish(sender, Q, "abcdef")
    await reached(broker_port, sender, {one: "ac", other: "b"}, q=3)


async def test_an_ack_makes_room_for_one_more(broker_port: Broker, sender: Channel) -> None:
    channel, consumer = await consuming(broker_port, prefetch=2)
    await publish(sender, Q, "abcde")
    await reached(broker_port, sender, {consumer: "ab"}, q=3)
    await channel.ack(2)
    await reached(broker_port, sender, {consumer: "abc"}, q=2)


async def test_a_multiple_ack_takes_all_below_it(broker_port: Broker, sender: Channel) -> None:
    channel, consumer = await consuming(broker_port, prefetch=3)
    await publish(sender, Q, "abcdefg")
    await reached(broker_port, sender, {consumer: "abc"}, q=4)
    await channel.ack(2, multiple=True)
    await reached(broker_port, sender, {consumer: "abcde"}, q=2)
    await channel.close()
    await reached(broker_port, sender, {}, q=5)  # it gives back somewhat later
    _, next_one = await consuming(broker_port)
    await reached(broker_port, sender, {next_one: "cdefg"}, q=0)


async def test_a_multiple_ack_of_nothing_takes_all(broker_port: Broker, sender: Channel) -> None:
    channel, consumer = await consuming(broker_port, prefetch=3)
    await publish(sender, Q, "abcd")
    await reached(broker_port, sender, {consumer: "abc"}, q=1)
    await channel.ack(0, multiple=True)
    await reached(broker_port, sender, {consumer: "abcd"}, q=0)
    await channel.ack(0, multiple=True)
    await channel.ack(0, multiple=True)  # there is nothing, and nobody minds


async def test_acks_out_of_order_leave_the_others(broker_port: Broker, sender: Channel) -> None:
    channel, consumer = await consuming(broker_port)
    await publish(sender, Q, "abcde")
    await reached(broker_port, sender, {consumer: "abcde"}, q=0)
    await channel.ack(4)
    await channel.ack(2)
    await channel.close()
    _, next_one = await consuming(broker_port)
    await reached(broker_port, sender, {next_one: "ace"}, q=0)


@pytest.mark.parametrize("multiple", [False, True])
async def test_an_ack_twice_closes_the_channel(
    broker_port: Broker, sender: Channel, multiple: bool
) -> None:
    channel, consumer = await consuming(broker_port)
    await publish(sender, Q, "ab")
    await reached(broker_port, sender, {consumer: "ab"}, q=0)
    await channel.ack(1)
    with pytest.raises(RefusedError) as refused:
        await channel.ack(1, multiple=multiple)
    assert refused.value.code == PRECONDITION_FAILED
    with pytest.raises(RefusedError):
        await channel.declare_queue(Q, passive=True)
    _, next_one = await consuming(broker_port)
    await reached(broker_port, sender, {next_one: "b"}, q=0)


@pytest.mark.parametrize("multiple", [False, True])
async def test_an_ack_of_what_never_came_closes_the_channel(
    broker_port: Broker, sender: Channel, multiple: bool
) -> None:
    channel, consumer = await consuming(broker_port)
    await publish(sender, Q, "ab")
    await reached(broker_port, sender, {consumer: "ab"}, q=0)
    with pytest.raises(RefusedError) as refused:
        await channel.ack(3, multiple=multiple)
    assert refused.value.code == PRECONDITION_FAILED
    _, next_one = await consuming(broker_port)
    await reached(broker_port, sender, {next_one: "ab"}, q=0)


async def test_a_tag_is_its_channels_own(broker_port: Broker, sender: Channel) -> None:
    _, consumer = await consuming(broker_port)
    await publish(sender, Q, "a")
    await reached(broker_port, sender, {consumer: "a"}, q=0)
    other = await channel_of(broker_port)
    with pytest.raises(RefusedError) as refused:
        await other.ack(1)
    assert refused.value.code == PRECONDITION_FAILED


async def test_properties_and_headers_come_as_they_went(
    broker_port: Broker, sender: Channel
) -> None:
    properties = {
        "message_id": "id", "message_type": "o.p.v1", "correlation_id": "flow", "app_id": "me",
        "content_type": "application/json", "delivery_mode": 2,
        "timestamp": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }  # fmt: skip
    headers = {"cloudEvents:id": "id", "text": "ä", "number": 2**40, "yes": True, "none": None}
    await sender.publish("ü", Q, headers=headers, properties=properties)
    _, consumer = await consuming(broker_port)
    await reached(broker_port, sender, {consumer: "ü"}, q=0)
    [seen] = consumer.received
    assert (seen.exchange, seen.routing_key) == ("", Q)
    assert seen.headers == headers
    assert seen.properties == properties
