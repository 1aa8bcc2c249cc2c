"""What goes wrong in a rehearsal: how likely, to whom, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from choreo.rehearse.schedule import Decision

if TYPE_CHECKING:
    from choreo.rehearse.play import Play
    from choreo.rehearse.slot import Slot

#: How likely each kind is, where it can happen: at a boundary of the lifecycle, at a transaction,
#: at a start.
CHANCES = {
    "crash": 0.001,
    "failure": 0.012,
    "database": 0.01,
    "pace": 0.05,
    "asleep": 0.02,
    "twin": 0.06,
    "order": 0.5,
}
#: How likely each is after a step.
ASIDES = {
    "duplicate": 0.02,
    "hold": 0.01,
    "cut consuming": 0.003,
    "cut publishing": 0.003,
    "kill": 0.003,
    "stall": 0.006,
    "suspend": 0.002,
    "outage": 0.0015,
    "late": 0.02,
    "stop": 0.003,
}
_TWICE = dict.fromkeys(ASIDES, 0.0) | {"duplicate": 1.0}
#: In virtual seconds, how long what is gone, held or stalled stays so; the last ones are longer
#: than an answer's time, or a deadline.
_LASTS_S = (0.3, 0.3, 2.0, 2.0, 2.0, 6.0, 6.0, 6.0, 50.0, 70.0, 140.0, 140.0)
#: Where a process has something in hand.
_IN_HAND = ("committed", "outbox_read", "published", "call_begun", "called")
#: How long a process is suspended, in leases: others take over what it has in hand.
_SUSPENDED_LEASES = (1.5, 2.5, 5.0)
#: How long a transaction takes, in virtual seconds: as connections are lost in the meantime, and
#: found again.
_PACES_S = (0.01, 0.2, 1.5)
#: The broker gives a connection up on which it has heard nothing for so long, in virtual seconds.
_HEARTBEATS_S = 60.0
#: How many of these a schedule draws on: to let time pass costs time.
_SHORT, _LONG = 8, 12
#: What every schedule has in it.
_ALWAYS = ("crash", "duplicate", "database")
#: A deadline that is further away means never, and is not waited for: a season, in seconds.
_NEVER_S = 90 * 86_400.0
#: How likely a call outside goes wrong: that is a matter of all or nothing.
_OUTSIDE = (0.0, 0.05, 0.1, 0.3)
#: Where an exception of a handler can come from.
_HANDLED = ("claimed", "undoing", "undone", "deadline")
_OUTAGES = {
    "away": "the database of {} is away",
    "undone": "the database of {} goes away before a commit",
    "unheard": "{} does not hear that its commit succeeded",
}
#: About so many boundaries are reached in a schedule of one flow; a second death is less certain.
_FATAL, _NEVER = range(1, 130), [0] * 130
_DOUBLED = range(2, 45)
#: Before which of the statements that handlers make a disk fails, in a third of schedules at most:
#: small choreographies make few.
_BREAKS = (1, 2, 3, 5, 8, 13, 21, 34, 55)
_BREAKS_NEVER = [0] * 2 * len(_BREAKS)
#: Few deliveries come to these boundaries: so much the likelier it is that a process dies there.
_RARE = ("undoing", "undone", "deadline", "failed", "parked", "conducting", "conducted", "due")
_RARER = 6
#: How likely a handler that has failed fails again.
_AGAIN = 0.5
#: So much the likelier somebody fails whom no end depends on: flows go on all the same. Of what
#: comes twice, or is overtaken, as much the more is theirs, and less is left to the others.
_BYSTANDER = 5


class InjectedError(Exception):
    """A handler failed because the schedule says so."""


class Faults:
    """Puts the schedule's decisions into effect."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self._schedule = play.schedule
        self._chances = play.schedule.swarm(CHANCES, _ALWAYS)
        self._chances["outside"] = play.schedule.one_of(*_OUTSIDE)
        self._asides = play.schedule.swarm(ASIDES, _ALWAYS)
        self._options = play.schedule.one_of(_SHORT, _SHORT, _SHORT, _LONG)
        #: Slots whose messages do not move now.
        self.stalled: set[str] = set()
        #: Until then nobody hears anything, in virtual seconds.
        self.deaf_until = 0.0
        #: How many boundaries were reached, and at which of them a process dies for certain.
        self._reached = 0
        self._fatal = {play.schedule.one_of(*_FATAL), play.schedule.one_of(*_FATAL, *_NEVER)}
        #: After which steps some message comes twice for certain.
        self._doubled = {play.schedule.one_of(*_DOUBLED) for _ in range(3)}
        #: Where a handler has just failed.
        self._failing: set[str] = set()
        #: How many statements handlers have made, and at which of them a disk fails.
        self._statements = 0
        self._breaks = play.schedule.one_of(*_BREAKS, *_BREAKS_NEVER)
        #: Whose disk fails now, and whether that breaks a transaction.
        self._broken: dict[str, bool] = {}
        #: What ends later, and how.
        self._ends: dict[Decision, Callable[[], object]] = {}

    @property
    def are_under_way(self) -> bool:
        """Whether something that went wrong is not over yet."""
        return bool(self._ends)

    def end(self) -> bool:
        """End at once what would end later; False if there is nothing."""
        ends, self._ends = self._ends, {}
        for end in ends.values():
            end()
        return bool(ends)

    def chance(self, kind: str) -> float:
        """How likely a kind is in this schedule."""
        return self._chances[kind]

    def at(self, slot: Slot, point: str) -> int:
        """Whether a process dies at a boundary: 0, or how long until the next."""
        about = f"{slot.name} at {point}"
        if point in _HANDLED and self._fails(slot, about):
            self._play.told("failure", f"a handler of {slot.name} fails ({point})")
            raise InjectedError(f"rehearsed, at {point}")
        self._reached += 1
        if slot.running.actor.is_suspended or self._falls_asleep(slot, point):
            return 0
        chance = self._chances["crash"] * (_RARER if point in _RARE else 1)
        if self._reached in self._fatal:
            chance = 1.0
        return self._schedule.decide("crash", about, chance, self._options)

    def _fails(self, slot: Slot, about: str) -> bool:
        """Who fails once most often fails again, so that messages are given up as well."""
        usual = self._chances["failure"] * self._weight(slot.part.name)
        chance = _AGAIN if about in self._failing else usual
        fails = self._schedule.decide("failure", about, chance) > 0
        (self._failing.add if fails else self._failing.discard)(about)
        return fails

    def _weight(self, name: str) -> int:
        return _BYSTANDER if name in self._play.bystanders else 1

    def of_database(self, slot: Slot) -> str:
        """What goes wrong with a transaction."""
        value = self._schedule.decide("database", slot.name, self._chances["database"], 4)
        what = ("", "away", "unheard", "undone", "undone")[value]
        if what:
            self._play.told("database", _OUTAGES[what].format(slot.name))
        return what

    def of_statement(self, slot: Slot) -> bool | None:
        """Whether a statement that a handler makes fails now, and with it its transaction.

        None: it does not.
        """
        name = slot.part.name
        if name not in self._broken:
            self._statements += 1
            chance = float(self._statements == self._breaks)
            value = self._schedule.decide("statement", slot.name, chance, self._options)
            if not value:
                return None
            what = f"the disk of {name} fails for {lasts_s(value):g} s, while a handler uses it"
            self._play.told("statement", what)
            self._broken[name] = value % 2 > 0
            one = Decision("statement", slot.name, self._reached, value)
            self._ends_later(one, lambda: self._broken.pop(name, None))
        return self._broken[name]

    def pace(self, slot: Slot) -> tuple[float, float]:
        """How long a transaction takes before it is done, and behind that, in virtual seconds."""
        many = len(_PACES_S)
        value = self._schedule.decide("pace", slot.name, self._chances["pace"], 2 * many)
        if not value:
            return 0.0, 0.0
        lasts_s = _PACES_S[(value - 1) % many]
        return (lasts_s, 0.0) if value <= many else (0.0, lasts_s)

    def after_step(self, nth: int) -> bool:
        """Whether something else happened."""
        happened = False
        chances = _TWICE if nth in self._doubled else self._asides
        for one in self._schedule.aside(nth, chances, self._candidates, self._options):
            getattr(self, f"_{one.kind.replace(' ', '_')}")(one)
            happened = True
        return happened

    def _candidates(self, kind: str) -> Sequence[str]:
        rabbit = self._play.rabbit
        if kind == "outage":
            return ("the broker",) if rabbit.is_running else ()
        if kind == "late":
            return [name for name, _ in self._deadlines()]
        if kind in ("duplicate", "hold"):
            names = (part.name for part in self._play.parts) if rabbit.is_running else ()
            waiting = [name for name in names if rabbit.queues[name].count]
            return [name for name in waiting for _ in range(self._weight(name))]
        slots = [one for one in self._play.slots if one.instance and one.name not in self.stalled]
        if kind == "suspend":
            return [one.name for one in slots]
        if kind == "stop":
            slots = [one for one in slots if one.running.down_s is None]
        # It means most to who is about to hear or to say something.
        busy = [one for one in slots if rabbit.queues[one.part.name].count or not one.is_quiet]
        return [one.name for one in busy or slots]

    def _deadlines(self) -> Iterator[tuple[str, float]]:
        """Whose deadline will be up some day, and in how many virtual seconds."""
        now = self._play.clock.now()
        for part in self._play.playing:
            at = part.database.next_deadline()
            if at is not None and 0 < at - now < _NEVER_S:
                yield part.name, at - now

    def _late(self, one: Decision) -> None:
        wait_s = dict(self._deadlines())[one.about] + 0.001
        self._play.told("late", f"nobody hears anything until a deadline of {one.about} is up")
        self.deaf_until = self._play.loop.time() + wait_s
        self._play.later(wait_s, lambda: None)

    def _duplicate(self, one: Decision) -> None:
        waiting = self._play.rabbit.queues[one.about].waiting  # type: ignore[union-attr]
        at = one.value % len(waiting)
        self._play.rabbit.duplicate(one.about, at)
        self._play.told("duplicate", f"{waiting[at].wire_type} comes twice to {one.about}")

    def _hold(self, one: Decision) -> None:
        held = self._play.rabbit.hold(one.about)
        if held is not None:
            self._play.told("hold", f"a message to {one.about} is overtaken by those after it")
            self._ends_later(one, held.drop)

    def _cut_consuming(self, one: Decision) -> None:
        self._play.told("cut", f"{one.about} loses the connection that it consumes on")
        self._play.slot(one.about).running.broker.lose_consuming()

    def _cut_publishing(self, one: Decision) -> None:
        self._play.told("cut", f"{one.about} loses the connection that it publishes on")
        self._play.slot(one.about).running.broker.lose_publishing(one.value % 3)

    def _kill(self, one: Decision) -> None:
        slot = self._play.slot(one.about)
        slot.die("while it waits", lasts_s(one.value), one.value % 3)

    def _stop(self, one: Decision) -> None:
        self._play.slot(one.about).stop(lasts_s(one.value))

    def _stall(self, one: Decision) -> None:
        self._play.told("stall", f"{one.about} hears and says nothing for {lasts_s(one.value):g} s")
        self.stalled.add(one.about)
        self._ends_later(one, lambda: self.stalled.discard(one.about))

    def _falls_asleep(self, slot: Slot, point: str) -> bool:
        """Whether it is suspended where it has something in hand that its twin can take over."""
        if not slot.is_shared or point not in _IN_HAND:
            return False
        about, chance = f"{slot.name} at {point}", self._chances["asleep"]
        value = self._schedule.decide("asleep", about, chance, len(_SUSPENDED_LEASES))
        if value:
            self._suspend(Decision("asleep", slot.name, self._reached, value))
        return value > 0

    def _suspend(self, one: Decision) -> None:
        """Neither its code nor its connections move, as where a machine is paused."""
        slot, leases = self._play.slot(one.about), _SUSPENDED_LEASES
        lasts_s = leases[one.value % len(leases)] * self._play.settings.lease_s
        self._play.told("suspend", f"{slot.name} is suspended for {lasts_s:g} s")
        self._play.letters.suspended(slot.part.name, slot.running.calls)
        process, broker = slot.running.actor, slot.running.broker
        process.is_suspended = True
        self.stalled.add(one.about)

        def fall_silent() -> None:
            if process.is_suspended:
                broker.lose_both()

        def wake() -> None:
            if not process.is_alive:  # it was told to stop, and was not waited for any longer
                return
            self._play.events.append((self._play.loop.time(), f"{one.about} wakes up"))
            self.stalled.discard(one.about)
            self._play.loop.resume(process)

        # Nobody hears of it on its connections, and so the broker gives them up.
        self._play.later(min(lasts_s, _HEARTBEATS_S), fall_silent)
        self._ends_later(one, wake, lasts_s)

    def _outage(self, one: Decision) -> None:
        self._play.told("outage", f"the broker is away for {lasts_s(one.value):g} s")
        self._play.rabbit.stop()
        self._ends_later(one, self._play.rabbit.start)

    def _ends_later(
        self, one: Decision, end: Callable[[], object], after_s: float | None = None
    ) -> None:
        self._ends[one] = end
        wait_s = lasts_s(one.value) if after_s is None else after_s
        self._play.later(wait_s, partial(self._end, one))

    def _end(self, one: Decision) -> None:
        if (end := self._ends.pop(one, None)) is not None:
            end()


def lasts_s(value: int) -> float:
    """How long something lasts."""
    return _LASTS_S[(value - 1) % len(_LASTS_S)]
