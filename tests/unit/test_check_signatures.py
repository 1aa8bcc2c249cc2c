"""Tests what the check says of the signatures alone: who needs an event, which version it is."""

from __future__ import annotations

from datetime import timedelta
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
    ToldMore,
    Unworked,
    Work,
    Worked,
    put_together,
    unsaid,
)
from test_check_play import called

from choreo import Service
from choreo.check import Rule, check

_WITHIN = timedelta(minutes=1)


def _rules(choreography: Any) -> list[Rule]:
    return [one.rule for one in check(choreography).findings]


def test_what_a_service_keeps_for_its_own_undo_need_not_be_heard() -> None:
    shop, helper = Service("shop"), Service("helper")

    @shop.on(final="it is only begun")
    def take(go: Go) -> Told:
        unsaid()

    @helper.on
    def work(told: Told) -> Worked:
        unsaid()

    @work.undo
    def unwork(cause: Failed, worked: Worked) -> None:
        unsaid()

    @shop.on(final="a flow ends once")
    def end(told: Told) -> Done | Failed:
        unsaid()

    ends = {"done": Done, "failed": Failed}
    sound = put_together(called(), shop, helper, ends=ends, fails=["failed"], unwatched=[Worked])
    assert not check(sound).findings


@pytest.mark.parametrize(("armed_by", "until"), [(Packed, Done | Expired), (Told, Packed)])
def test_what_arms_or_ends_a_deadline_of_its_own_service_need_not_be_heard(
    armed_by: Any, until: Any
) -> None:
    shop = Service("shop")

    @shop.on(final="it is only begun")
    def take(go: Go) -> tuple[Told, Packed]:
        unsaid()

    @shop.on(final="a flow ends once")
    def end(told: Told) -> Done | None:
        unsaid()

    def expire(armed: Any) -> Any:
        unsaid()

    expire.__annotations__ = {"armed": armed_by, "return": Expired | None}
    shop.deadline(armed_by, within=_WITHIN, until=until)(expire)
    ends = {"done": Done, "expired": Expired} if armed_by is Packed else {"done": Done}
    choreography = put_together(called(), shop, ends=ends, unwatched=[Packed])
    assert Rule.UNHEARD not in _rules(choreography)


def test_a_command_is_for_somebody_else() -> None:
    """It arms a deadline of whoever sends it; but nobody does it."""
    shop = Service("shop")

    @shop.on(final="it is only begun")
    def take(go: Go) -> Work:
        unsaid()

    @shop.deadline(Work, within=_WITHIN, until=Done)
    def expire(work: Work) -> Done:
        unsaid()

    [found] = check(put_together(called(), shop, ends={"done": Done})).findings
    assert (found.rule, found.what) == (
        Rule.UNHEARD, "nobody hears Work (broken.work.v1): shop.take publishes it",
    )  # fmt: skip


def test_an_end_of_another_version_is_named() -> None:
    shop = Service("shop")

    @shop.on(final="it is done at once")
    def take(go: Go) -> Told:
        unsaid()

    name = called()
    choreography = put_together(name, shop, ends={"done": ToldMore})
    found = [one for one in check(choreography).findings if one.rule is Rule.UNPUBLISHED_VERSION]
    assert [one.what for one in found] == [
        f"nobody publishes ToldMore (broken.told.v2), only v1 of it; the flow {name} ends with it"
    ]
    assert found[0].place == choreography.flows[0].place


def test_a_start_that_nobody_takes_is_named_by_its_flow() -> None:
    shop = Service("shop")

    @shop.on(final="it is done at once")
    def take(go: Go) -> Done:
        unsaid()

    choreography = put_together("nobody_begins", shop, starts=GoElsewhere, ends={"done": Done})
    [found] = [one for one in check(choreography).findings if one.rule is Rule.UNHEARD]
    assert found.what.endswith("(broken.go_elsewhere.v1): the flow nobody_begins starts with it")
    assert found.place == choreography.flows[0].place


@pytest.mark.parametrize("calls", [False, True])
def test_a_person_who_is_called_acts_on_a_bad_answer(calls: bool) -> None:
    shop, helper = Service("shop"), Service("helper")

    @shop.on(final="it is only begun")
    def take(go: Go) -> Told:
        unsaid()

    @helper.on
    def work(told: Told) -> Worked:
        unsaid()

    @work.undo
    def unwork(cause: Failed, worked: Worked) -> Unworked | Refused:
        unsaid()

    @shop.on(final="a flow ends once")
    def end(told: Told) -> Done | Failed:
        unsaid()

    desk = Service("desk")
    if calls:

        @desk.on(final="who was called was called")
        async def call(refused: Refused) -> None:
            unsaid()
    else:

        @desk.on(final="what is written is written")
        def write(refused: Refused) -> None:
            unsaid()

    ends = {"done": Done, "failed": Failed}
    choreography = put_together(called(), shop, helper, desk, ends=ends, fails=["failed"])
    assert _rules(choreography) == ([] if calls else [Rule.FALLIBLE_UNDO])
