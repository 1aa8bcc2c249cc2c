"""A conductor: the steps of a process as a table, from which ordinary handlers are derived."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from choreo import conducting
from choreo.conducting import Builder, Part
from choreo.contract import NAME, Command, Message
from choreo.errors import DefinitionError
from choreo.service import Deadline, Handler, Messages, Service, Step, must_reach
from choreo.signature import (
    Context,
    MessageType,
    Returns,
    Several,
    Signature,
    message_types,
    place,
)
from choreo.store.runs import TaskStatus

_FINAL = "its conductor takes back what it asked for"


@dataclass(frozen=True, slots=True)
class Ask:
    """A step of a conductor: a command, and the answers that it waits for.

    `make` builds the command, or a tuple of several that are under way side by side, each with
    a subject of its own; with None the step is left out. An answer belongs to the command of its
    flow whose subject it shares. What a late or a doubled answer says is not acted on.

    `good` goes on; `bad`, or no answer `within` the time, has everything undone that was done.
    `undo` builds, from the command, the command that takes it back; where `undone` names the
    answer to that, it is waited for before what was done earlier is undone. A command that was
    not answered in time is taken back, too, without waiting: the service that takes it knows
    whether there is anything to undo, now or later. `final` says why nothing takes it back.
    """

    make: Callable[..., Any]
    _: KW_ONLY
    good: Messages
    bad: Messages | None = None
    within: timedelta
    undo: Callable[..., Any] | None = None
    undone: Messages | None = None
    final: str | None = None


@dataclass(frozen=True, slots=True)
class Tell:
    """A step of a conductor that waits for nothing: an event that others react to, or a command.

    Whoever reacts takes part by choreography, and undoes its part when it hears how the run ends.
    """

    make: Callable[..., Any]


React = Callable[[Any, Connection, Context], Sequence[Message]]
StepOrSteps = Ask | Tell | Sequence[Ask | Tell]


class Conductor:
    """Conducts a process inside one service: it decides, and others do.

        trip = Conductor(
            service, "trip", starts=BookTrip,
            steps=[
                Ask(book, good=LegBooked, bad=LegRefused, undo=cancel, undone=LegCancelled,
                    within=timedelta(seconds=60)),
                Ask(pay, good=PaymentTaken, bad=PaymentRefused, undo=refund,
                    undone=PaymentReturned, within=timedelta(seconds=60)),
            ],
            ends=confirm, fails=give_up,
        )  # fmt: skip

    The steps run in order; those in a list of their own run side by side. The functions are plain
    ones, and say by their annotations what they want: the message that started the run, the good
    answers of earlier steps (`A`; `A | None` of a step that may be left out; `tuple[A, ...]` of
    several commands, in their order), the `Failure` (`fails` and undos), the command (undos), a
    `Connection` of the service's database, a `Context`. What they return is published.

    `ends` says that all is done, `fails` that all is undone, or asked to be; both may say nothing
    (None). What undoes a step of a run belongs to its conductor: if others undo it as well, the
    answer to the conductor's own undo may never come.

    The run is kept in the service's database. For each step there are handlers like any other:
    `begin_trip`, `book_done`, `book_failed`, `book_late`, `cancel_done`. So whatever holds for
    handlers holds for a conductor: single effects, retries, dead letters, durable deadlines,
    and a map that shows them. One run of it about one subject in one flow.

    Raises DefinitionError where the table does not fit together.
    """

    def __init__(
        self,
        service: Service,
        name: str,
        *,
        starts: type[Message],
        steps: Sequence[StepOrSteps],
        ends: Callable[..., Any],
        fails: Callable[..., Any] | None = None,
    ) -> None:
        """`name` is that of the process; it is unique among the service's conductors."""
        self.service = service
        self.name = name
        where = f"{place(ends)}: conductor {name}"
        if not NAME.fullmatch(name):
            raise DefinitionError(f"{where}: its name is in lower case, like a module's name")
        kinds = message_types(starts, where)
        if len(kinds) != 1:
            raise DefinitionError(f"{where}: one kind of message starts it")
        [self.starts] = kinds
        if name in service.conductors:
            raise DefinitionError(f"{where}: {service.name} has a conductor of this name already")
        if not all([steps, *([one] if isinstance(one, Ask | Tell) else one for one in steps)]):
            raise DefinitionError(f"{where}: it has no steps, or a list without any")
        self.stages: list[list[Part]] = []
        for stage in steps:
            together = [stage] if isinstance(stage, Ask | Tell) else stage
            self.stages.append([self._part(one, where) for one in together])
        answers = tuple(self._parts())
        self.ends = Builder.of(ends, self.starts, answers)
        self.fails = None if fails is None else Builder.of(fails, self.starts, failing=True)
        self._declare()
        service.conductors[name] = self

    def __repr__(self) -> str:
        return f"<Conductor {self.service.name}.{self.name}>"

    def _parts(self) -> Iterator[Part]:
        return (part for stage in self.stages for part in stage)

    def _part(self, step: Ask | Tell, where: str) -> Part:
        """Understand a step of the table."""
        earlier = tuple(self._parts())
        make = Builder.of(step.make, self.starts, earlier)
        if not make.publishes:
            raise DefinitionError(f"{make.where}: a step of a conductor returns what it sends")
        if isinstance(step, Tell):
            return Part(make)
        command = self._command(make)
        if step.within.total_seconds() <= 0:
            raise DefinitionError(f"{make.where}: 'within' must be longer than nothing")
        if step.undo is not None and step.final is not None:
            raise DefinitionError(f"{make.where}: it has an undo, and is final")
        undo = None
        if step.undo is not None:
            undo = Builder.of(step.undo, self.starts, command=command, failing=True)
        good, bad, undone = (
            _answers(command, kinds, make.where) for kinds in (step.good, step.bad, step.undone)
        )
        if both := set(good).intersection(bad):
            raise DefinitionError(f"{make.where}: {both.pop().__name__} is good and bad")
        if undone and not (undo and undo.publishes):
            raise DefinitionError(f"{make.where}: it has an answer to its undo, and no undo")
        return Part(make, good, bad, step.within, undo, undone)

    def _command(self, make: Builder) -> MessageType:
        """The one kind of command that a step asks with."""
        if len(make.publishes) != 1 or not issubclass(make.publishes[0], Command):
            raise DefinitionError(f"{make.where}: it must return one kind of command")
        return make.publishes[0]

    # The handlers, and what each may publish.

    def _declare(self) -> None:
        self._enter(
            f"begin_{self.name}",
            self.ends,
            (self.starts,),
            self._after(0),
            lambda message, db, context: conducting.begin(self, message, db, context),
        )
        for number, stage in enumerate(self.stages):
            for part in stage:
                if part.waits:
                    self._declare_part(number, part)

    def _declare_part(self, number: int, part: Part) -> None:
        several = part.make.several or sum(one.waits for one in self.stages[number]) > 1
        name, undos = part.name, self._undos(number, beside=part, several=several)
        own_undo = part.undo.publishes if part.undo else ()
        goes_on = (*self._after(number + 1), *(undos if several else ()))
        done = self._on(part, TaskStatus.DONE)
        self._enter(f"{name}_done", part.make, part.good, goes_on, done)
        if part.bad:
            refused = self._on(part, TaskStatus.REFUSED)
            self._enter(f"{name}_failed", part.make, part.bad, undos, refused)
        command = part.make.publishes[0]
        for other in self.service.deadlines:
            if command in other.signature.consumes:
                raise DefinitionError(
                    f"{part.make.where}: {other.name} waits for an answer to {command.__name__} "
                    "already; one service asks for one thing in one step"
                )
        late = self._on(part, TaskStatus.LATE)
        self._enter(
            f"{name}_late",
            part.make,
            part.make.publishes,
            (*own_undo, *undos),
            late,
            within=part.within,
            until=(*part.good, *part.bad),
        )
        if part.undo is not None and part.undone:
            undone = self._on(part, TaskStatus.UNDONE)
            self._enter(f"{part.undo.name}_done", part.undo, part.undone, undos, undone)

    def _on(self, part: Part, status: TaskStatus) -> React:
        return lambda message, db, context: conducting.answered(
            self, part, status, message, db=db, context=context
        )

    def _after(self, number: int) -> Iterator[MessageType]:
        """What may be sent when all before this stage is done."""
        for stage in self.stages[number:]:
            for part in stage:
                yield from part.make.publishes
            if any(part.waits and not part.make.may_be_silent for part in stage):
                return
        yield from self.ends.publishes

    def _undos(self, number: int, *, beside: Part, several: bool) -> tuple[MessageType, ...]:
        """What may be sent when something of this stage failed, or was undone."""
        own = self.stages[number]
        found = [part.undo for part in own if part.undo and (several or part is not beside)]
        for stage in reversed(self.stages[:number]):
            found += [part.undo for part in stage if part.undo]
            if any(_is_awaited(part) and not part.make.may_be_silent for part in stage):
                break
        else:
            found += [self.fails] if self.fails else []
        return tuple(kind for one in found for kind in one.publishes)

    def _enter(
        self,
        name: str,
        of: Builder,
        consumes: tuple[MessageType, ...],
        publishes: Iterable[MessageType],
        react: React,
        *,
        within: timedelta | None = None,
        until: tuple[MessageType, ...] = (),
    ) -> None:
        """Add a handler to the service; it stands where the function stands that it is made of."""

        def fn(message: Message, db: Connection, context: Context) -> tuple[Message, ...] | None:
            return tuple(react(message, db, context)) or None

        fn.__name__ = name
        fn.__doc__ = of.fn.__doc__
        vars(fn)["__wrapped__"] = of.fn  # that is where it stands
        kinds = tuple(dict.fromkeys(publishes))
        signature = Signature(
            consumes=consumes,
            returns=Returns((), (Several((kinds,), repeats=True),) if kinds else (), none=True),
            wants={"db": Connection, "context": Context},
        )
        handler: Handler[..., Any]
        if within is None:
            handler = Step(self.service, fn, signature, "step")
            handler.final = _FINAL
        else:
            handler = Deadline(self.service, fn, signature, "deadline")
            handler.within, handler.until = within, until
            must_reach(until, consumes, f"{of.where}: answers")
        handler.conductor = self.name
        self.service.enter(handler)


def _answers(command: MessageType, kinds: Messages | None, where: str) -> tuple[MessageType, ...]:
    """The answers to a command; raises DefinitionError if they could not be told to be its."""
    found = () if kinds is None else message_types(kinds, where)
    about = command.__address__.subject
    for answer in found:
        other = answer.__address__.subject
        if other != about:
            raise DefinitionError(
                f"{where}: {command.__name__} is about {about!r} and its answer {answer.__name__} "
                f"about {other!r}; an answer is about what its command is about"
            )
    return found


def _is_awaited(part: Part) -> bool:
    """Whether a run that undoes the step surely waits for an answer."""
    return part.undo is not None and bool(part.undone) and not part.undo.may_be_silent
