"""One delivery, whole.

    receive -> decode -> [ claim in inbox -> handle -> outbox ] commit -> ack -> publish -> forget

What has arrived, up to N, becomes one transaction; while one batch commits, the next is
received and the last is published.
"""

from __future__ import annotations

import asyncio

from structlog.typing import FilteringBoundLogger

from choreo.commit import Committer
from choreo.intake import Batch, Intake
from choreo.relay import Relay
from choreo.seams import Broker
from choreo.transaction import Tools
from choreo.work import Item, is_suspect

#: Confirmed messages of an idle service leave the outbox after so many seconds.
FORGET_IDLE_S = 0.2


class Lifecycle:
    """Runs one service: takes one batch after the other, until it is told to stop."""

    def __init__(
        self,
        tools: Tools,
        broker: Broker,
        intake: Intake,
        committer: Committer,
        relay: Relay,
        *,
        log: FilteringBoundLogger,
    ) -> None:
        self._plan = tools.plan
        self._settings = tools.settings
        self._broker = broker
        self._intake = intake
        self._committer = committer
        self._relay = relay
        self._log = log
        self._stopping = False

    async def run(self) -> None:
        """Take up what was left behind, then handle what arrives.

        Returns when told to stop, and nothing is in hand any more.
        """
        await self._committer.sweep()
        if not self._stopping:
            await self._consume()
        while (batch := await self._next_batch()) is not None:
            await self._committer.commit(batch)
            self._intake.took(batch, self._committer.took_s)
            self._broker.settle(batch.deliveries)

    async def _consume(self) -> None:
        await self._broker.consume(
            self._plan.topology,
            self._plan.service.name,
            self._settings.prefetch,
            self._intake.receive,
            self._intake.hear,
        )
        self._log.info("consuming", queue=self._plan.service.name)

    async def stop(self) -> None:
        """Stop receiving."""
        await self._broker.cancel()
        self._stopping = True
        self._intake.wake()

    async def _next_batch(self) -> Batch | None:
        loop = asyncio.get_running_loop()
        committer, relay, intake = self._committer, self._relay, self._intake
        while True:
            intake.rest()
            if loop.time() >= committer.sweep_at:
                await committer.sweep()
            if loop.time() >= committer.prune_at:
                await committer.prune()
            due = await self._due()
            if any(is_suspect(item) for item in due):
                return Batch(due)
            batch = intake.gather(due)
            if batch.items or len(relay.confirmed) >= self._settings.batch:
                return batch
            if self._stopping and intake.is_empty:
                return None
            until = min(committer.sweep_at, committer.prune_at)
            if not self._stopping:
                until = min(until, committer.due_at)
            if relay.confirmed:
                until = min(until, loop.time() + FORGET_IDLE_S)
            if await intake.wait(until) and relay.confirmed:
                return batch

    async def _due(self) -> list[Item]:
        """What is due now; once it is to stop, nothing more is begun."""
        if self._stopping or asyncio.get_running_loop().time() < self._committer.due_at:
            return []
        due, now = await self._committer.due(deadlines_until=self._intake.heard_until)
        self._intake.note(now)
        return due
