"""Plays the services as a trace of `choreo check` says: what comes next, and when a time is up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from choreo.check import Happening
from choreo.envelope import PREFIX
from choreo.log import in_hand
from choreo.rehearse.broker import Step
from choreo.rehearse.instance import Part
from choreo.rehearse.loop import actor
from choreo.rehearse.outside import Outside, for_ever
from choreo.rehearse.play import CALM_S, SETTLES_S, Play
from choreo.rehearse.project import Failing
from choreo.rehearse.rabbit import Connection, Message, QuorumQueue
from choreo.rehearse.schedule import Schedule
from choreo.rehearse.slot import Slot

F = TypeVar("F")

_BUSY = (
    "SELECT EXISTS (SELECT 1 FROM choreo_due WHERE at IS NOT NULL AND kind <> 'deadline')"
    " OR EXISTS (SELECT 1 FROM choreo_outbox)"
)
_ARMED = (
    "SELECT message_id, subject, at FROM choreo_due"
    " WHERE kind = 'deadline' AND handler = ? AND flow = ?"
)
_STATUS = "SELECT status FROM choreo_inbox WHERE message_id = ? AND handler = ?"
#: That of an undo is about the message whose step it should take back.
_DEAD = (
    "SELECT reason FROM choreo_dead"
    " WHERE handler = ? AND (message_id = ? OR kind = 'undo' AND flow = ?)"
)
#: As the check says it.
_CANCELLED = "cancelled before it began"
_TOGETHER = "it got the message with other handlers of its service, which the trace has apart"
_TOO_LONG = "no replay lasts so long"
#: How it is said that it is not the code that keeps a trace from being followed.
LIMITS = (_TOGETHER, _TOO_LONG)
#: A deadline that is further away is not waited for, in seconds.
_LONGEST_S = 86_400.0
#: How likely a call that is never answered fails, and does not hang.
_FAILS = 0.5


class AstrayError(Exception):
    """The services do not do what the trace says."""


class Retracing(Play):
    """One schedule, led by a trace; nothing else goes wrong in it, and then all settles."""

    def __init__(self, steps: Sequence[Happening], *args: Any, **given: Any) -> None:
        """`steps`: from the start on; all else is as for every play."""
        self._trace = steps
        self._answers = Schedule(given["schedule"].seed)
        #: The call that is never answered, and the step of the trace that is in hand.
        self._lost = next((one for one in steps if one.do == "lost"), None)
        self._step = steps[0]
        #: How many steps of the trace have really happened, and why not the next.
        self.came = 0
        self.astray = ""
        #: The id of the flow that is led; None before it starts.
        self.flow: str | None = None
        self._is_led = True
        #: What its handlers have said, in order.
        self._said: list[Message] = []
        #: What was handed to which service, and the receivers for which that is counted already.
        self._handed: list[tuple[str, Message, set[tuple[str, str]]]] = []
        #: The subject that each number of several side by side stands for.
        self._subjects: dict[int, str | None] = {}
        #: Whether the message in hand came to its service in an earlier step, for another handler.
        self._is_together = False
        #: Deadlines that were up, each with what armed it, as far as they are not counted yet.
        self._late: list[tuple[str, str]] = []
        super().__init__(*args, **given)

    def _go_on(self) -> bool:
        try:
            for number, one in enumerate(self._trace):
                self._step = one
                _ROLES[one.do](self, one)
                self._none_unasked(self._trace[number + 1 :])
                self.came = number + 1
        except AstrayError as error:
            self.astray = str(error)
        else:
            self._settle()
        return False

    @property
    def ends(self) -> Collection[str]:
        """The words for the ends that the flow has come to."""
        return self.customers.started[self.flow or ""].ends.values()

    # The steps of a trace.

    def _start(self, one: Happening) -> None:
        self._rest()
        while self.flow is None:
            if self.loop.time() > CALM_S or not self.loop.advance():
                raise AstrayError(f"the story sends no {_short(one.type)}")
            self._rest()

    def _deliver(self, one: Happening) -> None:
        message = self._hand(one)
        self._rest()
        self._compare(one, message.message_id or "")

    def _time_up(self, one: Happening) -> None:
        service, _, handler = one.to.partition(".")
        database = self._part(service).database
        fired = [(of, cause) for of, cause in self._late if of == one.to]
        if not fired:
            rows = database.driver.execute(_ARMED, (handler, self.flow)).fetchall()
            found = self._about(one.about, rows, lambda row: row[1])
            if found is None:
                raise AstrayError(f"no deadline of {one.to} is armed")
            cause, _, at = found
            wait_s = at - self.clock.now()
            if wait_s > _LONGEST_S:
                days = f"{wait_s / 86400:.0f} days"
                raise AstrayError(f"the time of {one.to} is up in {days}; {_TOO_LONG}")
            while any(row[0] == cause for row in rows) and self.clock.now() < at + SETTLES_S:
                self.loop.advance()
                self._moves()
                rows = database.driver.execute(_ARMED, (handler, self.flow)).fetchall()
            self._rest()
            fired = [(one.to, cause)]
        self._late = [each for each in self._late if each != fired[0]]
        self._compare(one, fired[0][1])

    def _compare(self, one: Happening, cause: str) -> None:
        """Hold what a handler has said against what the trace says."""
        said = Counter(self._answer(one, cause))
        how = "" if one.do == "lost" else self._how(one, cause)
        expected = one.note if one.note == _CANCELLED else ""
        if (said, how) != (Counter(one.outcome), expected):
            real, wanted = _told(said.elements(), how), _told(one.outcome, expected)
            apart = f"; {_TOGETHER}" if one.do == "deliver" and self._is_together else ""
            raise AstrayError(f"{one.to} answered {real}, not {wanted}{apart}")

    def _answer(self, one: Happening, cause: str) -> Iterator[str]:
        service, _, handler = one.to.partition(".")
        known = self._part(service).plan.service.handlers
        # The conductors of a service take a message together.
        conducts = [each for each in known.values() if each.conductor is not None]
        takers = conducts if one.role == "conduct" else [known[handler]]
        sources = [each.source for each in takers]
        for message in self._said:
            if _header(message, "causationid") == cause and _header(message, "source") in sources:
                yield message.wire_type or ""

    def _how(self, one: Happening, cause: str) -> str:
        """Why a handler did not do its part, if it did not."""
        service, _, handler = one.to.partition(".")
        run = self._part(service).database.driver.execute
        if letter := run(_DEAD, (handler, cause, self.flow)).fetchone():
            return str(letter[0])
        return _CANCELLED if run(_STATUS, (cause, handler)).fetchone() == ("cancelled",) else ""

    def _none_unasked(self, later: Sequence[Happening]) -> None:
        """Notice a deadline that was up though the trace does not say so."""
        wanted = {one.to for one in later if one.do == "deadline"}
        for handler, _ in self._late:
            if handler not in wanted:
                raise AstrayError(f"the time of {handler} is up before that")

    # Which message a step is about.

    def _hand(self, one: Happening) -> Message:
        """Hand a message to a service, unless it was when another of its handlers got it."""
        service = one.to.partition(".")[0]
        receiver = ("" if one.role == "conduct" else one.to, one.role)
        handed = [
            (message, receivers)
            for to, message, receivers in self._handed
            if to == service and message.wire_type == one.type and receiver not in receivers
        ]
        known = self._about(one.about, handed, lambda each: _header(each[0], "subject"))
        self._is_together = known is not None
        if known is None:
            message, slot = self._waiting(one), self.slot(service)
            if slot.instance is None:
                raise AstrayError(f"{service} is down, so {one.to} gets no {_short(one.type)}")
            self._hand_over(slot, message)
            known = message, self._handed[-1][2]
        known[1].add(receiver)
        return known[0]

    def _waiting(self, one: Happening) -> Message:
        service = one.to.partition(".")[0]
        waiting = [
            message
            for message in self._queue(service).waiting
            if message.correlation_id == self.flow and message.wire_type == one.type
        ]
        found = self._about(one.about, waiting, lambda message: _header(message, "subject"))
        if found is None:
            raise AstrayError(f"no {_short(one.type)} waits for {one.to}")
        return found

    def _about(
        self, number: int, found: Iterable[F], subject: Callable[[F], str | None]
    ) -> F | None:
        """The first that is about what a number of the trace stands for.

        From 1 on these are subjects of their own, side by side.
        """
        for one in found:
            about = subject(one)
            if number < 1:
                return one
            others = [each for other, each in self._subjects.items() if other != number]
            if self._subjects.get(number, about) == about and about not in others:
                self._subjects[number] = about
                return one
        return None

    # What moves by itself: all but what the trace is about.

    def _rest(self) -> None:
        """Let calls come to their results, and everything that was said to its queues."""
        until = self.loop.time() + SETTLES_S
        self._moves()
        while self._is_busy() and self.loop.time() < until and self.loop.advance():
            self._moves()

    def _settle(self) -> None:
        """The trace is over: let everything happen that comes of it."""
        self._is_led = False
        until = self.loop.time() + SETTLES_S
        self._moves()
        while not (self._has_no_plans() and self.rabbit.is_settled):
            if self.loop.time() > until or not self.loop.advance():
                self.findings.append(f"it does not settle: {'; '.join(self._left())}")
                return
            self._moves()

    def _moves(self) -> None:
        """Let happen what can at this moment."""
        self.loop.drain()
        self.customers.look()
        while self._move():
            self.loop.drain()
            self.customers.look()

    def _move(self) -> bool:
        for step in self._possible():
            if step.kind != "deliver":
                self._take(step)
                return True
        for slot in self.slots:
            for message in self._queue(slot.part.name).waiting if slot.instance else ():
                if not (self._is_led and message.correlation_id == self.flow):
                    self._hand_over(slot, message)
                    return True
        return False

    def _take(self, step: Step) -> None:
        super()._take(step)
        message = step.message
        if step.kind != "arrive" or message is None:
            return
        if self.flow is None and message.wire_type == self._trace[0].type:
            self.flow = message.message_id
        elif message.correlation_id == self.flow:
            self._said.append(message)
            self._note_deadline(message)

    def _note_deadline(self, message: Message) -> None:
        service, _, handler = _header(message, "source").strip("/").partition("/")
        known = self._part(service).plan.service.handlers.get(handler)
        fired = f"{service}.{handler}", _header(message, "causationid")
        if known is not None and known.kind == "deadline" and fired not in self._late:
            self._late.append(fired)

    def _hand_over(self, slot: Slot, message: Message) -> None:
        """Have a queue hand over this message, whatever lies before it."""
        before: list[Connection] = []
        while self._queue(slot.part.name).next(0) is not message:
            if (held := self.rabbit.hold(slot.part.name)) is None:
                raise LookupError(f"{message.wire_type} is not in the queue of {slot.name}")
            before.append(held)
        next(one for one in slot.running.broker.steps() if one.kind == "deliver").take()
        for held in before:
            held.drop()
        if message.correlation_id == self.flow:
            self._handed.append((slot.part.name, message, set()))

    def _part(self, service: str) -> Part:
        return next(one for one in self.parts if one.name == service)

    def _queue(self, name: str) -> QuorumQueue:
        queue = self.rabbit.queues[name]
        if not isinstance(queue, QuorumQueue):
            raise TypeError(f"{name} is no quorum queue")
        return queue

    def _is_busy(self) -> bool:
        """Whether something is under way, other than messages that are held and deadlines."""
        databases = (part.database for part in self.parts if part.database.is_used)
        return not self.customers.is_quiet or any(
            one.driver.execute(_BUSY).fetchone()[0] for one in databases
        )

    # The outside world.

    def _outside(self, kind: type) -> Outside:
        return _Led(self, kind.__name__, self._answers, self._project.fails(kind))

    def is_lost(self) -> bool:
        """Whether the call that is made now is the one that is never answered."""
        lost, current = self._lost, in_hand.get()
        if (
            lost is None
            or current is None
            or (self._step.do, self._step.to) == ("deliver", lost.to)
        ):
            return False
        handler, envelope = current
        made = f"{actor.get().place.part.name}.{handler}", envelope.type, envelope.flow
        return made == (lost.to, lost.type, self.flow)


class _Led(Outside):
    """The outside world: it answers as the seed decides, unless the trace says that it does not.

    Then it hangs, or fails: a handler may do otherwise for one of them.
    """

    def __init__(
        self, play: Retracing, name: str, answers: Schedule, fails: Sequence[Failing]
    ) -> None:
        super().__init__(name, answers, 0.0, play.findings.append, play.told, fails=fails)
        self._play = play

    async def _before(self) -> int:
        if self._play.is_lost():
            self._play.told("lost", f"{self._name} does not answer")
            if self._schedule.decide("lost", self._name, _FAILS):
                raise self._failing("does not answer")
            await for_ever()
        return await super()._before()


def _header(message: Message, name: str) -> str:
    return str(message.headers.get(f"{PREFIX}{name}", ""))


def _short(wire_type: str) -> str:
    return wire_type.removesuffix(".v1")


def _told(outcome: Iterable[str], how: str) -> str:
    said = ", ".join(sorted(map(_short, outcome))) or "nothing"
    return f"{said} ({how})" if how else said


_ROLES: dict[str, Callable[[Retracing, Happening], None]] = {
    "start": Retracing._start,  # noqa: SLF001 - its own
    "deliver": Retracing._deliver,  # noqa: SLF001
    "deadline": Retracing._time_up,  # noqa: SLF001
    "lost": Retracing._deliver,  # noqa: SLF001
}
