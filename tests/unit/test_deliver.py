"""The lifecycle between two batches: what it begins, and what it leaves when it is to stop."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from choreo import Service, plan
from choreo import log as logs
from choreo.calls import Calls
from choreo.deliver import Lifecycle
from choreo.identity import Ids
from choreo.intake import Intake
from choreo.relay import Relay
from choreo.seams import SystemClock
from choreo.settings import Settings
from choreo.transaction import Tools
from choreo.work import Call, Item


class Patient:
    """A committer to whom something is due all the time, and who counts what is asked of it."""

    def __init__(self) -> None:
        self.due_at = 0.0
        self.sweep_at = self.prune_at = float("inf")
        self.asked = 0
        self.swept = asyncio.Event()

    async def due(self, *, deadlines_until: float) -> tuple[list[Item], float]:
        self.asked += 1
        return [], deadlines_until

    async def sweep(self) -> None:
        self.sweep_at = float("inf")
        self.swept.set()


class Quiet:
    """A broker that hands nothing over."""

    async def cancel(self) -> None:
        pass


def lifecycle(committer: Patient) -> tuple[Lifecycle, Intake, Calls]:
    service, settings, log, broker = Service("waiter"), Settings(), logs.logger("test"), Quiet()
    calls, relay = Calls(service, settings), Relay(broker, log)  # type: ignore[arg-type]
    clock = SystemClock()
    tools = Tools(plan.make(service), settings, Ids(clock, Random(1)), Random(1), "me")
    intake = Intake(tools.plan, settings, calls, relay, clock)
    given: Any = tools, broker, intake, committer, relay
    return Lifecycle(*given, log=log), intake, calls


async def test_nothing_is_begun_once_it_is_to_stop() -> None:
    """What is due stays for the next start; what is under way is waited for."""
    committer = Patient()
    running, intake, calls = lifecycle(committer)
    calls.under_way["call", "charge", "m-1"] = Call.__new__(Call)
    await running.stop()
    ending = asyncio.create_task(running._next_batch())
    committer.sweep_at = 0.0
    await committer.swept.wait()
    assert not ending.done()
    calls.under_way.clear()
    intake.wake()
    assert await ending is None
    assert committer.asked == 0


async def test_an_idle_service_says_in_time_what_it_has_in_hand() -> None:
    """Its leases would run out if it slept for longer."""
    committer = Patient()
    running, _, _ = lifecycle(committer)
    loop = asyncio.get_running_loop()
    committer.due_at = loop.time() + 3600
    committer.sweep_at = loop.time() + 0.01
    waiting = asyncio.create_task(running._next_batch())
    await asyncio.wait_for(committer.swept.wait(), 30)
    waiting.cancel()
