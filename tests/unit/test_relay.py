"""The relay: what fails is tried again by itself, and holds up nothing else."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from choreo import log as logs
from choreo import relay as relays
from choreo.envelope import Envelope
from choreo.relay import Relay
from choreo.seams import Outgoing


def outgoing(name: str) -> Outgoing:
    envelope = Envelope(name, "t.t.v1", "/service/handler", "2026-01-02T03:04:05.678Z", name)
    return Outgoing("t", "t.t.v1", envelope, b"{}")


class Broker:
    """Takes no group with a poisonous message in it, as when the channel is closed for it."""

    def __init__(self, *poison: str) -> None:
        self.poison = {*poison}
        self.seen: Counter[str] = Counter()
        self.under_way = self.most_under_way = 0

    async def publish(self, messages: Sequence[Outgoing]) -> dict[str, str]:
        names = [one.envelope.id for one in messages]
        self.seen.update(names)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        return {} if self.poison.isdisjoint(names) else dict.fromkeys(names, "closed")


@asynccontextmanager
async def running(broker: Any) -> AsyncIterator[Relay]:
    relay = Relay(broker, logs.logger("test"))
    task = asyncio.create_task(relay.run())
    yield relay
    task.cancel()
    await relay.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.001)


async def test_what_is_never_taken_is_soon_alone_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "RETRY_FIRST_S", 0.001)
    names = [str(number) for number in range(1000)]
    poison = {"3", "500", "501", "999"}
    broker = Broker(*poison)
    async with running(broker) as relay:
        relay.send([outgoing(name) for name in names])
        await until(lambda: len(relay.confirmed) == len(names) - len(poison))
        assert {*relay.confirmed} == {*names} - poison
        # A group of 500 has nine halves.
        assert max(broker.seen[name] for name in names if name not in poison) <= 10
        # What comes later goes its way at once, and takes nothing with it.
        seen = broker.seen.copy()
        relay.send([outgoing("later")])
        await until(lambda: "later" in relay.confirmed)
        assert (broker.seen - seen).keys() - poison == {"later"}
        assert broker.seen["later"] == 1
        broker.poison.clear()
        await relay.flush()
    assert broker.most_under_way <= 2 * relays.GROUPS
    assert relay.backlog == 0


async def test_the_wait_grows_for_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "RETRY_FIRST_S", 0.01)
    broker = Broker("poison", "another")
    with capture_logs() as said:
        async with running(broker) as relay:
            began = time.monotonic()
            relay.send([outgoing("poison")])
            await until(lambda: broker.seen["poison"] == 6)
            assert time.monotonic() - began >= 0.01 * (1 + 2 + 4 + 8 + 16)
            relay.send([outgoing("another")])
            await until(lambda: broker.seen["another"] == 3)
    for name, waits in (("poison", [0.01, 0.02, 0.04, 0.08, 0.16]), ("another", [0.01, 0.02])):
        told = [one["after_s"] for one in said if one["message_id"] == name]
        assert told[: len(waits)] == waits
