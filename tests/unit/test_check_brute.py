"""Tests that the check and brute force agree on choreographies that are made up at random."""

from __future__ import annotations

from typing import Any

import pytest
from check_brute import Brute, TooManyError
from check_drawn import (
    ASKED,
    BOOKED,
    CANCELLED,
    END,
    GO,
    HELD,
    REFUSED,
    UNDONE,
    choreographies,
    written,
)
from hypothesis import HealthCheck, assume, given, note, settings

from choreo import Flow, Service
from choreo.check import Choreography
from choreo.check.explore import Exploration, explore, explore_apart
from choreo.check.model import Model

_MOST = 500


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(choreographies())
def test_the_check_and_brute_force_agree(choreography: Choreography) -> None:
    [flow] = choreography.flows
    note(written(choreography))
    model, services = Model(choreography, flow), list(choreography.services)
    brute = Brute(services, flow, None, _MOST)
    try:
        brute.run()
    except TooManyError:
        assume(False)
    calls = {one.name for one in model.receivers if one.role == "step"}
    for call in (None, *sorted(calls.intersection(brute.reached))):
        if call is not None:
            brute = Brute(services, flow, call, _MOST)
            brute.run()
        # All at once, and with one branch at a time.
        apart = [seen for _, seen in explore_apart(model, lost=call)]
        for every in ([explore(model, lost=call)], apart):
            assert {fault for seen in every for fault in _faults(seen)} == brute.faults
            assert {model.kinds[k] for seen in every for k in seen.announced} == brute.announced
            assert {one for seen in every for one in seen.reached} == brute.reached


def test_what_stops_a_step_is_not_taken_out_of_its_order() -> None:
    """Brute force found it: delivered at once, `U0` hid that `late` may run after `End0`."""
    service = Service("s0")

    @service.on
    def step(go: GO) -> END:
        raise NotImplementedError

    @step.undo
    def undo(cause: END, outcome: END) -> UNDONE:
        raise NotImplementedError

    @service.on(final="drawn", unless=UNDONE)
    def late(message: GO | END) -> UNDONE:
        raise NotImplementedError

    flow = Flow("not_alone", starts=GO, ends={"end": END}, fails=["end"])
    choreography = Choreography([service], [flow], [])
    brute = Brute([service], flow, None, _MOST)
    brute.run()
    assert _faults(explore(Model(choreography, flow))) == brute.faults
    assert ("pivot", ("s0.late", END.__name__)) in brute.faults


@pytest.mark.parametrize(
    ("cause", "found"),
    [(REFUSED, {("left-undone", ("s0.book",)), ("overtaken", ("s0.book",))}), (CANCELLED, set())],
)
def test_what_is_undone_is_what_the_cause_is_about(cause: Any, found: set[Any]) -> None:
    """One item is refused: that reaches the item, and the end of the whole reaches each."""
    service = Service("s0")

    @service.on
    def hold(go: GO) -> HELD:
        raise NotImplementedError

    @hold.undo
    def give_back(cause: CANCELLED, held: HELD) -> None:
        raise NotImplementedError

    @service.on(final="it only asks")
    def split(go: GO) -> tuple[ASKED, ASKED]:
        raise NotImplementedError

    @service.on
    def book(asked: ASKED) -> BOOKED | REFUSED:
        raise NotImplementedError

    def unbook(cause: Any, booked: Any) -> None:
        raise NotImplementedError

    unbook.__annotations__ = {"cause": cause, "booked": BOOKED, "return": None}
    book.undo(unbook)

    @service.on(final="a flow ends once")
    def end(answer: BOOKED | REFUSED) -> END | CANCELLED | None:
        raise NotImplementedError

    name, ends = f"items_{cause.__name__.lower()}", {"done": END, "cancelled": CANCELLED}
    flow = Flow(name, starts=GO, ends=ends, fails=["cancelled"])
    choreography = Choreography([service], [flow], [])
    brute = Brute([service], flow, None, 5000)
    brute.run()
    assert _faults(explore(Model(choreography, flow))) == brute.faults == found


def _faults(seen: Exploration) -> set[tuple[str, tuple[str, ...]]]:
    return {(fault.rule.value, fault.about) for fault in seen.faults}
