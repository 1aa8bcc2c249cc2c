"""Runs of conductors by plain function calls: whatever comes in whatever order, one end each."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, select

from choreo import (
    Ask,
    Command,
    Conductor,
    Connection,
    Context,
    Event,
    Failure,
    Reject,
    Service,
    Tell,
    UndeclaredResultError,
)
from choreo.contract import Message, subject_of
from choreo.errors import UndecodableError
from choreo.service import Handler
from choreo.store import runs
from choreo.store.tables import metadata
from choreo.store.tables import runs as kept_runs
from contracts.customers import Customer
from contracts.payments import PaymentRefused, PaymentReturned, PaymentTaken
from contracts.providers import LegBooked, LegCancelled, LegRefused, QuoteTrip, TripQuoted
from contracts.travel import (
    BookTrip,
    ConfirmReservation,
    Leg,
    ReserveTrip,
    TripCancelled,
    TripConfirmed,
)
from services import reservations
from services.reservations import trips

FLOW = "flow"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ENGINE = create_engine("sqlite://")
metadata.create_all(ENGINE)
trips.tables.create_all(ENGINE)


@contextmanager
def database() -> Iterator[Connection]:
    """A database in which nothing stays."""
    with ENGINE.connect() as db:
        yield db
        db.rollback()


def call(
    handler: Handler[..., Any], message: Message, db: Connection, *, flow: str = FLOW
) -> tuple[Message, ...]:
    """What a handler says to a message; all of it is declared."""
    context = Context(
        flow=flow,
        message_id=f"{flow}: {message!r}",
        type=message.__address__.wire_type,
        source="/test/test",
        time=NOON,
        subject=subject_of(message),
        causation=None,
        key="key",
    )
    wants = {
        name: db if kind is Connection else context
        for name, kind in handler.signature.wants.items()
    }
    said = handler.signature.results(handler(message, **wants))
    assert {type(one) for one in said} <= set(handler.signature.publishes)
    return said


# The world around a conductor, and what must always be true of a run.

Asked = tuple[str, str]  # the step, and what its command is about


@dataclass
class Script:
    """What a test knows of a conductor: apart from it, and in few words."""

    conductor: Conductor
    start: Message
    #: What each stage sends, in order: the step and the subject.
    stages: list[list[Asked]]
    #: A good or bad answer to a command of the step, or "undone".
    answer: Callable[[str, Asked], Message]
    ends: type[Message]
    fails: type[Message]
    #: Steps with an undo that finds nothing to send.
    silent: frozenset[str] = frozenset()


@dataclass
class Watch:
    """Watches one run from outside, and says at once what should not be."""

    script: Script
    db: Connection
    sent: list[Asked] = field(default_factory=list)
    commands: dict[Asked, Message] = field(default_factory=dict)
    #: asked, told, good, bad, late; then undoing, undone.
    status: dict[Asked, str] = field(default_factory=dict)
    #: In the order of their answers.
    good: list[Asked] = field(default_factory=list)
    late: list[Asked] = field(default_factory=list)
    answers: dict[Asked, Message] = field(default_factory=dict)
    undos: list[Asked] = field(default_factory=list)
    #: The first that failed, and what it was answered.
    failed: tuple[Asked, Message | None] | None = None
    end: Message | None = None

    def __post_init__(self) -> None:
        conductor = self.script.conductor
        self.parts = {part.name: part for stage in conductor.stages for part in stage}
        self.service = conductor.service

    @property
    def all_asked(self) -> list[Asked]:
        return [
            one for stage in self.script.stages for one in stage if self.parts[one[0]].waits
        ]  # what there may be an answer to, sent or not

    def begin(self) -> None:
        handler = self.service.handlers[f"begin_{self.script.conductor.name}"]
        self._goes_on(call(handler, self.script.start, self.db))

    def awaited(self) -> list[tuple[str, Asked]]:
        """What the run waits for; one of each kind of thing that may come."""
        found: list[tuple[str, Asked]] = []
        for one, status in self.status.items():
            if status == "asked":
                found += [("good", one), ("late", one)]
                found += [("bad", one)] if self.parts[one[0]].bad else []
            elif status == "undoing":
                found.append(("undone", one))
        return found

    def happens(self, what: str, one: Asked) -> None:
        """An answer comes, or time is up: for what is awaited, or for whatever else."""
        awaited = (what, one) in self.awaited()
        if what == "late":
            deadline = self.service.handlers[f"{one[0]}_late"]
            said = call(deadline, self.commands[one], self.db)
            message = None
        else:
            message = self.script.answer(what, one)
            said = self._deliver(message)
        if not awaited:
            assert said == ()
            return
        self._settle(what, one, message)
        if "asked" in self.status.values():
            assert said == ()
        elif self.failed is None:
            self._goes_on(said)
        else:
            self._takes_back(said)

    def _deliver(self, message: Message) -> tuple[Message, ...]:
        """As the runtime does it: to each handler that takes it, one after the other."""
        routes = self.service.routes()[type(message)]
        handlers = [one.handler for one in routes if one.role == "step" and one.handler.conductor]
        assert handlers
        return tuple(said for one in handlers for said in call(one, message, self.db))

    def _settle(self, what: str, one: Asked, message: Message | None) -> None:
        self.status[one] = what
        if what in ("bad", "late") and self.failed is None:
            self.failed = (one, message)
        if what == "good":
            self.good.append(one)
            assert message is not None
            self.answers[one] = message
        if what == "late":
            self.late.append(one)

    def _goes_on(self, said: Sequence[Message]) -> None:
        """All of the stages so far is done: the next ones come, up to one that waits."""
        expected: list[Asked] = []
        behind = len(self.sent)
        ends = True
        for stage in self.script.stages:
            if behind > 0 or (not stage and not expected):
                behind -= len(stage)
                continue
            expected += stage
            if any(self.parts[step].waits for step, _ in stage):
                ends = False
                break
        for one, message in zip(expected, said, strict=False):
            step, subject = one
            part = self.parts[step]
            assert type(message) in part.make.publishes
            assert subject_of(message) == subject
            assert one not in self.commands
            self.commands[one] = message
            self.status[one] = "asked" if part.waits else "told"
            self.sent.append(one)
        assert len(said) == len(expected) + ends
        if ends:
            self._ended(said[-1], self.script.ends)

    def _takes_back(self, said: Sequence[Message]) -> None:
        """What is not known to be done first, then what is; newest first, and one at a time."""
        for number, message in enumerate(said):
            left = [one for one in self._to_undo() if one not in self.undos]
            if not left:
                self._ended(message, self.script.fails)
                assert number == len(said) - 1
                return
            one = left[0]
            part = self.parts[one[0]]
            assert part.undo is not None
            assert type(message) in part.undo.publishes
            assert subject_of(message) == one[1]
            self.undos.append(one)
            waits = part.undone and self.status[one] == "good"
            self.status[one] = "undoing" if waits else "undone"
            if waits:
                assert number == len(said) - 1
                return
        assert said, "nothing is awaited, and nothing goes on"
        assert self.status[self.undos[-1]] == "undoing", "it waits for nothing"

    def _to_undo(self) -> list[Asked]:
        every = [*reversed(self.late), *reversed(self.good)]
        return [
            one
            for one in every
            if self.parts[one[0]].undo is not None and one[0] not in self.script.silent
        ]

    def _ended(self, message: Message, kind: type[Message]) -> None:
        assert self.end is None
        assert type(message) is kind
        assert subject_of(message) in (subject_of(self.script.start), None)
        self.end = message

    def ended(self) -> None:
        """Look at the whole run once nothing is awaited any more."""
        assert self.awaited() == []
        assert self.end is not None
        every = {one for stage in self.script.stages for one in stage}
        if self.failed is None:
            assert type(self.end) is self.script.ends
            assert set(self.sent) == every
            assert self.undos == []
        else:
            assert type(self.end) is self.script.fails
            assert self.undos == self._to_undo()
            assert set(self.sent) <= every


def play(data: st.DataObject, watches: Sequence[Watch]) -> None:
    """Let anything happen to several runs at once, until each has ended; and a little longer."""
    for watch in watches:
        watch.begin()
    for _ in range(data.draw(st.integers(0, 12), label="noise")):
        watch = data.draw(st.sampled_from(watches))
        anything(data, watch)
    while waiting := [(watch, *one) for watch in watches for one in watch.awaited()]:
        watch, what, one = data.draw(st.sampled_from(waiting))
        watch.happens(what, one)
        if data.draw(st.booleans(), label="noise"):
            anything(data, data.draw(st.sampled_from(watches)))
    for watch in watches:
        anything(data, watch)
        watch.ended()
        handler = watch.service.handlers[f"begin_{watch.script.conductor.name}"]
        with pytest.raises(Reject, match=r"conducts \w+ for \S+ already \(flow flow\)"):
            call(handler, watch.script.start, watch.db)


def anything(data: st.DataObject, watch: Watch) -> None:
    """An answer that may be awaited, doubled, contrary, of a stranger or of another flow."""
    known = watch.all_asked
    if not known:
        return
    one = data.draw(st.sampled_from(known))
    part = watch.parts[one[0]]
    kinds = ["good"]
    kinds += ["bad"] if part.bad else []
    kinds += ["undone"] if part.undone else []
    kinds += ["late"] if one in watch.commands else []
    what = data.draw(st.sampled_from(kinds))
    if what != "late":
        stranger = (one[0], f"{one[1]}.stranger")
        assert watch._deliver(watch.script.answer(what, stranger)) == ()
        for route in watch.service.routes()[type(answer := watch.script.answer(what, one))]:
            if route.handler.conductor:
                assert call(route.handler, answer, watch.db, flow="another") == ()
    watch.happens(what, one)


# Any conductor.


class Go(Command, topic="conducting.go", subject="job"):
    job: str


class Ended(Event, topic="conducting.ended", subject="job"):
    job: str
    heard: tuple[int, ...]


class Failed(Event, topic="conducting.failed", subject="job"):
    job: str
    why: str


class Do(Command):
    item: str
    #: The good answers that were known when it was sent.
    heard: tuple[int, ...] = ()


class Undo(Command):
    item: str
    heard: tuple[int, ...]
    why: str


class Said(Event):
    item: str
    #: Every answer has another.
    stamp: int = 0


STEPS = 6


def _pool(base: type[Message], name: str) -> list[Any]:
    return [
        types.new_class(
            f"{name}{n}", (base,), {"topic": f"conducting.{name}{n}", "subject": "item"}
        )
        for n in range(STEPS)
    ]


DOES, TOLDS = _pool(Do, "do"), _pool(Said, "told")
GOODS, BADS = _pool(Said, "good"), _pool(Said, "bad")
UNDOES, UNDONES = _pool(Undo, "undo"), _pool(Said, "undone")


@dataclass(frozen=True)
class Sketch:
    """One step of a conductor that is made up."""

    tells: bool
    form: Literal["one", "maybe", "several"]
    #: How many messages it sends: of "maybe" 0 or 1.
    count: int
    bad: bool
    #: A silent one might send something, and might be answered; it returns nothing.
    undo: Literal["none", "sent", "awaited", "silent"]


@st.composite
def sketches(draw: st.DrawFn) -> Sketch:
    form = draw(st.sampled_from(("one", "one", "maybe", "several")))
    most = {"one": (1, 1), "maybe": (0, 1), "several": (0, 3)}[form]
    return Sketch(
        tells=draw(st.sampled_from((False, False, False, True))),
        form=cast("Any", form),
        count=draw(st.integers(*most)),
        bad=draw(st.booleans()),
        undo=draw(st.sampled_from(("none", "sent", "awaited", "awaited", "silent"))),
    )


@st.composite
def tables(draw: st.DrawFn) -> list[list[Sketch]]:
    every: list[Sketch] = draw(st.lists(sketches(), min_size=1, max_size=STEPS))
    found: list[list[Sketch]] = [[]]
    for one in every:
        begins: bool = draw(st.booleans())
        if found[-1] and begins:
            found.append([])
        found[-1].append(one)
    return found


def function(
    name: str, fn: Callable[..., Any], returned: Any, **parameters: Any
) -> Callable[..., Any]:
    """A function of this name with these annotations, as if somebody had written it."""
    fn.__name__ = name
    fn.__annotations__ = {**parameters, "return": returned}
    vars(fn)["__signature__"] = inspect.Signature(
        [inspect.Parameter(one, inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    )
    return fn


def heard(answers: dict[str, Any]) -> tuple[int, ...]:
    """The stamps of what a function got, in the order of its parameters."""
    found: list[int] = []
    for one in answers.values():
        several = one if isinstance(one, tuple) else () if one is None else (one,)
        found += [said.stamp for said in several]
    return tuple(found)


def subjects(job: str, sketch: Sketch) -> list[str]:
    """What the messages of a step are about: a single one is about the job itself."""
    return [job] if sketch.form == "one" else [f"{job}.{n}" for n in range(sketch.count)]


def wished(sketch: Sketch, kind: Any) -> Any:
    """How its messages are announced, and its answers wanted."""
    return {"one": kind, "maybe": kind | None, "several": tuple[kind, ...]}[sketch.form]


def step(number: int, sketch: Sketch, known: dict[str, Any]) -> Ask | Tell:
    def make(go: Go, **answers: Any) -> Any:
        kind = TOLDS[number] if sketch.tells else DOES[number]
        said = tuple(
            kind(item=item) if sketch.tells else kind(item=item, heard=heard(answers))
            for item in subjects(go.job, sketch)
        )
        return said if sketch.form == "several" else said[0] if said else None

    def undo(done: Do, failure: Failure, go: Go) -> Any:
        assert done.item.startswith(go.job)
        if sketch.undo == "silent":
            return None
        return UNDOES[number](item=done.item, heard=done.heard, why=failure.reason)

    kind = TOLDS[number] if sketch.tells else DOES[number]
    made = function(f"step{number}", make, wished(sketch, kind), go=Go, **known)
    if sketch.tells:
        return Tell(made)
    sends = UNDOES[number] | None if sketch.undo == "silent" else UNDOES[number]
    taken = function(f"back{number}", undo, sends, done=DOES[number], failure=Failure, go=Go)
    return Ask(
        made,
        good=GOODS[number],
        bad=BADS[number] if sketch.bad else None,
        undo=None if sketch.undo == "none" else taken,
        undone=UNDONES[number] if sketch.undo in ("awaited", "silent") else None,
        within=timedelta(seconds=1),
    )


def made_up(table: list[list[Sketch]]) -> Conductor:
    """A conductor of which each function wants all that it may."""
    number, known, steps = 0, dict[str, Any](), list[list[Ask | Tell]]()
    for stage in table:
        beside: dict[str, Any] = {}
        steps.append([])
        for sketch in stage:
            steps[-1].append(step(number, sketch, known))
            if not sketch.tells:
                beside[f"answer{number}"] = wished(sketch, GOODS[number])
            number += 1
        known = {**known, **beside}

    def end(go: Go, **answers: Any) -> Ended:
        return Ended(job=go.job, heard=heard(answers))

    def fail(go: Go, failure: Failure) -> Failed:
        return Failed(job=go.job, why=failure.reason)

    return Conductor(
        Service("player"),
        "play",
        starts=Go,
        steps=[one[0] if len(one) == 1 else one for one in steps],
        ends=function("end", end, Ended, go=Go, **known),
        fails=fail,
    )


def scripts(table: list[list[Sketch]], jobs: Iterable[str]) -> list[Script]:
    conductor, stamps = made_up(table), iter(range(1, 10_000))
    kinds = {"good": GOODS, "bad": BADS, "undone": UNDONES}

    def answer(what: str, one: Asked) -> Message:
        number = int(one[0].removeprefix("step"))
        found: Message = kinds[what][number](item=one[1], stamp=next(stamps))
        return found

    found: list[Script] = []
    for job in jobs:
        number, stages, silent = 0, list[list[Asked]](), set[str]()
        for stage in table:
            stages.append([])
            for sketch in stage:
                stages[-1] += [(f"step{number}", item) for item in subjects(job, sketch)]
                silent |= {f"step{number}"} if sketch.undo == "silent" else set()
                number += 1
        script = Script(conductor, Go(job=job), stages, answer, Ended, Failed, frozenset(silent))
        found.append(script)
    return found


def why(watch: Watch) -> str:
    """The reason that a failed run gives."""
    assert watch.failed is not None
    (step, _), answer = watch.failed
    return f"{step}: no answer in time" if answer is None else f"{step}: {type(answer).__name__}"


@settings(deadline=None, max_examples=300)
@given(tables(), st.data())
def test_any_run_of_any_conductor(table: list[list[Sketch]], data: st.DataObject) -> None:
    with database() as db:
        watches = [Watch(script, db) for script in scripts(table, ("j", "k"))]
        play(data, watches)
        for watch in watches:
            stamps = [
                cast("Said", watch.answers[one]).stamp if one in watch.answers else None
                for one in watch.all_asked
            ]
            for one, command in watch.commands.items():
                if isinstance(command, Do):
                    before = _before(watch, one)
                    assert command.heard == tuple(stamps[:before])
            if watch.failed is None:
                assert watch.end == Ended(
                    job=str(subject_of(watch.script.start)), heard=tuple(cast("Any", stamps))
                )
            else:
                assert cast("Failed", watch.end).why == why(watch)


def _before(watch: Watch, one: Asked) -> int:
    """How many answers were awaited before the stage that this stands in."""
    count = 0
    for stage in watch.script.stages:
        if one in stage:
            break
        count += sum(watch.parts[step].waits for step, _ in stage)
    return count


# The trip of the examples.

ANN = Customer(customer_id="ann", email="ann@example.org", address="1 High Street")
DAY = date(2026, 7, 1)


def trip(db: Connection, trip_id: str, legs: int) -> Script:
    """A trip that was reserved and confirmed."""
    wanted = ReserveTrip(
        trip_id=trip_id,
        customer=ANN,
        legs=tuple(
            Leg(provider="hotel", offer=f"room-{n}", start=DAY, end=DAY) for n in range(legs)
        ),
    )
    handlers = reservations.service.handlers
    assert call(handlers["reserve"], wanted, db) == (QuoteTrip(trip_id=trip_id, legs=wanted.legs),)
    call(handlers["keep"], TripQuoted(trip_id=trip_id, prices=(100,) * legs), db)
    [start] = call(handlers["confirm"], ConfirmReservation(trip_id=trip_id, card="4242"), db)
    assert isinstance(start, BookTrip)

    def answer(what: str, one: Asked) -> Message:
        step, subject = one
        number = subject.rpartition(".")[2]
        leg: dict[str, Any] = {"leg_id": subject, "trip_id": trip_id, "provider": "hotel"}
        match step, what:
            case "book", "good":
                return LegBooked(**leg, offer=number, booking_id=f"b-{number}", price=100)
            case "book", "bad":
                return LegRefused(**leg, reason=f"no room {number}")
            case "book", _:
                return LegCancelled(**leg, booking_id=f"b-{number}")
            case _, "good":
                return PaymentTaken(reference=subject, payment_id="p-1", amount=100 * legs)
            case _, "bad":
                return PaymentRefused(reference=subject, reason="no money")
            case _:
                return PaymentReturned(reference=subject, payment_id="p-1", amount=100 * legs)

    stages = [[("book", f"{trip_id}.{n}") for n in range(1, legs + 1)], [("pay", trip_id)]]
    conductor = reservations.conductor
    return Script(conductor, start, stages, answer, TripConfirmed, TripCancelled)


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 4), st.data())
def test_any_run_of_a_trip(legs: int, data: st.DataObject) -> None:
    with database() as db:
        watches = [Watch(trip(db, trip_id, legs), db) for trip_id in ("j", "k")]
        play(data, watches)
        for watch, trip_id in zip(watches, ("j", "k"), strict=True):
            assert trips.state(db, trip_id) == ("cancelled" if watch.failed else "booked")
            if isinstance(watch.end, TripConfirmed):
                assert [one.leg_id for one in watch.end.bookings] == [
                    f"{trip_id}.{n}" for n in range(1, legs + 1)
                ]
                assert watch.end.amount == 100 * legs
            else:
                assert watch.failed is not None
                (step, subject), answer = watch.failed
                said = answer and {
                    "book": f"no room {subject.rpartition('.')[2]}", "pay": "no money",
                }[step]  # fmt: skip
                assert watch.end == TripCancelled(
                    trip_id=trip_id, customer=ANN, reason=said or f"{step}: no answer in time"
                )


# What a person is told when a run cannot go on.

ONE = Sketch(tells=False, form="one", count=1, bad=True, undo="awaited")
SEVERAL = Sketch(tells=False, form="several", count=2, bad=True, undo="awaited")


def test_a_step_that_is_gone_cannot_be_undone() -> None:
    with database() as db:
        [script] = scripts([[ONE], [ONE]], ["j"])
        watch = Watch(script, db)
        watch.begin()
        watch.happens("good", ("step0", "j"))
        fn = script.conductor.stages[1][0].make.fn
        service = Service("player")
        vars(fn)["__signature__"] = inspect.Signature(
            [inspect.Parameter("go", inspect.Parameter.KEYWORD_ONLY)]
        )
        fn.__annotations__ = {"go": Go, "return": DOES[1]}
        Conductor(
            service,
            "play",
            starts=Go,
            steps=[Ask(fn, good=GOODS[1], bad=BADS[1], within=timedelta(seconds=1))],
            ends=_nothing,
        )
        with pytest.raises(Reject, match=r"<Conductor player.play> has no step step0 any more"):
            call(service.handlers["step1_failed"], BADS[1](item="j"), db)


def _nothing(go: Go) -> None: ...


def test_two_commands_of_a_step_about_the_same_are_refused() -> None:
    def twice(go: Go) -> tuple[Do, ...]:
        return (DOES[0](item=go.job),) * 2

    twice.__annotations__["return"] = wished(SEVERAL, DOES[0])
    service = Service("player")
    ask = Ask(twice, good=GOODS[0], within=timedelta(seconds=1))
    Conductor(service, "play", starts=Go, steps=[ask], ends=_nothing)
    with database() as db, pytest.raises(Reject, match="twice asks twice about j in flow"):
        call(service.handlers["begin_play"], Go(job="j"), db)


class Look(Command, topic="conducting.look"):
    """About nothing."""


class Looked(Event, topic="conducting.looked"):
    pass


def test_what_is_about_nothing_is_asked_once_in_a_flow() -> None:
    def look(go: Go) -> Look:
        return Look()

    service = Service("player")
    ask = Ask(look, good=Looked, within=timedelta(seconds=1))
    Conductor(service, "play", starts=Go, steps=[ask], ends=_nothing)
    begin = service.handlers["begin_play"]
    with database() as db:
        assert call(begin, Go(job="j"), db) == (Look(),)
        assert call(begin, Go(job="j"), db, flow="another") == (Look(),)
        with pytest.raises(Reject, match="look asks twice about nothing in flow flow"):
            call(begin, Go(job="k"), db)


def test_what_is_told_may_be_told_again_about_the_same() -> None:
    def tell(go: Go) -> tuple[Said, ...]:
        return TOLDS[0](item=go.job, stamp=1), TOLDS[0](item=go.job, stamp=2)

    tell.__annotations__["return"] = wished(SEVERAL, TOLDS[0])
    service = Service("player")
    for name in ("play", "play_too"):
        Conductor(service, name, starts=Go, steps=[Tell(tell), Tell(tell)], ends=_nothing)
    with database() as db:
        for handler in service.handlers.values():
            said = tell(Go(job="j"))
            assert call(handler, Go(job="j"), db) == said * 2


def do(number: int) -> Callable[..., Any]:
    def make(go: Go) -> Any:
        return DOES[number](item=go.job)

    return function(f"do{number}", make, DOES[number], go=Go)


def back(number: int) -> Callable[..., Any]:
    def undo(asked: Do) -> Any:
        return UNDOES[number](item=asked.item, heard=(), why="")

    return function(f"back{number}", undo, UNDOES[number], asked=DOES[number])


def delivered(service: Service, message: Message, db: Connection) -> list[Message]:
    """What is said to one message by every handler that takes it, one after the other."""
    routes = service.routes()[type(message)]
    return [said for one in routes for said in call(one.handler, message, db)]


def test_a_message_does_not_answer_what_it_has_just_set_off() -> None:
    service, soon = Service("player"), timedelta(seconds=1)
    asks = [
        Ask(do(number), good=GOODS[0], undo=back(number), undone=UNDONES[0], within=soon)
        for number in range(2)
    ]
    last = Ask(do(2), good=GOODS[2], bad=BADS[2], within=soon)
    Conductor(service, "play", starts=Go, steps=[*asks, last], ends=_nothing)
    good, undone = GOODS[0](item="j"), UNDONES[0](item="j")
    with database() as db:
        assert delivered(service, Go(job="j"), db) == [DOES[0](item="j")]
        assert delivered(service, good, db) == [DOES[1](item="j")]
        assert delivered(service, good.model_copy(update={"stamp": 1}), db) == [DOES[2](item="j")]
        [undo] = delivered(service, BADS[2](item="j"), db)
        assert undo == UNDOES[1](item="j", heard=(), why="")
        [undo] = delivered(service, undone, db)
        assert undo == UNDOES[0](item="j", heard=(), why="")
        assert delivered(service, undone, db) == []
        assert delivered(service, undone.model_copy(update={"stamp": 1}), db) == []
        [run] = db.execute(select(kept_runs)).all()
        assert run.status == "failed"


def test_what_a_function_does_not_announce_is_not_sent() -> None:
    def wrong(go: Go) -> Do:
        return cast("Do", BADS[0](item=go.job))

    wrong.__annotations__["return"] = DOES[0]
    service = Service("player")
    ask = Ask(wrong, good=GOODS[0], within=timedelta(seconds=1))
    Conductor(service, "play", starts=Go, steps=[ask], ends=_nothing)
    with (
        database() as db,
        pytest.raises(UndeclaredResultError, match="returned bad0; declared do0"),
    ):
        call(service.handlers["begin_play"], Go(job="j"), db)


def test_a_run_may_begin_and_end_saying_nothing() -> None:
    service = Service("player")
    maybe = Sketch(tells=False, form="maybe", count=0, bad=False, undo="none")
    Conductor(service, "play", starts=Go, steps=[step(0, maybe, {})], ends=_nothing)
    begin = service.handlers["begin_play"]
    with database() as db:
        assert call(begin, Go(job="j"), db) == ()
        with pytest.raises(Reject, match="player conducts play for j already"):
            call(begin, Go(job="j"), db)
        # Another flow knows nothing of it.
        assert call(begin, Go(job="j"), db, flow="another") == ()


@given(st.text(), st.tuples(st.integers(-(2**70), 2**70)))
def test_a_message_is_kept_as_it_is(item: str, known: tuple[int]) -> None:
    kept = DOES[0](item=item.encode("utf-8", "ignore").decode(), heard=known)
    assert runs.read(runs.written(kept)) == kept


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('["conducting.gone.v1",{}]', "a run keeps a conducting.gone.v1, which is no contract any"),
        ('["conducting.go.v1",{}]', "not a conducting.go.v1: job: Field required"),
    ],
)
def test_a_message_whose_contract_changed(text: str, why: str) -> None:
    with pytest.raises(UndecodableError, match=why):
        runs.read(text)


class Excused(Event, topic="conducting.excused", subject="job"):
    job: str
    reason: str


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "pay: no answer in time"),
        (Excused(job="j", reason="no money"), "no money"),
        (Excused(job="j", reason=""), "pay: Excused"),
        (Ended(job="j", heard=()), "pay: Ended"),
    ],
)
def test_a_failure_has_a_reason(answer: Message | None, reason: str) -> None:
    assert Failure("pay", answer).reason == reason
