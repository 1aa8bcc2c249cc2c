"""The seam itself: the simulated broker does to a service what RabbitMQ does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Protocol, TypeVar

import pytest
from brokers import real_url_fixture  # noqa: F401 - a fixture
from on_rabbitmq import WITHIN_S

from choreo import log
from choreo.envelope import Envelope
from choreo.rabbitmq import RabbitMQ
from choreo.rehearse.broker import SimulatedBroker
from choreo.rehearse.rabbit import Rabbit
from choreo.seams import Broker, Delivery, Outgoing
from choreo.settings import Settings
from choreo.topology import Binding, Topology

NOW = 1_767_323_045.75
TOPOLOGY = Topology(
    event_exchanges=("choreo", "orders"),
    command_exchanges=("orders.commands",),
    queues=("theatre",),
    bindings=(
        Binding("theatre", "orders", "orders.placed.v1"),
        Binding("theatre", "orders.commands", "orders.place.v1"),
    ),
)
LOST = "no queue hears orders.pay.v1 on orders.commands: is its service there?"


T = TypeVar("T")


class Opened(Broker, Protocol):
    async def open(self) -> None: ...


class Party:
    """A service at a broker, with hands on what comes and on the connections."""

    def __init__(self, broker: Opened) -> None:
        self.broker = broker
        self.deliveries: list[Delivery] = []
        self._heard: list[int | None] = []

    async def consume(self, prefetch: int = 100) -> None:
        await self.broker.consume(
            TOPOLOGY, "theatre", prefetch, self.deliveries.append, self._heard.append
        )

    async def publish(self, *messages: Outgoing) -> dict[str, str]:
        """As the seam, with the broker doing meanwhile what it does by itself."""
        return await self.doing(self.broker.publish(messages))

    async def doing(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work)
        await self.until(task.done, "done")
        return task.result()

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Let everything take its course until the condition holds."""
        end = time.monotonic() + WITHIN_S
        while not condition():
            assert time.monotonic() < end, f"not within {WITHIN_S:g} s: {what}; {self.ids}"
            await self.go_on()

    async def go_on(self) -> None:
        await asyncio.sleep(0.005)

    async def lose(self, *, unsettled: int) -> None:
        """Lose the connection that it consumes on; what is not settled is back when it opens."""
        raise NotImplementedError

    async def delete_queue(self) -> None:
        raise NotImplementedError

    @property
    def heard(self) -> list[int | None]:
        """What it was told of what waits; that it hears nothing is no news before it does."""
        told = [waiting for waiting, _ in groupby(self._heard)]
        return told[1:] if told[:1] == [None] else told

    @property
    def ids(self) -> list[str | None]:
        return [one.message_id for one in self.deliveries]

    @property
    def flags(self) -> list[tuple[str | None, bool]]:
        return [(one.message_id, one.redelivered) for one in self.deliveries]


class SimulatedParty(Party):
    broker: SimulatedBroker

    def __init__(self, rabbit: Rabbit) -> None:
        super().__init__(SimulatedBroker(rabbit, "theatre", Settings(), lambda: NOW))
        self.rabbit = rabbit

    async def go_on(self) -> None:
        for _ in range(5):  # the service is quicker than the wire
            await asyncio.sleep(0)
        if steps := self.broker.steps():
            steps[0].take()

    async def lose(self, *, unsettled: int) -> None:
        self.broker.lose_consuming()

    async def delete_queue(self) -> None:
        self.rabbit.delete_queue("theatre")


class RealParty(Party):
    broker: RabbitMQ

    async def lose(self, *, unsettled: int) -> None:
        link = self.broker._consuming
        open_again = link._open

        async def open_later() -> None:
            # The broker gives back what was under way somewhat later than the connection is lost.
            while await self.waiting() != unsettled:  # noqa: ASYNC110 - there is nothing to be told by
                await asyncio.sleep(0.005)
            await open_again()

        link._open = open_later  # type: ignore[method-assign]
        assert link._channel is not None
        link.reset(link._channel)

    async def waiting(self) -> int | None:
        channel = await self.broker._publishing.channel()
        return (await channel.queue_declare("theatre", passive=True)).message_count

    async def delete_queue(self) -> None:
        await (await self.broker._publishing.channel()).queue_delete("theatre")


Entrance = Callable[[], Awaitable[Party]]


@pytest.fixture(name="enter")
async def enter_fixture(
    real_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Entrance]:
    """Gives another instance of the service, at the same broker."""
    parties: list[Party] = []
    rabbit = Rabbit(lambda: NOW)
    monkeypatch.setattr("choreo.rabbitmq.messages.time", lambda: NOW)

    async def enter() -> Party:
        if real_url is None:
            parties.append(SimulatedParty(rabbit))
        else:
            broker = RabbitMQ(real_url, Settings(), "theatre", log.logger("theatre"))
            parties.append(RealParty(broker))
        await parties[-1].broker.open()
        return parties[-1]

    yield enter
    for party in parties:
        await party.broker.close()


@pytest.fixture(name="party")
async def party_fixture(enter: Entrance) -> Party:
    return await enter()


def placed(identifier: str, **given: Any) -> Outgoing:
    envelope = Envelope(
        identifier, "orders.placed.v1", "/orders/place", "2026-01-02T03:04:05.678Z", "flow",
        traceparent="00-1-2-01", **given,
    )  # fmt: skip
    return Outgoing("orders", "orders.placed.v1", envelope, b"{}")


def command(
    identifier: str, key: str = "orders.place.v1", exchange: str = "orders.commands"
) -> Outgoing:
    envelope = Envelope(identifier, key, "/orders/place", "2026-01-02T03:04:05Z", "flow")
    return Outgoing(exchange, key, envelope, b"{}", mandatory=True)


async def test_a_delivery_is_what_was_published(party: Party) -> None:
    await party.consume()
    sent = placed("m", causation="c", subject="s", command="orders.place.v1", last_event="e")
    assert await party.publish(sent) == {}
    await party.until(lambda: party.deliveries, "delivered")
    [came] = party.deliveries
    assert came.channel is not None
    assert not came.channel.closed
    came.channel = None
    expected = Delivery(
        body=b"{}",
        message_id="m",
        wire_type="orders.placed.v1",
        correlation_id="flow",
        app_id="orders",
        headers=sent.envelope.headers(),
        properties={
            "content_type": "application/json",
            "delivery_mode": 2,
            "timestamp": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        },
        exchange="orders",
        routing_key="orders.placed.v1",
        redelivered=False,
        tag=1,
    )
    for name in Delivery.__slots__:
        assert getattr(came, name) == getattr(expected, name), name
    assert {type(value) for value in came.headers.values()} == {str}


async def test_what_waited_is_heard_of_first(party: Party, enter: Entrance) -> None:
    await party.consume()
    assert party.heard == [0]
    await party.broker.cancel()
    assert party.heard == [0, None]
    assert await party.publish(placed("a"), placed("b"), command("c")) == {}
    other = await enter()
    await other.consume()
    await other.until(lambda: len(other.deliveries) == 3, "all")
    assert other.heard == [3]
    assert other.flags == [("a", False), ("b", False), ("c", False)]
    assert party.deliveries == []


async def test_what_was_received_before_a_cancel_can_be_settled(
    party: Party, enter: Entrance
) -> None:
    await party.consume()
    await party.publish(placed("a"), placed("b"))
    await party.until(lambda: len(party.deliveries) == 2, "delivered")
    await party.broker.cancel()
    party.broker.settle(party.deliveries[1:])
    await party.publish(placed("c"))
    await party.broker.close()
    other = await enter()
    await other.consume()
    await other.until(lambda: len(other.deliveries) == 2, "what is left")
    assert other.flags == [("a", True), ("c", False)]


async def test_what_is_not_settled_comes_again(party: Party) -> None:
    await party.consume()
    await party.publish(*(placed(one) for one in "abcd"))
    await party.until(lambda: len(party.deliveries) == 4, "all")
    a, b, c, d = party.deliveries
    party.broker.settle([c])
    party.broker.settle([a])
    await party.lose(unsettled=2)
    await party.until(lambda: party.heard == [0, None, 2], "connected again")
    await party.until(lambda: len(party.deliveries) == 6, "two again")
    assert party.flags[4:] == [("b", True), ("d", True)]
    assert party.deliveries[4].headers["x-delivery-count"] == 1
    assert a.channel is not None
    assert a.channel.closed
    party.broker.settle([b, d])  # of a channel that is gone: they come again anyway
    party.broker.settle(party.deliveries[4:])
    await party.publish(placed("e"))
    await party.until(lambda: len(party.deliveries) == 7, "the next alone")
    assert party.flags[-1] == ("e", False)


async def test_prefetch_bounds_what_is_in_hand(party: Party) -> None:
    await party.consume(prefetch=2)
    await party.publish(*(placed(one) for one in "abcde"))
    await party.until(lambda: party.ids == ["a", "b"], "two")
    party.broker.settle(party.deliveries[:])
    await party.until(lambda: party.ids == ["a", "b", "c", "d"], "two more")
    party.broker.settle(party.deliveries[2:3])
    await party.until(lambda: party.ids == ["a", "b", "c", "d", "e"], "one more")


async def test_a_command_that_nobody_hears_is_not_taken(party: Party) -> None:
    await party.consume()
    found = await party.publish(
        command("a"), command("b", "orders.pay.v1"), placed("c"), command("d", "orders.pay.v1")
    )
    assert found == {"b": LOST, "d": LOST}
    await party.until(lambda: party.ids == ["a", "c"], "the others")
    assert await party.publish(command("b", "orders.pay.v1")) == {"b": LOST}
    assert await party.publish(command("b")) == {}
    await party.until(lambda: party.ids == ["a", "c", "b"], "at last")


async def test_an_event_that_only_the_journal_takes_is_taken(party: Party) -> None:
    await party.consume()
    sent = Outgoing("orders", "orders.lost.v1", placed("a").envelope, b"{}", mandatory=True)
    assert await party.publish(sent) == {}


async def test_no_exchange_costs_what_is_under_way_and_no_more(party: Party) -> None:
    await party.consume()
    found = await party.publish(command("a", exchange="nowhere"), placed("b"))
    assert set(found) == {"a", "b"}
    assert "NOT_FOUND" in found["a"]
    assert "no exchange 'nowhere'" in found["a"]
    assert await party.publish(placed("b")) == {}
    await party.until(lambda: party.ids[-1:] == ["b"], "it goes on")
    # What failed before has a channel to itself: beside it nothing is lost.
    one, other = await asyncio.gather(
        party.publish(command("a", exchange="nowhere")), party.publish(placed("c"))
    )
    assert set(one) == {"a"}
    assert other == {}
    await party.until(lambda: party.ids[-1:] == ["c"], "beside it")


async def test_which_queues_are_missing(party: Party) -> None:
    assert await party.doing(party.broker.missing(["theatre", "none"])) == {"theatre", "none"}
    await party.consume()
    assert await party.doing(party.broker.missing(["theatre", "none", "journal"])) == {"none"}
    assert await party.publish(placed("a")) == {}


async def test_a_queue_that_is_deleted_is_declared_again(party: Party) -> None:
    await party.consume()
    await party.delete_queue()
    await party.until(lambda: party.heard == [0, None, 0], "consuming again")
    assert await party.publish(placed("a")) == {}
    await party.until(lambda: party.ids == ["a"], "delivered")


async def test_a_name_that_does_not_fit_is_refused(party: Party) -> None:
    with pytest.raises(ValueError, match="over 255 bytes"):
        await party.publish(placed("ä" * 128))
    await party.consume()
    assert await party.publish(placed("ä" * 127)) == {}
    await party.until(lambda: party.ids == ["ä" * 127], "delivered")
