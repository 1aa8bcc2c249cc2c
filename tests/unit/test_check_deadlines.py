"""What a deadline does in a run: it ends cycles, and may be up when others have forgotten."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from broken.words import (
    Done,
    Expired,
    Failed,
    Go,
    Packed,
    Refused,
    Told,
    Unworked,
    Work,
    Worked,
    put_together,
    unsaid,
)
from test_check_play import called

from choreo import Service
from choreo.check import Choreography, Rule, check


def _goes_round(until: Any, armed_by: Any, begins: Any) -> Choreography:
    """A cycle of a helper's, and a deadline of the shop's that the end of the cycle hears."""
    shop, helper = Service("shop"), Service("helper")

    @shop.on(final="it is only begun")
    def take(go: Go) -> Told:
        unsaid()

    def begin(told: Told) -> Any:
        unsaid()

    begin.__annotations__["return"] = begins
    shop.on(final="it is only begun")(begin)

    def expire(armed: Any) -> Any:
        unsaid()

    expire.__annotations__ = {"armed": armed_by, "return": Expired | None}
    shop.deadline(armed_by, within=timedelta(minutes=1), until=until)(expire)

    @helper.on(final="it is only said", unless=Expired)
    def work(asked: Work | Refused) -> Worked:
        unsaid()

    @helper.on(final="it is only said", unless=Expired)
    def again(worked: Worked) -> Refused | Packed:
        unsaid()

    @shop.on(final="a flow ends once")
    def end(packed: Packed) -> Done | None:
        unsaid()

    return put_together(called(), shop, helper, ends={"done": Done, "expired": Expired})


@pytest.mark.parametrize(
    ("until", "armed_by", "begins", "found"),
    [
        (Done | Expired, Told, Work, []),
        # The cycle itself ends the deadline that is to end it.
        (Worked | Expired, Told, Work, ["endless-cycle"]),
        # It is armed on another branch than that of the cycle.
        (Done | Expired, Unworked, Work | Unworked, ["endless-cycle"]),
    ],
)
def test_only_a_deadline_that_runs_then_ends_a_cycle(
    until: Any, armed_by: Any, begins: Any, found: list[str]
) -> None:
    findings = check(_goes_round(until, armed_by, begins)).findings
    assert sorted({one.rule.value for one in findings}) == found


def _waits(days: int, *, undoes: bool) -> Choreography:
    """A call that may be lost, after a step of another service; a deadline ends it."""
    shop, helper, payer = Service("shop"), Service("helper"), Service("payer")

    @shop.on(final="it is only begun")
    def take(go: Go) -> Work:
        unsaid()

    def work(asked: Work) -> Worked:
        unsaid()

    if undoes:

        @helper.on(work).undo
        def unwork(cause: Expired, worked: Worked) -> None:
            unsaid()
    else:
        helper.on(final="it stays done")(work)

    @payer.on(final="what is paid is paid", unless=Expired)
    async def pay(worked: Worked) -> Packed:
        unsaid()

    @shop.on(final="a flow ends once")
    def end(packed: Packed) -> Done | None:
        unsaid()

    @shop.deadline(Work, within=timedelta(days=days), until=Done | Expired)
    def expire(asked: Work) -> Expired | None:
        unsaid()

    ends = {"done": Done, "expired": Expired}
    return put_together(called(), shop, helper, payer, ends=ends, fails=["expired"])


@pytest.mark.parametrize(("days", "undoes"), [(29, True), (40, False)])
def test_a_long_deadline_does_where_nothing_is_to_be_undone(days: int, undoes: bool) -> None:
    assert not check(_waits(days, undoes=undoes)).findings


def test_what_is_undone_after_a_long_deadline_is_forgotten() -> None:
    [found] = check(_waits(40, undoes=True)).findings
    assert found.rule is Rule.NO_DEADLINE
    assert found.what == (
        "helper.unwork may have to undo what its service has forgotten, as shop.expire comes so "
        "late"
    )
    assert found.do == (
        "let it come within the 30 days that a flow is remembered (CHOREO_RETENTION_DAYS)"
    )
    assert [one.to for one in found.trace[-3:]] == ["shop.expire", "helper.unwork", "payer.pay"]


def test_a_long_deadline_that_nothing_ends_is_up_as_well() -> None:
    shop = Service("shop")

    @shop.on(final="it is only begun")
    def take(go: Go) -> Told:
        unsaid()

    @shop.on(final="a flow ends once")
    def end(told: Told) -> Done | Failed | None:
        unsaid()

    @shop.deadline(Told, within=timedelta(days=40), until=Done)
    def expire(told: Told) -> Failed:
        unsaid()

    ends = {"done": Done, "failed": Failed}
    [found] = check(put_together(called(), shop, ends=ends, fails=["failed"])).findings
    assert (found.rule, found.trace[-1].to) == (Rule.TWO_ENDS, "shop.expire")
