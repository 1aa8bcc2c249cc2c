"""Counts the states that schedules come through: how far every flow is, without ids and times."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from choreo.rehearse.instance import Part
from choreo.rehearse.rabbit import QuorumQueue, Rabbit

#: How many steps, by handler and how far they are, and what is due and unsent.
_STATE = """
    SELECT handler, status, ifnull(undo, '') FROM choreo_inbox
    UNION ALL
    SELECT kind, handler, owner IS NULL FROM choreo_due
    UNION ALL
    SELECT '', '', count(*) FROM choreo_outbox
"""
_TABLES = ("choreo_inbox", "choreo_due", "choreo_outbox")
#: What it gives where they are empty.
_NONE = ("", "", 0)


class States:
    """The states of one schedule, each as a number."""

    def __init__(self, parts: Sequence[Part], rabbit: Rabbit) -> None:
        #: Those that it came through, in order.
        self.trail: list[int] = []
        self._drivers = [part.database.driver for part in parts]
        self._filled = [part.database.filled for part in parts]
        self._of_part = [b""] * len(parts)
        self._queues = [
            queue for part in parts if isinstance(queue := rabbit.queues[part.name], QuorumQueue)
        ]
        #: Of each queue, how many messages wait, and how many are not acked.
        self._counts: list[tuple[int, int]] | None = None
        #: How often each database was written to when it was looked at.
        self._changes = [-1] * len(parts)

    def look(self) -> None:
        """Take note of the state that all services and queues are in now."""
        is_new = False
        for number, driver in enumerate(self._drivers):
            if self._changes[number] != driver.total_changes:
                self._changes[number] = driver.total_changes
                is_empty = self._filled[number].is_empty(*_TABLES)
                rows = [_NONE] if is_empty else driver.execute(_STATE).fetchall()
                found = repr(sorted(rows)).encode()
                is_new = is_new or found != self._of_part[number]
                self._of_part[number] = found
        counts = [(queue.count, queue.unacked) for queue in self._queues]
        if not is_new and counts == self._counts:
            return
        self._counts = counts
        state = b"".join((*self._of_part, repr(counts).encode()))
        number = int.from_bytes(blake2b(state, digest_size=8).digest(), "big")
        if not self.trail or number != self.trail[-1]:
            self.trail.append(number)
