"""Runs of conductors by plain function calls: whatever comes in whatever order, one end each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sketches import (
    BADS,
    DOES,
    GOODS,
    TOLDS,
    UNDOES,
    UNDONES,
    Do,
    Ended,
    Failed,
    Go,
    Said,
    Sketch,
    function,
    scripts,
    step,
    tables,
    wished,
)
from sqlalchemy import select
from watching import Asked, Script, Watch, call, database, play

from choreo import (
    Ask,
    Command,
    Conductor,
    Connection,
    Event,
    Failure,
    Reject,
    Service,
    Tell,
    UndeclaredResultError,
)
from choreo.contract import Message, subject_of
from choreo.errors import UndecodableError
from choreo.store import runs
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

# Any conductor.


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
