"""The life of a delivery: receive, decode, commit in batches, ack, publish, forget.

    receive -> decode -> [ claim in inbox -> handle -> outbox ] commit -> ack -> publish -> forget

What has arrived, up to N, becomes one transaction; while one batch commits, the next is
received and the last is published.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import Connection
from structlog.typing import FilteringBoundLogger

from choreo import failure, topology
from choreo.calls import Calls
from choreo.relay import Relay
from choreo.seams import Delivery, Outgoing, World
from choreo.settings import Settings
from choreo.store.database import OutageError
from choreo.store.memory import Memory, Row
from choreo.transaction import Tools, Transaction
from choreo.work import Effects, Finished, Item, ItemFailedError, Unit, judge, revive

T = TypeVar("T")

#: Confirmed messages of an idle service leave the outbox after so many seconds.
FORGET_IDLE_S = 0.2


@dataclass(slots=True)
class Batch:
    """What one transaction takes."""

    items: list[Item] = field(default_factory=list)
    #: Settled at the broker once the items are committed.
    deliveries: list[Delivery] = field(default_factory=list)
    #: Whether it may have killed a process before, and so is taken alone.
    suspect: bool = False


class Lifecycle:
    """Runs one service: its loop takes one batch after the other."""

    def __init__(
        self,
        tools: Tools,
        world: World,
        calls: Calls,
        relay: Relay,
        log: FilteringBoundLogger,
    ) -> None:
        self._tools = tools
        self._settings: Settings = tools.settings
        self._world = world
        self._calls = calls
        self._relay = relay
        self._log = log
        self._arrived: deque[Delivery] = deque()
        self._finished: deque[Finished] = deque()
        self._wake = asyncio.Event()
        self._stopping = False
        #: When the database is asked next, in the loop's time.
        self._look_at = 0.0
        self._sweep_at = 0.0
        calls.on_finished = self._call_finished
        relay.on_confirmed = self._wake.set

    async def run(self) -> None:
        """Consume until told to stop, then finish what is in hand."""
        service = self._tools.plan.service
        await self._sweep()
        await self._world.broker.consume(
            topology.of([service]), service.name, self._settings.prefetch, self._received
        )
        self._log.info("consuming", queue=service.name)
        while (batch := await self._next_batch()) is not None:
            await self._commit(batch)
            self._world.broker.settle(batch.deliveries)

    async def stop(self) -> None:
        """Stop receiving; `run` returns once nothing is in hand any more."""
        await self._world.broker.cancel()
        self._stopping = True
        self._wake.set()

    def _received(self, delivery: Delivery) -> None:
        self._arrived.append(delivery)
        self._wake.set()

    def _call_finished(self, finished: Finished) -> None:
        self._finished.append(finished)
        self._wake.set()

    # Receiving.

    async def _next_batch(self) -> Batch | None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            batch = self._gather()
            if loop.time() >= self._sweep_at:
                await self._sweep()
            if loop.time() >= self._look_at:
                self._look_at = loop.time() + self._settings.poll_s
                batch.items.extend(await self._due())
            if batch.items or len(self._relay.confirmed) >= self._settings.batch:
                return batch
            if self._stopping and not self._arrived and not self._calls.under_way:
                return None
            if await self._idle() and self._relay.confirmed:
                return batch

    async def _idle(self) -> bool:
        """Wait until something happens; True if for a while nothing did."""
        loop = asyncio.get_running_loop()
        until = min(self._look_at, loop.time() + FORGET_IDLE_S if self._relay.confirmed else 1e12)
        timer = loop.call_at(until, self._wake.set)
        await self._wake.wait()
        timer.cancel()
        return loop.time() >= until

    def _gather(self) -> Batch:
        """What has arrived, up to the size of a batch, as far as the bounds allow."""
        batch = Batch()
        while self._finished:
            batch.items.append(self._finished.popleft())
        room = self._settings.batch
        if self._calls.handles_calls:
            room = min(room, self._settings.calls - self._calls.under_way)
        if self._relay.backlog >= self._settings.backlog:
            room = 0
        now = self._world.clock.now()
        while self._arrived and len(batch.deliveries) < room:
            if self._arrived[0].redelivered:
                if batch.items:
                    break
                batch.suspect = True
            delivery = self._arrived.popleft()
            batch.deliveries.append(delivery)
            limit = self._settings.max_body_bytes
            batch.items.extend(judge(self._tools.plan, delivery, now, limit))
            if batch.suspect:
                break
        return batch

    async def _due(self) -> Sequence[Item]:
        def load(db: Connection, now: float) -> tuple[list[Row], float]:
            return Memory(db).due(now, self._settings.batch), now

        rows, now = await self._patiently(load)
        return revive(self._tools.plan, rows, now)

    async def _sweep(self) -> None:
        """Take up what a dead process, or a commit whose answer was lost, left behind."""

        def sweep(db: Connection, now: float) -> list[Outgoing]:
            memory = Memory(db)
            alone = not self._world.database.is_shared
            memory.reclaim_calls(self._tools.owner, self._calls.keys, now, alone=alone)
            lease_until = now + self._settings.lease_s
            return memory.reclaim_outgoing(
                self._tools.owner, self._relay.in_hand, now, lease_until, alone=alone
            )

        self._sweep_at = asyncio.get_running_loop().time() + self._settings.lease_s / 3
        self._look_at = 0.0
        self._relay.send(await self._patiently(sweep))

    # Committing.

    async def _commit(self, batch: Batch) -> None:
        """Commit a batch; one by one if one of it fails, or may kill the process."""
        forget = self._relay.take_confirmed()
        failed: ItemFailedError | None = None
        if not batch.suspect:
            try:
                await self._transact(batch.items, lambda tx: tx.run(batch.items, forget))
            except ItemFailedError as error:
                failed = error
            else:
                return
        self._relay.put_back(forget)
        for item in batch.items:
            if failed is not None and item is failed.item:
                await self._fail(item, failed)
            elif not batch.suspect or await self._mark(item):
                await self._commit_alone(item)

    async def _commit_alone(self, item: Item) -> None:
        try:
            await self._transact((item,), lambda tx: tx.run((item,)))
        except ItemFailedError as failed:
            await self._fail(item, failed)

    async def _fail(self, item: Item, failed: ItemFailedError) -> None:
        """Record a failure; its transaction is rolled back, so that this one is of its own."""
        cause = failed.__cause__
        error = cause if isinstance(cause, Exception) else failed
        await self._transact((item,), lambda tx: failure.record(tx, item, error))

    async def _mark(self, item: Item) -> bool:
        """Count that this process begins on it; False if it is parked instead."""
        if not isinstance(item, Unit) or item.route.handler.is_async:
            return True
        unit, goes_on = item, True

        def mark(tx: Transaction) -> Effects:
            nonlocal goes_on
            goes_on = failure.mark(tx, unit)
            return tx.effects

        await self._transact((), mark)
        return goes_on

    async def _transact(
        self, items: Sequence[Item], work: Callable[[Transaction], Effects]
    ) -> None:
        """Run the work on the items in one transaction, then let out what it left to be done."""

        def transact(db: Connection, now: float) -> Effects:
            return work(Transaction(self._tools, db, now))

        effects = await self._patiently(transact)
        self._calls.settle(items)
        self._relay.send(effects.outgoing)
        self._calls.begin(effects.calls)
        for level, event, facts in effects.notes:
            getattr(self._log, level)(event, **facts)
        if effects.next_due_s is not None:
            loop_time = asyncio.get_running_loop().time()
            self._look_at = min(self._look_at, loop_time + max(0.0, effects.next_due_s))

    async def _patiently(self, work: Callable[[Connection, float], T]) -> T:
        """Run the work, however long the database is away: nothing is acked or counted."""
        wait_s = 0.05
        while True:
            try:
                result = await self._world.database.run(work)
            except OutageError as outage:
                self._log.error("database away, trying again", error=str(outage), after_s=wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, 5.0)
                continue
            if wait_s > 0.05:
                self._log.info("database back")
                # A commit may have happened and its answer been lost.
                self._sweep_at = 0.0
            return result
