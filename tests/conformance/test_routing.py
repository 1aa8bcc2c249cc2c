"""Exchanges, bindings, topics; confirms and returns; what a broker objects to."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable

import pytest
from brokers import broker_port_fixture, real_url_fixture  # noqa: F401 - fixtures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from on_rabbitmq import RabbitMQ
from port import (
    NOT_FOUND,
    PRECONDITION_FAILED,
    QUORUM,
    STREAM,
    Broker,
    Channel,
    RefusedError,
    channel_of,
    counts,
    reached,
)

from choreo.rehearse.rabbit import matches

#: Pattern, key, and whether it matches.
TOPICS = [
    ("orders.placed.v1", "orders.placed.v1", True),
    ("orders.placed.v1", "orders.placed.v2", False),
    ("orders.placed", "orders.placed.v1", False),
    ("#", "orders.placed.v1", True),
    ("#", "", True),
    ("a.#", "a", True),
    ("a.#", "a.b.c", True),
    ("a.#", "b.a", False),
    ("#.b", "b", True),
    ("#.b", "a.a.b", True),
    ("#.b", "b.a", False),
    ("#.#", "", True),
    ("#.#", "a", True),
    ("a.#.b", "a.b", True),
    ("a.#.b", "a.x.y.b", True),
    ("a.#.b", "a", False),
    ("*", "a", True),
    ("*", "a.b", False),
    ("*", "", False),
    ("*.*", "a.b", True),
    ("a.*", "a", False),
    ("a.*", "a.", True),
    ("*.#", "", False),
    ("#.*", "a.b", True),
    ("a..b", "a..b", True),
    ("a.*.b", "a..b", True),
    ("a.b", "a..b", False),
    (".", ".", True),
    ("*.*", ".", True),
    ("", "", True),
    ("", "a", False),
    ("a.b", "a.*", False),
    ("a.*", "a.#", True),
    ("a.*", "a.bc*", True),
    ("a*", "ab", False),
    ("A", "a", False),
]  # fmt: skip


async def test_topics_match_as_they_should(broker_port: Broker) -> None:
    channel = await channel_of(broker_port, "q")
    assert await reach(channel, [(pattern, key) for pattern, key, _ in TOPICS]) == [
        expected for _, _, expected in TOPICS
    ]


numbers = itertools.count()


async def reach(channel: Channel, pairs: list[tuple[str, str]]) -> list[bool]:
    """Whether the queue `q`, bound by the pattern alone, gets a message with the key."""
    exchanges = {pattern: f"x{next(numbers)}" for pattern in dict.fromkeys(one for one, _ in pairs)}
    for pattern, exchange in exchanges.items():
        await channel.declare_exchange(exchange)
        await channel.bind("q", exchange, pattern)
    return [
        await channel.publish("", key, exchanges[pattern], mandatory=True) == ["confirmed"]
        for pattern, key in pairs
    ]


words = st.sampled_from(["a", "b", "*", "#", "", "ab"])
topics = st.lists(words, max_size=5).map(".".join)
#: RabbitMQ 4.3 refuses a third `#`.
bindable = topics.filter(lambda topic: topic.split(".").count("#") <= 2)


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(bindable, min_size=12, max_size=20, unique=True),
    st.lists(topics, min_size=20, max_size=20, unique=True),
)
async def test_the_models_topics_are_the_real_brokers(
    amqp_url: str, patterns: list[str], keys: list[str]
) -> None:
    rabbitmq = RabbitMQ(amqp_url)
    try:
        channel = await channel_of(rabbitmq, "q")
        pairs = [(pattern, key) for pattern in patterns for key in keys]
        found = await reach(channel, pairs)
        wrong = [
            (pattern, key, is_reached)
            for (pattern, key), is_reached in zip(pairs, found, strict=True)
            if matches(pattern, key) != is_reached
        ]
        assert not wrong
    finally:
        await rabbitmq.close()


async def test_a_queue_that_is_bound_twice_gets_one_copy(broker_port: Broker) -> None:
    channel = await channel_of(broker_port, "q", "other")
    await channel.declare_exchange("x")
    for key in ("#", "a.*", "a.b", "a.b"):
        await channel.bind("q", "x", key)
    await channel.bind("other", "x", "a.b")
    await channel.publish("1", "a.b", "x")
    mine, others = await channel.consume("q"), await channel.consume("other")
    await reached(broker_port, channel, {mine: "1", others: "1"}, q=0, other=0)
    assert (mine.received[0].exchange, mine.received[0].routing_key) == ("x", "a.b")


async def test_what_is_bound_later_gets_what_comes_later(broker_port: Broker) -> None:
    channel = await channel_of(broker_port, "q", "later")
    await channel.declare_exchange("x")
    await channel.bind("q", "x", "a")
    await channel.publish("1", "a", "x")
    await channel.bind("later", "x", "a")
    await channel.publish("2", "a", "x")
    await counts(broker_port, channel, "q", 2, 0)
    await counts(broker_port, channel, "later", 1, 0)


async def test_a_direct_exchange_takes_keys_as_they_are(broker_port: Broker) -> None:
    channel = await channel_of(broker_port, "q")
    await channel.declare_exchange("x", "direct")
    await channel.bind("q", "x", "a.*")
    assert await channel.publish("", "a.b", "x", mandatory=True) == ["returned", "confirmed"]
    assert await channel.publish("", "a.*", "x", mandatory=True) == ["confirmed"]


async def test_the_default_exchange_leads_to_the_queue_of_that_name(broker_port: Broker) -> None:
    channel = await channel_of(broker_port, "q")
    assert await channel.publish("", "q", mandatory=True) == ["confirmed"]
    assert await channel.publish("", "p", mandatory=True) == ["returned", "confirmed"]


async def test_what_reaches_no_queue_is_returned_only_if_mandatory(broker_port: Broker) -> None:
    channel = await channel_of(broker_port, "q")
    await channel.declare_exchange("x")
    await channel.bind("q", "x", "a")
    assert await channel.publish("1", "b", "x") == ["confirmed"]
    assert await channel.publish("2", "b", "x", mandatory=True) == ["returned", "confirmed"]
    assert await channel.publish("3", "a", "x", mandatory=True) == ["confirmed"]
    await counts(broker_port, channel, "q", 1, 0)


async def test_a_deleted_queue_is_bound_no_more(broker_port: Broker) -> None:
    channel = await channel_of(broker_port, "q")
    await channel.declare_exchange("x")
    await channel.bind("q", "x", "#")
    assert await channel.publish("1", "a", "x", mandatory=True) == ["confirmed"]
    await channel.delete_queue("q")
    assert await channel.publish("2", "a", "x", mandatory=True) == ["returned", "confirmed"]
    await channel.declare_queue("q")
    assert await channel.publish("3", "a", "x", mandatory=True) == ["returned", "confirmed"]
    await counts(broker_port, channel, "q", 0, 0)


Command = Callable[[Channel], Awaitable[object]]

OBJECTIONS: dict[str, tuple[int, Command]] = {
    "look for a queue": (NOT_FOUND, lambda it: it.declare_queue("none", passive=True)),
    "look for an exchange": (NOT_FOUND, lambda it: it.declare_exchange("none", passive=True)),
    "publish to no exchange": (NOT_FOUND, lambda it: it.publish("", "a", "none")),
    "consume no queue": (NOT_FOUND, lambda it: it.consume("none")),
    "bind no queue": (NOT_FOUND, lambda it: it.bind("none", "x", "a")),
    "bind to no exchange": (NOT_FOUND, lambda it: it.bind("q", "none", "a")),
    "another type of queue": (PRECONDITION_FAILED, lambda it: it.declare_queue("q", STREAM)),
    "another type of exchange": (
        PRECONDITION_FAILED,
        lambda it: it.declare_exchange("x", "direct"),
    ),
    "another age of a stream": (
        PRECONDITION_FAILED,
        lambda it: it.declare_queue("s", {**STREAM, "x-max-age": "1D"}),
    ),
    "other bytes of a stream": (
        PRECONDITION_FAILED,
        lambda it: it.declare_queue("s", {**STREAM, "x-max-length-bytes": 5}),
    ),
    "another delivery limit": (
        PRECONDITION_FAILED,
        lambda it: it.declare_queue("q", {**QUORUM, "x-delivery-limit": 5}),
    ),
    "one argument more": (
        PRECONDITION_FAILED,
        lambda it: it.declare_queue("q", {**QUORUM, "x-max-length": 5}),
    ),
    "a stream without prefetch": (PRECONDITION_FAILED, lambda it: it.consume("s")),
}


@pytest.mark.parametrize("what", OBJECTIONS)
async def test_an_objection_closes_the_channel_and_no_other(broker_port: Broker, what: str) -> None:
    connection = await broker_port.connect()
    channel, other = await connection.channel(), await connection.channel()
    await channel.declare_queue("q")
    await channel.declare_queue("s", STREAM)
    await channel.declare_exchange("x")
    code, command = OBJECTIONS[what]
    with pytest.raises(RefusedError) as refused:
        await command(channel)
    assert refused.value.code == code
    with pytest.raises(RefusedError):
        await channel.declare_queue("q", passive=True)
    await counts(broker_port, other, "q", 0, 0)
    await counts(broker_port, other, "s", 0, 0)


async def test_an_objection_gives_back_what_is_not_acked(broker_port: Broker) -> None:
    sender, channel = await channel_of(broker_port, "q"), await channel_of(broker_port)
    await sender.publish("1", "q")
    consumer = await channel.consume("q")
    await reached(broker_port, sender, {consumer: "1"}, q=0)
    with pytest.raises(RefusedError):
        await channel.publish("", "a", "none")
    await reached(broker_port, sender, {consumer: "1"}, q=1)
    await counts(broker_port, sender, "q", 1, 0)


async def test_what_is_there_already_can_be_declared_again(broker_port: Broker) -> None:
    channel = await channel_of(broker_port, "q")
    await channel.declare_queue("s", STREAM)
    await channel.declare_exchange("x")
    await channel.bind("q", "x", "a")
    await channel.publish("1", "a", "x")
    await channel.declare_exchange("x")
    await channel.declare_exchange("x", passive=True)
    await channel.declare_queue("s", STREAM)
    await channel.bind("q", "x", "a")
    await channel.declare_queue("q")
    await counts(broker_port, channel, "q", 1, 0)
