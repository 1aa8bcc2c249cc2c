"""What a person does with dead letters: those that only faults have made are sent back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import sqlalchemy as sa

from choreo import dead
from choreo.log import in_hand
from choreo.record import delivery_from
from choreo.rehearse.loop import actor
from choreo.store import tables
from choreo.store.memory import Row
from choreo.work import Call

if TYPE_CHECKING:
    from choreo.rehearse.play import Play

#: From then on somebody looks after them, so often, in virtual seconds; each is sent back so often.
_FROM_S, _EVERY_S = 250.0, 100.0
_MOST = 3
#: Whose process died, or which failed before its own code ran or after, has nothing to answer for:
#: nothing that a handler raises makes a reason of this form.
_REHEARSED = re.compile(
    r"its process died \d+ times|failed (once|\d+ times), last with InjectedError: "
)


class Letters:
    """The dead letters of a schedule."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self._times = 0
        self._looked_at = _FROM_S
        #: Into whose calls faults were put: service, handler, and the message in hand.
        self._harmed: set[tuple[str, str, str]] = set()

    def harmed(self) -> None:
        """A fault is put into the call that runs: whatever becomes of it is not its handler's."""
        slot, current = actor.get().place, in_hand.get()
        if slot is not None and current is not None:
            handler, envelope = current
            self._harmed.add((slot.part.name, handler, envelope.id))

    def suspended(self, service: str, calls: Iterable[Call]) -> None:
        """What these calls waited for may come too late, as their process is suspended."""
        self._harmed.update((service, one.handler.name, one.envelope.id) for one in calls)

    def look(self) -> None:
        """Time goes on: somebody may look after them now and then."""
        if self._play.loop.time() >= self._looked_at:
            self._looked_at += _EVERY_S
            self.send_back()

    def send_back(self) -> bool:
        """Send back what faults have made, now that all is at rest; False if there is nothing."""
        found = False
        for part in self._play.playing:
            database, name = part.database, part.name
            if not database.has_letters:
                continue

            def work(db: sa.Connection, now: float, name: str = name) -> bool:
                rows = [dict(row) for row in db.execute(sa.select(tables.dead)).mappings()]
                mended = [row for row in rows if self._is_rehearsed(name, row)]
                for row in mended:
                    dead.send_back(db, row, now)
                return bool(mended)

            if self._times < _MOST:
                found = part.database.transact(work) or found
        self._times += 1
        self._play.schedule.is_calm = True
        return found

    def _is_rehearsed(self, service: str, letter: Row) -> bool:
        # An undo's letter is known by the message that it takes back, and holds the one in hand.
        message = delivery_from(letter["properties"], letter["body"]).message_id
        is_harmed = (service, letter["handler"], message) in self._harmed
        return is_harmed or _REHEARSED.match(letter["reason"]) is not None
