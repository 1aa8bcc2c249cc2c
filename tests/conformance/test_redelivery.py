"""Quorum queues: what is not acked comes again, and what happens to consumers that go."""

from __future__ import annotations

import pytest
from brokers import (  # noqa: F401 - fixtures, too
    Q,
    broker_port_fixture,
    consuming,
    flags,
    real_url_fixture,
    sender_fixture,
)
from port import Broker, Channel, Connection, counts, publish, reached

LOSSES = ["channel closed", "connection closed", "connection lost"]


async def lose(connection: Connection, channel: Channel, how: str) -> None:
    match how:
        case "channel closed":
            await channel.close()
        case "connection closed":
            await connection.close()
        case "connection lost":
            await connection.drop()


@pytest.mark.parametrize("how", LOSSES)
async def test_what_is_not_acked_comes_again_first(
    broker_port: Broker, sender: Channel, how: str
) -> None:
    connection = await broker_port.connect()
    channel = await connection.channel()
    await channel.qos(3)
    await publish(sender, Q, "abcde")
    consumer = await channel.consume(Q)
    await reached(broker_port, sender, {consumer: "abc"}, q=2)
    await channel.ack(2)
    await reached(broker_port, sender, {consumer: "abcd"}, q=1)
    await lose(connection, channel, how)
    await reached(broker_port, sender, {consumer: "abcd"}, q=4)
    _, next_one = await consuming(broker_port)
    await reached(broker_port, sender, {next_one: "acde"}, q=0)
    assert flags(next_one) == [("a", True), ("c", True), ("d", True), ("e", False)]
    assert [one.headers.get("x-delivery-count", 0) for one in next_one.received] == [1, 1, 1, 0]


async def test_what_was_lost_again_and_again_is_counted(
    broker_port: Broker, sender: Channel
) -> None:
    await sender.publish("a", Q, headers={"mine": "kept"})
    for times in range(4):
        connection = await broker_port.connect()
        consumer = await (await connection.channel()).consume(Q)
        await reached(broker_port, sender, {consumer: "a"}, q=0)
        headers = consumer.received[0].headers
        assert headers.get("x-delivery-count", 0) == times
        assert headers["mine"] == "kept"
        assert consumer.received[0].redelivered == (times > 0)
        await connection.drop()
        await reached(broker_port, sender, {}, q=1)


async def test_what_came_back_waits_behind_what_came_back_before(
    broker_port: Broker, sender: Channel
) -> None:
    await publish(sender, Q, "abcdef")
    lost = []
    for bodies in ("ab", "cd"):
        connection = await broker_port.connect()
        channel = await connection.channel()
        await channel.qos(2)
        consumer = await channel.consume(Q)
        lost.append(connection)
        await reached(broker_port, sender, {consumer: bodies})
    await lost[1].drop()
    await reached(broker_port, sender, {}, q=4)
    await lost[0].drop()
    await reached(broker_port, sender, {}, q=6)
    _, next_one = await consuming(broker_port)
    await reached(broker_port, sender, {next_one: "cdabef"}, q=0)


async def test_what_came_back_goes_to_whoever_has_room(
    broker_port: Broker, sender: Channel
) -> None:
    lost = await broker_port.connect()
    channel = await lost.channel()
    await channel.qos(2)
    first = await channel.consume(Q)
    await publish(sender, Q, "abc")
    await reached(broker_port, sender, {first: "ab"}, q=1)
    _, other = await consuming(broker_port)
    await reached(broker_port, sender, {other: "c"}, q=0)
    await lost.drop()
    await reached(broker_port, sender, {other: "cab"}, q=0)
    assert flags(other) == [("c", False), ("a", True), ("b", True)]


async def test_a_nack_gives_back_in_its_own_order(broker_port: Broker, sender: Channel) -> None:
    channel, consumer = await consuming(broker_port, prefetch=3)
    await publish(sender, Q, "abcde")
    await reached(broker_port, sender, {consumer: "abc"}, q=2)
    await channel.cancel(consumer)
    for tag in (3, 1, 2):
        await channel.nack(tag)
    _, next_one = await consuming(broker_port)
    await reached(broker_port, sender, {next_one: "cabde"}, q=0)
    assert flags(next_one) == [(body, body in "abc") for body in "cabde"]


async def test_a_multiple_nack_gives_back_in_order(broker_port: Broker, sender: Channel) -> None:
    channel, consumer = await consuming(broker_port, prefetch=4)
    await publish(sender, Q, "abcde")
    await reached(broker_port, sender, {consumer: "abcd"}, q=1)
    await channel.cancel(consumer)
    await channel.nack(3, multiple=True)
    _, next_one = await consuming(broker_port)
    await reached(broker_port, sender, {next_one: "abce"}, q=0)
    await channel.close()
    await reached(broker_port, sender, {next_one: "abced"}, q=0)


async def test_a_nack_comes_back_to_its_only_consumer(broker_port: Broker, sender: Channel) -> None:
    channel, consumer = await consuming(broker_port, prefetch=2)
    await publish(sender, Q, "abc")
    await reached(broker_port, sender, {consumer: "ab"}, q=1)
    await channel.nack(1)
    await reached(broker_port, sender, {consumer: "aba"}, q=1)
    assert flags(consumer)[-1] == ("a", True)


async def test_a_nack_without_requeue_drops_it(broker_port: Broker, sender: Channel) -> None:
    channel, consumer = await consuming(broker_port, prefetch=2)
    await publish(sender, Q, "abc")
    await reached(broker_port, sender, {consumer: "ab"}, q=1)
    await channel.nack(2, multiple=True, requeue=False)
    await reached(broker_port, sender, {consumer: "abc"}, q=0)
    await channel.close()
    await reached(broker_port, sender, {}, q=1)


async def test_a_cancelled_consumer_can_still_ack(broker_port: Broker, sender: Channel) -> None:
    channel, consumer = await consuming(broker_port, prefetch=2)
    await publish(sender, Q, "abcd")
    await reached(broker_port, sender, {consumer: "ab"}, q=2)
    await channel.cancel(consumer)
    await channel.ack(1)
    await reached(broker_port, sender, {consumer: "ab"}, q=2)
    _, next_one = await consuming(broker_port)
    await reached(broker_port, sender, {consumer: "ab", next_one: "cd"}, q=0)
    await channel.close()
    await reached(broker_port, sender, {next_one: "cdb"}, q=0)


async def test_a_cancelled_consumer_counts_until_it_has_acked(
    broker_port: Broker, sender: Channel
) -> None:
    channel, consumer = await consuming(broker_port, prefetch=2)
    _, idle = await consuming(broker_port)
    await publish(sender, Q, "a")
    await reached(broker_port, sender, {consumer: "a", idle: ""}, q=0)
    await counts(broker_port, sender, Q, 0, 2)
    await channel.cancel(consumer)
    await counts(broker_port, sender, Q, 0, 2)
    await channel.ack(1)
    await counts(broker_port, sender, Q, 0, 1)


async def test_a_queue_that_is_deleted_ends_its_consumers(
    broker_port: Broker, sender: Channel
) -> None:
    channel, consumer = await consuming(broker_port, prefetch=1)
    await publish(sender, Q, "ab")
    await reached(broker_port, sender, {consumer: "a"}, q=1)
    await sender.delete_queue(Q)

    async def is_cancelled() -> bool:
        return consumer.is_cancelled

    await broker_port.until(is_cancelled, "cancelled")
    await channel.declare_queue(Q)  # the channel lives on, and the queue begins anew
    again = await channel.consume(Q)
    await publish(sender, Q, "c")
    await reached(broker_port, sender, {consumer: "a", again: "c"}, q=0)
    assert again.received[0].tag == 2


async def test_what_a_deleted_queue_had_is_gone(broker_port: Broker, sender: Channel) -> None:
    channel, consumer = await consuming(broker_port)
    await publish(sender, Q, "ab")
    await reached(broker_port, sender, {consumer: "ab"}, q=0)
    await sender.delete_queue(Q)
    await sender.delete_queue(Q)  # that it is gone already is no error
    await sender.declare_queue(Q)
    await channel.ack(1)  # of what was handed over before
    await channel.close()
    await reached(broker_port, sender, {}, q=0)
