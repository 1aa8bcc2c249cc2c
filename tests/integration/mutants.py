"""The runtime, broken on purpose in one place: `python -m mutants acks_early services.inventory`.

Each mutant takes one guarantee away; `test_mutants` shows that the proof of it notices.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from choreo import undo
from choreo.deliver import Lifecycle
from choreo.store.database import ServiceDatabase
from choreo.store.memory import Kind, Memory
from choreo.store.tables import due
from choreo.transaction import Transaction

Patch = pytest.MonkeyPatch


def inbox_off(patch: Patch) -> None:
    """No message is remembered, and so none is known."""
    patch.setattr(Memory, "remember", lambda *_, **__: None)
    patch.setattr(Transaction, "_claim", lambda tx, unit: not unit.due or tx.memory.claim(unit.due))


def acks_early(patch: Patch) -> None:
    """The broker forgets a message before what it led to is committed."""
    next_batch = Lifecycle._next_batch

    async def acked(self: Any) -> Any:
        batch = await next_batch(self)
        if batch is not None and batch.deliveries:
            self._broker.settle(batch.deliveries)
            batch.deliveries = []
            # An answer on the same channel: until then the broker has taken the acks in.
            await self._broker._acks.channel.basic_qos(prefetch_count=self._settings.prefetch)
        return batch

    patch.setattr(Lifecycle, "_next_batch", acked)


def outbox_not_swept(patch: Patch) -> None:
    """What a dead process had committed and not published stays where it is."""
    patch.setattr(Memory, "reclaim_outgoing", lambda *_, **__: [])


def undo_twice(patch: Patch) -> None:
    """What was taken back is not marked as such."""
    patch.setattr(undo, "_done", lambda *_: None)


def tombstones_off(patch: Patch) -> None:
    """An undo leaves nothing behind that keeps its step from running."""
    patch.setattr(Transaction, "bury", lambda *_: None)


def deadlines_in_memory(patch: Patch) -> None:
    """A deadline does not outlive its process."""
    prepare = ServiceDatabase._prepare

    def forget(self: ServiceDatabase, db: sa.Connection, now: float) -> None:
        prepare(self, db, now)
        db.execute(sa.delete(due).where(due.c.kind == Kind.DEADLINE.value))

    patch.setattr(ServiceDatabase, "_prepare", forget)


MUTANTS: dict[str, Callable[[Patch], None]] = {
    one.__name__: one
    for one in (
        inbox_off, acks_early, outbox_not_swept, undo_twice, tombstones_off, deadlines_in_memory,
    )
}  # fmt: skip


if __name__ == "__main__":
    mutant, module = sys.argv[1:]
    MUTANTS[mutant](Patch())
    runpy.run_module(module, run_name="__main__", alter_sys=True)
