"""Tests what the check takes a run to be: how many messages, whose failure, which deadline."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from broken.words import (
    Done,
    Expired,
    Failed,
    Go,
    GoElsewhere,
    Packed,
    Refused,
    Told,
    Unworked,
    Work,
    Worked,
    put_together,
    unsaid,
)

from choreo import Ask, Command, Conductor, Event, Service
from choreo.check import Choreography, Rule, check
from choreo.settings import load
from contracts.orders import OrderCancelled, OrderPlaced

_flows = count()


class GoAll(Command, topic="played.go"):
    job: str


class WorkAll(Command, topic="played.work"):
    job: str


class WorkedAll(Event, topic="played.worked"):
    job: str


class DoneAll(Event, topic="played.done"):
    job: str


def _found(choreography: Choreography) -> list[tuple[Rule, str]]:
    return [(one.rule, one.what.partition(" ")[0]) for one in check(choreography).findings]


def called() -> str:
    return f"played_{next(_flows)}"


@pytest.mark.parametrize("several", [tuple[Work, Work], tuple[Work, ...]])
def test_two_messages_about_one_subject_are_two(several: Any) -> None:
    shop, helper = Service("shop"), Service("helper")

    def take(go: Go) -> Any:
        unsaid()

    take.__annotations__["return"] = several
    shop.on(final="it is only begun")(take)

    @helper.on(final="it is only said")
    def work(asked: Work) -> Worked:
        unsaid()

    @shop.on(final="it ends each")
    def end(worked: Worked) -> Done:
        unsaid()

    found = check(put_together(called(), shop, helper, ends={"done": Done})).findings
    assert Rule.TWO_ENDS in {one.rule for one in found}


def test_two_messages_without_a_subject_are_two() -> None:
    shop, helper = Service("shop"), Service("helper")

    @shop.on(final="it is only begun")
    def take(go: GoAll) -> tuple[WorkAll, WorkAll]:
        unsaid()

    @helper.on(final="it is only said")
    def work(asked: WorkAll) -> WorkedAll:
        unsaid()

    @shop.on(final="it ends each")
    def end(worked: WorkedAll) -> DoneAll:
        unsaid()

    [found] = check(
        put_together(called(), shop, helper, starts=GoAll, ends={"done": DoneAll})
    ).findings
    assert found.rule is Rule.TWO_ENDS


def test_an_end_that_is_announced_twice_at_once_is_two() -> None:
    shop = Service("shop")

    @shop.on(final="it is done at once")
    def take(go: Go) -> tuple[Done, Done]:
        unsaid()

    [found] = check(put_together(called(), shop, ends={"done": Done})).findings
    assert found.rule is Rule.TWO_ENDS


def test_an_undo_that_forgets_a_declared_failure_is_found() -> None:
    """The flow may fail by a step as well as by a deadline; the undo hears of the deadline."""
    shop, helper, payer = Service("shop"), Service("helper"), Service("payer")

    @shop.on(final="it is only begun")
    def take(go: Go) -> Told:
        unsaid()

    @helper.on
    def work(told: Told) -> Worked:
        unsaid()

    @work.undo
    def unwork(cause: Expired, worked: Worked) -> None:
        unsaid()

    @payer.on(final="what is paid is paid", unless=Expired)
    async def pay(worked: Worked) -> Packed | Refused:
        unsaid()

    @shop.on(final="a flow ends once")
    def end(answer: Packed | Refused) -> Done | Failed | None:
        unsaid()

    @shop.deadline(Told, within=timedelta(minutes=1), until=Done | Failed | Expired)
    def expire(told: Told) -> Expired | None:
        unsaid()

    ends = {"done": Done, "failed": Failed, "expired": Expired}
    choreography = put_together(
        called(), shop, helper, payer, ends=ends, fails=["failed", "expired"]
    )
    [found] = check(choreography).findings
    assert (found.rule, found.what) == (
        Rule.LEFT_UNDONE, "a run of it fails, and what helper.work did stays done",
    )  # fmt: skip
    assert found.trace[-1].outcome == ("broken.failed.v1",)


def test_a_flow_that_goes_on_by_another_way_has_not_failed() -> None:
    """What the one could not do is taken back, the other did it, and that stays done."""
    shop, one, other = Service("shop"), Service("one"), Service("other")

    @one.on
    def book_one(go: Go) -> Told:
        unsaid()

    @one.on(final="it only looks")
    def look(told: Told) -> Worked | Refused:
        unsaid()

    @book_one.undo
    def unbook_one(cause: Refused | Failed, told: Told) -> None:
        unsaid()

    @other.on
    def book_other(refused: Refused) -> Packed | Unworked:
        unsaid()

    @book_other.undo
    def unbook_other(cause: Failed, packed: Packed) -> None:
        unsaid()

    @shop.on(final="a flow ends once")
    def end(answer: Worked | Packed | Unworked) -> Done | Failed | None:
        unsaid()

    ends = {"done": Done, "failed": Failed}
    choreography = put_together(called(), shop, one, other, ends=ends, fails=["failed"])
    assert not check(choreography).findings


def test_a_conductor_that_fails_by_an_end_that_is_no_failure_is_named() -> None:
    service, helper = Service("shop"), Service("helper")

    def ask(go: Go) -> Work:
        unsaid()

    def succeed(go: Go) -> Done:
        unsaid()

    def give_up(go: Go) -> Failed:
        unsaid()

    within = timedelta(minutes=1)
    steps = [Ask(ask, good=Worked, bad=Refused, within=within, final="it is only asked")]
    Conductor(service, "job", starts=Go, steps=steps, ends=succeed, fails=give_up)

    @helper.on(final="it is only said")
    def work(asked: Work) -> Worked | Refused:
        unsaid()

    ends = {"done": Done, "failed": Failed}
    [found] = check(put_together(called(), service, helper, ends=ends)).findings
    assert found.rule is Rule.UNDECLARED_FAILURE
    assert found.what.startswith("the conductor job fails with Failed, and the flow")


class AskFor(Command, topic="played.ask", subject="item"):
    item: str
    job: str


class Booked(Event, topic="played.booked", subject="item"):
    item: str
    job: str


class NotBooked(Event, topic="played.not_booked", subject="item"):
    item: str
    job: str


class Shipped(Event, topic="played.shipped", subject="item"):
    item: str
    job: str


class FailedAll(Event, topic="played.failed"):
    job: str


@pytest.mark.parametrize(("stop", "found"), [(NotBooked, [Rule.PIVOT]), (FailedAll, [])])
def test_what_is_said_of_one_item_keeps_no_other_from_being_shipped(
    stop: Any, found: list[Rule]
) -> None:
    """One item is refused, so all of it fails, and the other is shipped after that."""
    shop, helper, shipper = Service("shop"), Service("helper"), Service("shipper")

    @shop.on(final="it is only begun")
    def split(go: Go) -> tuple[AskFor, AskFor]:
        unsaid()

    @helper.on
    def book(asked: AskFor) -> Booked | NotBooked:
        unsaid()

    @book.undo
    def unbook(cause: FailedAll, booked: Booked) -> None:
        unsaid()

    @shipper.on(final="it is on the lorry", unless=stop)
    def ship(booked: Booked) -> Shipped:
        unsaid()

    @shop.on(final="a flow ends once")
    def end(shipped: Shipped) -> DoneAll | None:
        unsaid()

    @shop.on(final="a flow ends once")
    def fail(refused: NotBooked) -> FailedAll | None:
        unsaid()

    ends = {"done": DoneAll, "failed": FailedAll}
    choreography = put_together(called(), shop, helper, shipper, ends=ends, fails=["failed"])
    assert [one.rule for one in check(choreography).findings] == found


def test_an_end_is_heard_by_whoever_started_the_flow() -> None:
    shop = Service("shop")

    @shop.on(final="it is done at once")
    def take(go: Go) -> tuple[Told, Done]:
        unsaid()

    choreography = put_together(called(), shop, ends={"done": Done}, unwatched={Done})
    assert not check(choreography).findings


def test_a_conductor_may_ask_for_nothing_where_that_is_said() -> None:
    """It ends well only then, as whoever is asked refuses."""
    service, helper = Service("shop"), Service("helper")

    def ask(go: Go) -> tuple[AskFor, ...] | None:
        unsaid()

    def succeed(go: Go) -> Done:
        unsaid()

    def give_up(go: Go) -> Failed:
        unsaid()

    within = timedelta(minutes=1)
    steps = [Ask(ask, good=Booked, bad=NotBooked, within=within, final="it is only asked")]
    Conductor(service, "job", starts=Go, steps=steps, ends=succeed, fails=give_up)

    @helper.on(final="it is only said")
    def work(asked: AskFor) -> NotBooked:
        unsaid()

    @helper.on(final="it is only said")
    def work_elsewhere(asked: GoElsewhere) -> Booked:
        unsaid()

    ends = {"done": Done, "failed": Failed}
    choreography = put_together(
        called(),
        service,
        helper,
        ends=ends,
        fails=["failed"],
        also={GoElsewhere: {"worked": Booked}},
    )
    [seen, _] = check(choreography).explored
    assert seen.ends == ["done", "failed"]


def test_services_that_only_act_cost_what_they_add() -> None:
    """Each would be times five if all were played together."""
    choreography = Choreography.of(load())
    orders = [flow for flow in choreography.flows if flow.name == "order"]

    def states(more: int) -> int:
        services = [*choreography.services, *(_wrapping(number) for number in range(more))]
        [seen] = check(replace(choreography, services=services), orders).explored
        assert {f"wrapping{number}.unwrap" for number in range(more)} <= seen.reached
        return seen.states

    none, one, four = states(0), states(1), states(4)
    assert four - none == 4 * (one - none)


class Wrapped(Event, topic="played.wrapped", subject="order_id"):
    order_id: str


def _wrapping(number: int) -> Service:
    service = Service(f"wrapping{number}")

    @service.on
    def wrap(placed: OrderPlaced) -> Wrapped | None:
        unsaid()

    @wrap.undo
    def unwrap(cause: OrderCancelled, wrapped: Wrapped) -> None:
        unsaid()

    return service


def test_a_step_that_is_only_kept_from_running_is_never_come_to() -> None:
    shop = Service("shop")

    @shop.on(final="it is done at once")
    def take(go: Go) -> Done:
        unsaid()

    @shop.on(final="it is done at once")
    def take_elsewhere(go: GoElsewhere) -> Told:
        unsaid()

    @shop.on(final="what is packed stays packed", unless=Done)
    def pack(told: Told) -> None:
        unsaid()

    choreography = put_together(called(), shop, starts=Go, ends={"done": Done})
    assert "shop.pack" in check(choreography).never_reached
