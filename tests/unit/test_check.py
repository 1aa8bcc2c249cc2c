"""Tests that every rule of the check finds its small broken choreography, and passes its twin."""

from __future__ import annotations

import importlib
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import broken
import pytest
from broken import words

from choreo import Event, Service
from choreo.check import Choreography, Rule, check, reduce
from choreo.check.explore import Exploration, explore, explore_apart
from choreo.check.model import Model
from choreo.settings import load

_RULES = list(Rule)
_FAILED, _ELSEWHERE = "Failed (broken.failed.v1)", "GoElsewhere (broken.go_elsewhere.v1)"


@cache
def of(rule: Rule, *, mended: bool) -> Choreography:
    module: Any = importlib.import_module(f"broken.{rule.name.lower()}")
    found: Choreography = module.choreography(mended=mended)
    return found


def test_every_rule_has_its_broken_choreography() -> None:
    there = {path.stem for path in Path(broken.__path__[0]).glob("*.py")}
    assert there == {rule.name.lower() for rule in Rule} | {"__init__", "words"}


@pytest.mark.parametrize("rule", _RULES)
def test_what_is_broken_is_rejected_by_its_rule_alone(rule: Rule) -> None:
    findings = check(of(rule, mended=False)).findings
    assert {one.rule for one in findings} == {rule}, findings
    for one in findings:
        file, _, line = one.place.rpartition(":")
        assert Path(file).exists()
        assert int(line) > 0
        assert bool(one.trace) == (one.flow is not None and rule is not Rule.UNREACHED_END)


def test_a_lost_call_is_told_last() -> None:
    [finding] = check(of(Rule.NO_DEADLINE, mended=False)).findings
    last = finding.trace[-1]
    assert (last.do, last.type, last.to) == ("lost", "broken.work.v1", "helper.work")


def test_an_end_that_undoes_and_is_not_declared_is_named() -> None:
    [found] = check(of(Rule.UNDECLARED_FAILURE, mended=False)).findings
    assert found.what == (
        "Failed undoes helper.work, and the flow does not declare that it then fails"
    )
    assert found.do == "declare it, where the flow is: fails=['failed']"
    assert found.trace[-1].to == "helper.unwork"


@pytest.mark.parametrize("rule", _RULES)
def test_what_is_mended_passes(rule: Rule) -> None:
    report = check(of(rule, mended=True))
    assert not report.findings
    assert report.explored


def test_the_project_is_sound() -> None:
    choreography = Choreography.of(load())
    report = check(choreography)
    assert not report.findings
    assert [one.flow for one in report.explored] == [flow.name for flow in choreography.flows]
    for flow, seen in zip(choreography.flows, report.explored, strict=True):
        assert seen.ends == list(flow.ends)
    assert set(report.never_reached) == {
        # It is up when nothing else is under way, and an order was opened or rejected by then.
        "order_process.check_late",
        # Nothing comes after the last step that could have it undone; what was late is not awaited.
        "order_process.recall_done",
        "reservations.refund_done",
    }


def test_a_long_deadline_is_up_after_all_else() -> None:
    """Were it a short one, an order might be called off before it is opened, and never end."""
    choreography = replace(Choreography.of(load()), memory=timedelta(days=366))
    flows = [flow for flow in choreography.flows if flow.name == "conducted_order"]
    [finding] = check(choreography, flows).findings
    assert finding.rule is Rule.NO_END
    assert [(one.do, one.to, one.note) for one in finding.trace] == [
        ("start", "", ""),
        ("deliver", "order_process.begin_order", ""),
        ("deadline", "order_process.check_late", ""),
        ("deliver", "orders.call_off", "nothing to undo"),
        ("deliver", "orders.open_order", "cancelled before it began"),
    ]


def test_a_flow_that_nobody_takes_is_not_explored() -> None:
    shop = Service("shop")

    @shop.on(final="it is done at once")
    def take(go: words.Go) -> words.Done:
        words.unsaid()

    choreography = words.put_together(
        "nobody_takes", shop, starts=words.GoElsewhere, ends={"done": words.Done},
        also={words.Go: {"done": words.Done, "failed": words.Failed}},
    )  # fmt: skip
    report = check(choreography)
    assert [(one.rule, one.what) for one in report.findings] == [
        (Rule.UNDECLARED, f"{_FAILED} is used, and no module of the contracts package declares it"),
        (Rule.UNPUBLISHED, f"nobody publishes {_FAILED}; the flow nobody_takes_2 ends with it"),
        (Rule.UNHEARD, f"nobody hears {_ELSEWHERE}: the flow nobody_takes starts with it"),
    ]
    assert [one.flow for one in report.explored] == ["nobody_takes_2"]


@pytest.mark.parametrize("ends", [False, True])
def test_a_deadline_that_reminds_for_ever(ends: bool) -> None:
    shop = Service("shop")

    @shop.on(final="it is only begun")
    def take(go: words.Go) -> words.Told:
        words.unsaid()

    @shop.deadline(
        words.Told, within=timedelta(days=1), until=words.Worked | words.Done | words.Expired
    )
    def remind(told: words.Told) -> words.Told:
        words.unsaid()

    helper = Service("helper")

    @helper.on(final="it is only said", unless=words.Expired)
    async def work(told: words.Told) -> words.Worked:
        words.unsaid()

    @shop.on(final="a flow ends once")
    def end(worked: words.Worked) -> words.Done | None:
        words.unsaid()

    named: dict[str, type[Event]] = {"done": words.Done}
    if ends:
        named["expired"] = words.Expired

    @shop.deadline(words.Told, within=timedelta(days=9), until=words.Done | words.Expired)
    def expire(told: words.Told) -> words.Expired | None:
        words.unsaid()

    report = check(words.put_together(f"reminds_{ends}".lower(), shop, helper, ends=named))
    found = [(one.rule, one.what.partition(" ")[0]) for one in report.findings]
    cycle = (Rule.ENDLESS_CYCLE, "shop.remind")
    assert (cycle in found) != ends
    assert not (ends and found)


def test_a_flow_may_be_too_large() -> None:
    choreography = Choreography.of(load())
    seen = explore(Model(choreography, choreography.flows[0]), most=10)
    assert not seen.is_whole
    assert 10 < seen.states < 50


def _seen(choreography: Choreography, name: str | None = None) -> list[Exploration]:
    models = [Model(choreography, one) for one in choreography.flows if name in (None, one.name)]
    return [explore(model) for model in models]


@pytest.mark.parametrize("mended", [False, True])
@pytest.mark.parametrize("rule", _RULES)
def test_nothing_is_missed_where_the_order_does_not_matter(
    rule: Rule, mended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _in_any_order(of(rule, mended=mended), None, monkeypatch)


def test_nothing_of_a_trip_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    _in_any_order(Choreography.of(load()), "trip", monkeypatch)


def _in_any_order(
    choreography: Choreography, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is seen of a flow is the same if every order is followed."""
    reduced = _seen(choreography, name)
    monkeypatch.setattr(reduce, "apart", lambda _play, _state: ())
    for less, full in zip(reduced, _seen(choreography, name), strict=True):
        assert less.states <= full.states
        assert less.faults.keys() == full.faults.keys()
        assert (less.announced, less.reached) == (full.announced, full.reached)


@pytest.mark.parametrize("mended", [False, True])
@pytest.mark.parametrize("rule", _RULES)
def test_nothing_is_missed_where_branches_are_played_apart(rule: Rule, mended: bool) -> None:
    _apart(of(rule, mended=mended))


@pytest.mark.long
def test_nothing_of_the_project_is_missed_where_branches_are_played_apart() -> None:
    _apart(Choreography.of(load()))


def _apart(choreography: Choreography) -> None:
    for flow in choreography.flows:
        model = Model(choreography, flow)
        calls = [one.name for one in model.receivers if one.role == "step"]
        for lost in (None, *calls):
            full = explore(model, lost=lost)
            parts = [seen for _, seen in explore_apart(model, lost=lost)]
            assert {fault for seen in parts for fault in seen.faults} == full.faults.keys()
            assert set[int]().union(*(seen.announced for seen in parts)) == full.announced
            assert set[str]().union(*(seen.reached for seen in parts)) == full.reached
