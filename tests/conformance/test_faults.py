"""What a rehearsal does to the simulated broker: nothing that a real one could not do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from choreo.envelope import Envelope
from choreo.errors import CannotRunError
from choreo.rehearse.broker import SimulatedBroker
from choreo.rehearse.rabbit import QuorumQueue, Rabbit
from choreo.seams import Delivery, Outgoing
from choreo.settings import Settings
from choreo.topology import Binding, Topology

TOPOLOGY = Topology(("orders",), (), ("theatre",), (Binding("theatre", "orders", "orders.#"),))


class Instance:
    """A service that consumes, and does nothing by itself."""

    def __init__(self, rabbit: Rabbit, publish_timeout_s: float = 60) -> None:
        settings = Settings(publish_timeout_s=publish_timeout_s)
        self.broker = SimulatedBroker(rabbit, "theatre", settings, lambda: 0.0)
        self.deliveries: list[Delivery] = []

    async def start(self) -> Instance:
        await self.broker.open()
        await self.broker.consume(
            TOPOLOGY, "theatre", 100, self.deliveries.append, lambda _waiting: None
        )
        return self

    async def write(self, *ids: str) -> asyncio.Task[dict[str, str]]:
        task = asyncio.create_task(self.broker.publish([message(one) for one in ids]))
        await asyncio.sleep(0)
        return task

    def take(self, *kinds: str) -> None:
        """Take one step of each kind, which must be possible."""
        for kind in kinds:
            next(step for step in self.broker.steps() if step.kind == kind).take()

    @property
    def kinds(self) -> list[str]:
        return [step.kind for step in self.broker.steps()]

    @property
    def flags(self) -> list[tuple[str | None, bool]]:
        return [(one.message_id, one.redelivered) for one in self.deliveries]


def message(identifier: str) -> Outgoing:
    envelope = Envelope(identifier, "orders.v1", "/o/h", "2026-01-02T03:04:05Z", "flow")
    return Outgoing("orders", "orders.v1", envelope, b"{}")


def waiting(rabbit: Rabbit) -> list[str | None]:
    queue = rabbit.queues["theatre"]
    assert isinstance(queue, QuorumQueue)
    return [one.message_id for one in queue.waiting]


@pytest.fixture(name="rabbit")
def rabbit_fixture() -> Rabbit:
    return Rabbit()


@pytest.fixture(name="instance")
async def instance_fixture(rabbit: Rabbit) -> Instance:
    return await Instance(rabbit).start()


@pytest.fixture(name="hasty")
async def hasty_fixture(rabbit: Rabbit) -> Instance:
    """Hardly waits for a confirm."""
    return await Instance(rabbit, publish_timeout_s=0.05).start()


async def test_nothing_moves_before_its_step(rabbit: Rabbit, instance: Instance) -> None:
    task = await instance.write("a", "b")
    assert instance.kinds == ["arrive"]
    instance.take("arrive")
    assert instance.kinds == ["deliver", "confirm", "arrive"]
    instance.take("confirm", "arrive")
    await asyncio.sleep(0)
    instance.take("confirm")
    assert await task == {}
    assert instance.broker.is_quiet
    assert instance.kinds == ["deliver"]
    assert instance.flags == []
    instance.take("deliver", "deliver")
    assert instance.flags == [("a", False), ("b", False)]
    instance.broker.settle(instance.deliveries)
    assert rabbit.is_settled
    assert instance.kinds == []


async def test_a_lost_confirm_makes_a_duplicate(rabbit: Rabbit, instance: Instance) -> None:
    task = await instance.write("a", "b", "c")
    instance.take("arrive", "confirm", "arrive")
    instance.broker.lose_publishing()
    assert set(await task) == {"b", "c"}  # and the broker has b
    again = await instance.write("b", "c")
    assert instance.kinds == ["deliver", "reconnect"]
    instance.take("reconnect")
    await asyncio.sleep(0)
    instance.take("arrive", "arrive", "confirm")
    assert await again == {}
    assert waiting(rabbit) == ["a", "b", "b", "c"]


@pytest.mark.parametrize("arriving", [0, 1, 2, 3])
async def test_what_was_written_before_a_crash_may_arrive(
    rabbit: Rabbit, instance: Instance, arriving: int
) -> None:
    task = await instance.write("a", "b")
    instance.broker.crash(arriving)
    assert waiting(rabbit) == ["a", "b"][:arriving]
    assert instance.kinds == []
    await asyncio.sleep(0)
    assert not task.done()  # whoever waited for it is gone, too
    task.cancel()


async def test_a_crash_gives_back_what_is_in_hand(rabbit: Rabbit, instance: Instance) -> None:
    await instance.write("a", "b", "c")
    instance.take("arrive", "arrive", "arrive", "confirm", "deliver", "deliver")
    instance.broker.settle(instance.deliveries[:1])
    instance.broker.crash()
    instance.broker.settle(instance.deliveries[1:])  # from beyond: nobody hears it
    successor = await Instance(rabbit).start()
    successor.take("deliver", "deliver")
    assert successor.flags == [("b", True), ("c", False)]


async def test_what_is_held_is_overtaken(rabbit: Rabbit, instance: Instance) -> None:
    await instance.write("a", "b", "c")
    assert rabbit.hold("theatre") is None
    instance.take("arrive", "arrive", "arrive")
    held = rabbit.hold("theatre")
    assert held is not None
    instance.take("deliver")
    held.drop()
    instance.take("deliver", "deliver")
    assert instance.flags == [("b", False), ("a", True), ("c", False)]


async def test_a_duplicate_is_at_the_end(rabbit: Rabbit, instance: Instance) -> None:
    await instance.write("a", "b")
    instance.take("arrive", "arrive")
    rabbit.duplicate("theatre")
    assert waiting(rabbit) == ["a", "b", "a"]


async def test_a_broker_that_is_away_can_be_waited_for(
    rabbit: Rabbit, instance: Instance, hasty: Instance
) -> None:
    await instance.write("a")
    instance.take("arrive", "confirm")
    hasty.take("deliver")
    rabbit.stop()
    assert hasty.kinds == []
    failures = await (await hasty.write("b"))
    assert failures == {"b": "no confirm within 0.05 s"}
    with pytest.raises(CannotRunError, match="the broker is stopped"):
        await Instance(rabbit).start()
    rabbit.start()
    assert hasty.kinds == ["reconnect", "reconnect"]
    hasty.take("reconnect", "reconnect", "deliver")
    assert hasty.flags == [("a", False), ("a", True)]


async def test_a_publish_that_takes_too_long_takes_the_connection(hasty: Instance) -> None:
    task = await hasty.write("a")
    hasty.take("arrive")
    assert await task == {"a": "no confirm within 0.05 s"}
    assert hasty.kinds == ["deliver", "reconnect"]


async def test_two_instances_take_turns_by_choice(rabbit: Rabbit, instance: Instance) -> None:
    other = await Instance(rabbit).start()
    await instance.write("a", "b", "c")
    instance.take("arrive", "arrive", "arrive")
    other.take("deliver", "deliver")
    instance.take("deliver")
    assert other.flags == [("a", False), ("b", False)]
    assert instance.flags == [("c", False)]


def test_what_is_no_quorum_queue_has_no_such_faults(rabbit: Rabbit) -> None:
    channel = rabbit.connect().channel()
    channel.declare_queue("s", {"x-queue-type": "stream"})
    faults: list[Callable[[str], object]] = [rabbit.hold, rabbit.duplicate]
    for fault in faults:
        with pytest.raises(TypeError, match="s is no quorum queue"):
            fault("s")
