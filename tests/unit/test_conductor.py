"""A conductor's table: what is derived from it, and what is refused while it is imported."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from choreo import Ask, Command, Conductor, DefinitionError, Event, Failure, Service, Tell
from choreo.service import Deadline, Handler
from services import order_process, providers, reservations


class Begin(Command, topic="conductor.begin", subject="job"):
    job: str


class Dig(Command, topic="conductor.dig", subject="job"):
    job: str


class Dug(Event, topic="conductor.dug", subject="job"):
    job: str


class DugDeep(Event, topic="conductor.dug_deep", subject="job"):
    job: str


class Rock(Event, topic="conductor.rock", subject="job"):
    job: str


class Fill(Command, topic="conductor.fill", subject="job"):
    job: str


class Filled(Event, topic="conductor.filled", subject="job"):
    job: str


class Paint(Command, topic="conductor.paint", subject="job"):
    job: str


class Painted(Event, topic="conductor.painted", subject="job"):
    job: str


class Room(Event, topic="conductor.room", subject="room"):
    room: str


class Weather(Event, topic="conductor.weather"):
    pass


class Done(Event, topic="conductor.done", subject="job"):
    job: str


SOON = timedelta(seconds=5)


def dig(begin: Begin) -> Dig:
    """Have it dug."""
    return Dig(job=begin.job)


def dig_maybe(begin: Begin) -> Dig | None: ...


def dig_many(begin: Begin) -> tuple[Dig, ...]:
    return (Dig(job=begin.job),)


def fill(dug: Dig) -> Fill:
    """Have it filled."""
    return Fill(job=dug.job)


def paint(begin: Begin) -> Paint:
    return Paint(job=begin.job)


def finish(begin: Begin) -> Done:
    """End it."""
    return Done(job=begin.job)


def conduct(*steps: Any, **given: Any) -> Conductor:
    service = given.pop("service", None) or Service("builder")
    return Conductor(service, "house", **{"starts": Begin, "steps": steps, "ends": finish, **given})


def dug_by(make: Callable[..., Any]) -> Ask:
    return Ask(make, good=Dug, within=SOON)


DIG = dug_by(dig)


# What is refused.


def wants_unknown(begin: Begin, weather: Weather) -> Paint: ...  # type: ignore[empty-body]
def wants_no_message(begin: Begin, count: int) -> Paint: ...  # type: ignore[empty-body]
def wants_the_hole(begin: Begin, dug: Dug) -> Paint: ...  # type: ignore[empty-body]
def wants_any_hole(begin: Begin, dug: Dug | None) -> Paint: ...  # type: ignore[empty-body]
def wants_holes(begin: Begin, dug: tuple[Dug, ...]) -> Paint: ...  # type: ignore[empty-body]
def wants_a_pair(begin: Begin, dug: tuple[Dug, Dug]) -> Paint: ...  # type: ignore[empty-body]
def wants_a_failure(begin: Begin, failure: Failure) -> Paint: ...  # type: ignore[empty-body]
def wants_the_command(begin: Begin, dig: Dig) -> Paint: ...  # type: ignore[empty-body]
def wants_whatever(begin, job: Begin) -> Paint: ...  # type: ignore[no-untyped-def,empty-body]
def says_nothing_of_it(begin: Begin): ...  # type: ignore[no-untyped-def]
def returns_nothing(begin: Begin) -> None: ...
def returns_an_event(begin: Begin) -> Done: ...  # type: ignore[empty-body]
def returns_two_kinds(begin: Begin) -> Paint | Dig: ...  # type: ignore[empty-body]
def returns_a_pair(begin: Begin) -> tuple[Paint, Dig]: ...  # type: ignore[empty-body]
def ends_with_a_failure(begin: Begin, failure: Failure) -> Done: ...  # type: ignore[empty-body]
def fails_with_an_answer(begin: Begin, dug: Dug) -> Done: ...  # type: ignore[empty-body]
def undo_wants_an_answer(dig: Dig, dug: Dug) -> Fill: ...  # type: ignore[empty-body]
def undo_of_another(paint: Paint) -> Fill: ...  # type: ignore[empty-body]
def undo_that_sends_nothing(dig: Dig) -> None: ...
async def calls_outside(begin: Begin) -> Paint: ...  # type: ignore[empty-body]
def takes_no_names(begin: Begin, /) -> Paint: ...  # type: ignore[empty-body]


@pytest.mark.parametrize("name", ["", "a & b", "House", "9", "in-house", "\u00fcber"])
def test_a_name_is_in_lower_case(name: str) -> None:
    with pytest.raises(DefinitionError, match=f"conductor {name}: its name is in lower case"):
        Conductor(Service("builder"), name, starts=Begin, steps=[DIG], ends=finish)


def painted_by(make: Callable[..., Any]) -> Ask:
    return Ask(make, good=Painted, within=SOON)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (wants_unknown, "parameter 'weather': no step before it is answered with .*Weather"),
        (wants_no_message, "parameter 'count': <class 'int'> is no event or command"),
        (wants_a_pair, r"parameter 'dug': tuple\[.*Dug, .*Dug\] is no event or command"),
        (wants_a_failure, "parameter 'failure': .*Failure'> is no event or command"),
        (wants_the_command, "parameter 'dig': no step before it is answered with .*Dig"),
        (wants_whatever, "parameter 'begin' has no annotation"),
        (says_nothing_of_it, "say what it publishes, or '-> None'"),
        (returns_nothing, "a step of a conductor returns what it sends"),
        (returns_an_event, "it must return one kind of command"),
        (returns_two_kinds, "it must return one kind of command"),
        (returns_a_pair, "it must return one kind of command"),
        (calls_outside, "a conductor decides and stores; make it 'def'"),
        (takes_no_names, "its parameters are given by name; take the '/' away"),
    ],
)
def test_a_step_that_cannot_be(make: Callable[..., Any], why: str) -> None:
    with pytest.raises(DefinitionError, match=rf"test_conductor.py:\d+: {make.__name__}: {why}"):
        conduct(DIG, painted_by(make))


@pytest.mark.parametrize(
    ("first", "make", "needs"),
    [
        (dig, wants_any_hole, "Dug"),
        (dig_maybe, wants_the_hole, r"Dug \| None"),
        (dig_many, wants_the_hole, r"tuple\[Dug, ...\]"),
        (dig_many, wants_any_hole, r"tuple\[Dug, ...\]"),
    ],
)
def test_an_answer_is_wanted_as_it_comes(
    first: Callable[..., Any], make: Callable[..., Any], needs: str
) -> None:
    with pytest.raises(DefinitionError, match=f"{make.__name__}: parameter 'dug': make it {needs}"):
        conduct(dug_by(first), painted_by(make))


@pytest.mark.parametrize(
    ("first", "make"),
    [(dig, wants_the_hole), (dig_maybe, wants_any_hole), (dig_many, wants_holes)],
)
def test_an_answer_that_is_wanted_as_it_comes(
    first: Callable[..., Any], make: Callable[..., Any]
) -> None:
    conduct(dug_by(first), painted_by(make))


def test_an_answer_of_this_step_of_one_beside_it_or_of_a_later_one_is_not_there_yet() -> None:
    why = "wants_the_hole: parameter 'dug': no step before it is answered with .*Dug"
    with pytest.raises(DefinitionError, match=why):
        conduct(dug_by(wants_the_hole))
    with pytest.raises(DefinitionError, match=why):
        conduct([DIG, painted_by(wants_the_hole)])
    with pytest.raises(DefinitionError, match=why):
        conduct(painted_by(wants_the_hole), DIG)


def test_every_good_answer_of_a_step_is_wanted() -> None:
    either = Ask(dig, good=Dug | DugDeep, within=SOON)
    with pytest.raises(DefinitionError, match="make it Dug, also of DugDeep"):
        conduct(either, painted_by(wants_the_hole))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"steps": ()}, "test_conductor.py:.*: conductor house: it has no steps"),
        ({"steps": [DIG, []]}, "conductor house: it has no steps, or a list without any"),
        ({"starts": Begin | Paint}, "conductor house: one kind of message starts it"),
        ({"starts": int}, "conductor house: <class 'int'> is no event or command"),
        ({"starts": Event}, "conductor house: Event has no topic"),
        ({"ends": "finish"}, "'finish' is no function"),
        ({"ends": ends_with_a_failure}, "parameter 'failure': .*Failure'> is no event or command"),
        ({"ends": wants_any_hole}, "wants_any_hole: parameter 'dug': make it Dug"),
        ({"fails": fails_with_an_answer}, "parameter 'dug': no step before it is answered with"),
    ],
)
def test_a_conductor_that_cannot_be(given: dict[str, Any], why: str) -> None:
    with pytest.raises(DefinitionError, match=why):
        conduct(**{"steps": [DIG], **given})


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"undo": fill, "final": "it stays"}, "it has an undo, and is final"),
        ({"undone": Filled}, "it has an answer to its undo, and no undo"),
        (
            {"undo": undo_that_sends_nothing, "undone": Filled},
            "it has an answer to its undo, and no undo",
        ),
        ({"good": Dug | Rock, "bad": Rock}, "Rock is good and bad"),
        ({"within": timedelta(0)}, "'within' must be longer than nothing"),
        ({"within": -SOON}, "'within' must be longer than nothing"),
        ({"good": int}, "<class 'int'> is no event or command"),
        ({"good": Room}, "Dig is about 'job' and its answer Room about 'room'"),
        ({"good": Weather}, "Dig is about 'job' and its answer Weather about None"),
        ({"bad": Rock | Room}, "its answer Room about 'room'; an answer is about what"),
        ({"undo": fill, "undone": Room}, "Dig is about 'job' and its answer Room about 'room'"),
        ({"undo": undo_wants_an_answer}, "parameter 'dug': no step before it is answered with"),
        ({"undo": undo_of_another}, "parameter 'paint': no step before it is answered with"),
    ],
)
def test_an_ask_that_cannot_be(given: dict[str, Any], why: str) -> None:
    with pytest.raises(DefinitionError, match=why):
        conduct(Ask(dig, **{"good": Dug, "within": SOON, **given}))


def test_what_is_told_is_something() -> None:
    with pytest.raises(DefinitionError, match="returns_nothing: a step of a conductor returns"):
        conduct(Tell(returns_nothing))


def dig_too(begin: Begin) -> Dig: ...  # type: ignore[empty-body]


def test_two_conductors_of_a_service_do_not_ask_for_the_same() -> None:
    service = Service("builder")
    conduct(DIG, service=service)
    why = "dig_too: dig_late waits for an answer to Dig already; one service asks for one thing"
    with pytest.raises(DefinitionError, match=why):
        Conductor(service, "other", starts=Begin, steps=[dug_by(dig_too)], ends=finish)


@pytest.mark.parametrize("together", [True, False])
def test_two_steps_of_a_conductor_do_not_ask_for_the_same(together: bool) -> None:
    steps = [DIG, dug_by(dig_too)]
    why = "dig_too: dig_late waits for an answer to Dig already; one service asks for one thing"
    with pytest.raises(DefinitionError, match=why):
        conduct(*([steps] if together else steps))


def test_a_name_that_is_taken() -> None:
    service = Service("builder")

    @service.on(final="it is")
    def dig_done(painted: Painted) -> None: ...

    with pytest.raises(DefinitionError, match=r"builder.dig_done is already at .*test_conductor"):
        conduct(DIG, service=service)
    other = Service("other")
    conduct(DIG, service=other)
    with pytest.raises(DefinitionError, match="house: other has a conductor of this name already"):
        conduct(painted_by(paint), service=other)
    assert list(other.conductors) == ["house"]


# What is derived.

Row = tuple[str, str, str, str]


def derived(service: Service) -> dict[str, Row]:
    """Of each handler: its kind, what it takes, what it may publish, what ends it."""
    return {
        one.name: (
            one.kind,
            _names(one.signature.consumes),
            _names(one.signature.publishes),
            _names(one.until) if isinstance(one, Deadline) else "",
        )
        for one in service.handlers.values()
        if one.conductor
    }


def _names(kinds: tuple[type[Any], ...]) -> str:
    return " ".join(kind.__name__ for kind in kinds)


def test_the_choreography_of_a_conducted_order() -> None:
    assert derived(order_process.service) == {
        "begin_order": ("step", "ProcessOrder", "OpenOrder", ""),
        "check_done": ("step", "OrderOpened", "HoldStock", ""),
        "check_failed": ("step", "OrderRejected", "", ""),
        "check_late": ("deadline", "OpenOrder", "CancelOrder", "OrderOpened OrderRejected"),
        "cancel_done": ("step", "OrderCancelled", "", ""),
        "hold_done": ("step", "StockHeld", "CapturePayment", ""),
        "hold_failed": ("step", "StockLacking", "CancelOrder", ""),
        "hold_late": (
            "deadline", "HoldStock", "ReleaseStock CancelOrder", "StockHeld StockLacking",
        ),
        "release_done": ("step", "StockReleased", "CancelOrder", ""),
        "pay_done": ("step", "PaymentTaken", "OrderPaid BookShipment", ""),
        "pay_failed": ("step", "PaymentRefused", "ReleaseStock", ""),
        "pay_late": (
            "deadline", "CapturePayment", "RefundPayment ReleaseStock",
            "PaymentTaken PaymentRefused",
        ),
        "refund_done": ("step", "PaymentReturned", "ReleaseStock", ""),
        "ship_done": ("step", "ShipmentArranged", "FulfilOrder", ""),
        "ship_failed": ("step", "ShipmentRefused", "RefundPayment", ""),
        "ship_late": (
            "deadline", "BookShipment", "RecallShipment RefundPayment",
            "ShipmentArranged ShipmentRefused",
        ),
        "recall_done": ("step", "ShipmentRecalled", "RefundPayment", ""),
    }  # fmt: skip


def test_the_choreography_of_a_conducted_trip() -> None:
    assert derived(reservations.service) == {
        "begin_trip": ("step", "BookTrip", "BookLeg CapturePayment", ""),
        "book_done": ("step", "LegBooked", "CapturePayment CancelLeg TripCancelled", ""),
        "book_failed": ("step", "LegRefused", "CancelLeg TripCancelled", ""),
        "book_late": ("deadline", "BookLeg", "CancelLeg TripCancelled", "LegBooked LegRefused"),
        "unbook_done": ("step", "LegCancelled", "CancelLeg TripCancelled", ""),
        "pay_done": ("step", "PaymentTaken", "TripConfirmed", ""),
        "pay_failed": ("step", "PaymentRefused", "CancelLeg TripCancelled", ""),
        "pay_late": (
            "deadline", "CapturePayment", "RefundPayment CancelLeg TripCancelled",
            "PaymentTaken PaymentRefused",
        ),
        "refund_done": ("step", "PaymentReturned", "CancelLeg TripCancelled", ""),
    }  # fmt: skip


def test_the_choreography_of_conducted_legs() -> None:
    assert derived(providers.service) == {
        "begin_legs": ("step", "ReservationConfirmed", "BookLeg LegsBooked", ""),
        "gather_done": ("step", "LegBooked", "LegsBooked LegsFailed", ""),
        "gather_failed": ("step", "LegRefused", "LegsFailed", ""),
        "gather_late": ("deadline", "BookLeg", "LegsFailed", "LegBooked LegRefused"),
    }


def test_a_handler_stands_where_the_function_stands_that_it_is_made_of() -> None:
    conductor = conduct(Ask(dig, good=Dug, bad=Rock, undo=fill, undone=Filled, within=SOON))
    made_of: dict[str, Callable[..., Any]] = {
        "begin_house": finish, "dig_done": dig, "dig_failed": dig, "dig_late": dig,
        "fill_done": fill,
    }  # fmt: skip
    handlers: dict[str, Handler[..., Any]] = conductor.service.handlers
    assert list(handlers) == list(made_of)
    for name, fn in made_of.items():
        handler = handlers[name]
        assert handler.place == f"{__file__}:{inspect.getsourcelines(fn)[1]}"
        assert handler.summary == inspect.getdoc(fn)
        assert handler.source == f"/builder/{name}"
        assert handler.conductor == "house"
        assert not handler.is_async
    late = handlers["dig_late"]
    assert isinstance(late, Deadline)
    assert late.within == SOON
    assert all("takes back" in str(step.final) for step in conductor.service.steps)


def test_what_needs_no_answer_has_no_handler() -> None:
    conductor = conduct(Tell(paint), DIG)
    assert derived(conductor.service) == {
        "begin_house": ("step", "Begin", "Paint Dig", ""),
        "dig_done": ("step", "Dug", "Done", ""),
        "dig_late": ("deadline", "Dig", "", "Dug"),
    }
    assert repr(conductor) == "<Conductor builder.house>"
