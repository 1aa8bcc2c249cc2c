"""Commits batches to the service's database, patiently, and lets out what they leave to be done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection
from structlog.typing import FilteringBoundLogger

from choreo import failure
from choreo.calls import Calls, key_of
from choreo.errors import Reject, describe
from choreo.failpoint import reach
from choreo.intake import Batch
from choreo.relay import Relay
from choreo.seams import Clock, Database, Outgoing
from choreo.store.database import OutageError
from choreo.store.memory import Memory, Row
from choreo.store.retention import prune
from choreo.transaction import Tools, Transaction
from choreo.work import Effects, Item, ItemFailedError, Unit, revive

T = TypeVar("T")

AGAIN_FIRST_S, AGAIN_LONGEST_S = 0.05, 5.0
#: Old flows are forgotten in small transactions, with room for others between them.
PRUNED_AT_ONCE, PRUNE_AGAIN_S = 500, 0.1


class Committer:
    """The database side of the lifecycle: one transaction after the other."""

    def __init__(
        self,
        tools: Tools,
        database: Database,
        calls: Calls,
        relay: Relay,
        *,
        clock: Clock,
        log: FilteringBoundLogger,
    ) -> None:
        self._tools = tools
        self._settings = tools.settings
        self._database = database
        self._calls = calls
        self._relay = relay
        self._clock = clock
        self._log = log
        #: How long the last batch, or part of one, had the database to itself, in seconds.
        self.took_s = 0.0
        #: When something is due next, and when to sweep, in the loop's time.
        self.due_at = 0.0
        self.sweep_at = 0.0
        #: When to look for old flows, and behind which message's time.
        self.prune_at = 0.0
        self._pruned_until = 0.0

    async def commit(self, batch: Batch) -> None:
        """Commit a batch; one by one if one of it fails, or may kill the process."""
        forget = self._relay.take_confirmed()
        failed: ItemFailedError | None = None
        if not batch.suspect:
            try:
                await self._transact(batch.items, lambda tx: tx.run(batch.items, forget))
            except ItemFailedError as error:
                failed = error
            else:
                if forget:
                    reach("forgotten")
                return
        self._relay.put_back(forget)
        for item in batch.items:
            if failed is not None and item is failed.item:
                await self._fail(item, failed)
            elif not batch.suspect or await self._mark(item):
                await self._commit_alone(item)

    async def due(self, *, deadlines_until: float) -> tuple[list[Item], float]:
        """What is due now, handed out to this instance, and the database's time.

        Deadlines are among it only if their time was up by `deadlines_until`.
        What was lost with its process comes alone, one at a time: it may be the cause.
        """

        def hand_out(db: Connection, now: float) -> tuple[list[Row], float]:
            memory = Memory(db)
            calls = self._calls
            rows = memory.due(
                now, self._settings.batch, calls.handlers, calls.room,
                deadlines_until=deadlines_until,
            )  # fmt: skip
            rows = self._choose([row for row in rows if key_of(row) not in calls.under_way])
            for row in rows:
                row.update(owner=self._tools.owner, at=now + self._settings.lease_s)
            memory.hand_out(rows)
            return rows, now

        self.due_at = asyncio.get_running_loop().time() + self._settings.poll_s
        rows, now = await self._patiently(hand_out)
        if rows:
            reach("due")
        return revive(self._tools.plan, rows, now), now

    def _choose(self, rows: list[Row]) -> list[Row]:
        lost = [row for row in rows if row["crashes"] or row["owner"] is not None]
        if not lost:
            return rows
        if self._calls.may_kill:
            return [row for row in rows if row not in lost]
        row = lost[0]
        # What is one's own already was handed out in a commit whose answer was lost.
        if row["owner"] not in (None, self._tools.owner):
            row["crashes"] += 1
        return [row]

    async def sweep(self) -> None:
        """Take up what a dead process, or a commit whose answer was lost, left behind."""

        def sweep(db: Connection, now: float) -> list[Outgoing]:
            memory = Memory(db)
            alone = not self._database.is_shared
            lease_until = now + self._settings.lease_s
            memory.reclaim_due(
                self._tools.owner, self._calls.under_way, now, lease_until, alone=alone
            )
            return memory.reclaim_outgoing(
                self._tools.owner, self._relay.in_hand, now, lease_until, alone=alone
            )

        self.sweep_at = asyncio.get_running_loop().time() + self._settings.lease_s / 3
        self.due_at = 0.0
        left_behind = await self._patiently(sweep)
        reach("swept")
        self._relay.send(left_behind)

    async def prune(self) -> None:
        """Forget some of what is older than the retention: a little at a time."""

        def forget(db: Connection, now: float) -> tuple[int, float | None]:
            before = now - self._settings.retention_days * 86400
            return prune(db, before=before, after=self._pruned_until, most=PRUNED_AT_ONCE)

        forgotten, go_on = await self._patiently(forget)
        self._pruned_until = go_on or 0.0
        wait_s = self._settings.prune_every_s if go_on is None else PRUNE_AGAIN_S
        self.prune_at = asyncio.get_running_loop().time() + wait_s
        if forgotten:
            self._log.debug("old flows forgotten", flows=forgotten)

    async def _commit_alone(self, item: Item) -> None:
        try:
            await self._transact((item,), lambda tx: tx.run((item,)))
        except ItemFailedError as failed:
            await self._fail(item, failed)

    async def _fail(self, item: Item, failed: ItemFailedError) -> None:
        """Record a failure; its transaction is rolled back, so that this one is of its own."""
        cause = failed.__cause__
        error = cause if isinstance(cause, Exception) else failed
        try:
            await self._transact((item,), lambda tx: failure.record(tx, item, error))
            reach("failed")
        except Exception as worse:  # noqa: BLE001 - no failure of a message may end the service
            self._log.exception("a failure could not be recorded as it was")
            reason = Reject(f"{describe(error)}, and recording that failed: {describe(worse)}")
            await self._transact((item,), lambda tx: failure.record(tx, item, reason))

    async def _mark(self, item: Item) -> bool:
        """Count that this process begins on it; False if it is parked instead."""
        if not isinstance(item, Unit) or item.route.handler.is_async:
            return True
        unit, goes_on = item, True
        crashes: int | None = None

        def mark(tx: Transaction) -> Effects:
            nonlocal goes_on, crashes
            goes_on, crashes = failure.mark(tx, unit, crashes)
            return tx.effects

        await self._transact((), mark)
        return goes_on

    async def _transact(
        self, items: Sequence[Item], work: Callable[[Transaction], Effects]
    ) -> None:
        """Run the work on the items in one transaction, then let out what it left to be done."""

        def transact(db: Connection, now: float) -> Effects:
            began = self._clock.now()
            effects = work(Transaction(self._tools, db, now))
            self.took_s = self._clock.now() - began
            return effects

        effects = await self._patiently(transact)
        reach("committed")
        self._calls.settle(items)
        self._relay.send(effects.outgoing)
        self._calls.begin(effects.calls)
        for level, event, facts in effects.notes:
            getattr(self._log, level)(event, **facts)
        if effects.next_due_s is not None:
            loop_time = asyncio.get_running_loop().time()
            self.due_at = min(self.due_at, loop_time + max(0.0, effects.next_due_s))

    async def _patiently(self, work: Callable[[Connection, float], T]) -> T:
        """Run the work, however long the database is away: nothing is acked or counted."""
        wait_s = AGAIN_FIRST_S
        while True:
            try:
                result = await self._database.run(work)
            except OutageError as outage:
                self._log.error("database away, trying again", error=str(outage), after_s=wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, AGAIN_LONGEST_S)
                continue
            if wait_s > AGAIN_FIRST_S:
                self._log.info("database back")
                # A commit may have happened and its answer been lost.
                self.sweep_at = 0.0
            return result
