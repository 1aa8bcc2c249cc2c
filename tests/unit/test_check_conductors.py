"""Tests that the check has a conductor go on as it does: any table, whatever is answered."""

from __future__ import annotations

import types
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sketches import (
    BADS,
    DOES,
    GOODS,
    TOLDS,
    UNDOES,
    UNDONES,
    Ended,
    Failed,
    Sketch,
    function,
    made_up,
    subjects,
    tables,
)
from sketches import Go as Start
from watching import call, database

from choreo import Event, Flow, Service
from choreo.check import Choreography, reduce
from choreo.check.conduct import Conducting
from choreo.check.explore import explore, explore_apart
from choreo.check.model import Model
from choreo.check.state import Run, Task
from choreo.contract import Message, subject_of
from choreo.store.runs import RunStatus, TaskStatus

_JOB = "j"
_flows = count()
_ENDS: dict[str, type[Event]] = {"done": Ended, "failed": Failed}
#: What a step sends, by its number.
_SENT = (DOES, TOLDS, UNDOES)
_ANSWERS = {
    TaskStatus.DONE: GOODS,
    TaskStatus.REFUSED: BADS,
    TaskStatus.LATE: DOES,
    TaskStatus.UNDONE: UNDONES,
}


@settings(deadline=None, max_examples=200)
@given(tables(), st.data())
def test_a_run_is_played_as_it_runs(table: list[list[Sketch]], data: st.DataObject) -> None:
    table = [[_in_twos(one) for one in stage] for stage in table]
    sketches = [one for stage in table for one in stage]
    conductor = made_up(table)
    flow = Flow(f"played_{next(_flows)}", starts=Start, ends=_ENDS, fails=["failed"])
    model = Model(Choreography([conductor.service], [flow], []), flow)
    played = Conducting(model, 0)

    def sent(said: tuple[Message, ...]) -> list[tuple[int, int]]:
        return sorted((model.index[type(one)], about(one)) for one in said)

    def about(message: Message) -> int:
        """Its subject, as the check counts them: of several the second and third are 1 and 2."""
        places = [pool.index(type(message)) for pool in _SENT if type(message) in pool]
        if places and sketches[places[0]].form == "several":
            return 1 + int(str(subject_of(message)).partition(".")[2])
        return 0

    with database() as db:
        said = sent(call(conductor.service.handlers["begin_play"], Start(job=_JOB), db))
        runs = [run for run, more in played.begin(0) if sorted(more) == said]
        while True:
            assert runs, f"it sent {[model.kinds[kind].__name__ for kind, _ in said]}"
            run = runs[0]
            assert len({_waits(one) for one in runs}) == 1
            choices = _choices(played, run, sketches)
            if not choices:
                break
            task, status = data.draw(st.sampled_from(choices))
            number = int(played.parts[task.part].name.removeprefix("step"))
            item = _subject(sketches[number], task.about)
            handler = played.handler(task, status).rpartition(".")[2]
            answer = _ANSWERS[status][number](item=item)
            said = sent(call(conductor.service.handlers[handler], answer, db))
            ways = [way for one in runs for way in played.settle(one, task, status)]
            runs = [run for run, more in ways if sorted(more) == said]
    assert run.status in (RunStatus.DONE, RunStatus.FAILED)
    is_good = (model.index[Ended], 0) in said
    assert is_good == (run.status is RunStatus.DONE)


def _in_twos(sketch: Sketch) -> Sketch:
    """The check has several stand for two; what may be left out is left out or not."""
    return replace(sketch, count=2) if sketch.form == "several" else sketch


def _subject(sketch: Sketch, about: int) -> str:
    return subjects(_JOB, sketch)[max(0, about - 1)]


def _waits(run: Run) -> frozenset[Task]:
    awaited = (TaskStatus.ASKED, TaskStatus.UNDOING)
    return frozenset(one._replace(answered=0) for one in run.tasks if one.status in awaited)


def _choices(played: Conducting, run: Run, sketches: list[Sketch]) -> list[tuple[Task, TaskStatus]]:
    """What may come next: a good or a bad answer, none in time, or that to an undo."""
    found = []
    for task in run.tasks:
        if task.status == TaskStatus.UNDOING:
            found.append((task, TaskStatus.UNDONE))
        elif task.status == TaskStatus.ASKED:
            found += [(task, TaskStatus.DONE), (task, TaskStatus.LATE)]
            number = int(played.parts[task.part].name.removeprefix("step"))
            if sketches[number].bad:
                found.append((task, TaskStatus.REFUSED))
    return found


def _workers(sketches: list[Sketch]) -> Service:
    """Does whatever a table asks for, and undoes it by the undos of its steps."""
    service = Service("workers")

    def unsaid(**_: Any) -> Any:
        raise NotImplementedError

    for number, sketch in enumerate(sketches):
        if sketch.tells:
            told = function(f"listen{number}", _copy(unsaid), None, told=TOLDS[number])
            service.on(final="it is only heard")(told)
            continue
        said = GOODS[number] | BADS[number] if sketch.bad else GOODS[number]
        worked = function(f"work{number}", _copy(unsaid), said, asked=DOES[number])
        if sketch.undo == "none":
            service.on(final="it stays done")(worked)
            continue
        work = service.on()(worked)
        wants = {"cause": UNDOES[number], "outcome": GOODS[number]}
        work.undo(function(f"undo{number}", _copy(unsaid), UNDONES[number], **wants))
    return service


def _copy(fn: Any) -> Any:
    return types.FunctionType(fn.__code__, fn.__globals__)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(tables())
def test_a_conductor_whose_every_step_is_undone_is_sound(table: list[list[Sketch]]) -> None:
    table = [
        [replace(_in_twos(one), undo="sent" if one.undo == "sent" else "awaited") for one in stage]
        for stage in table
    ]
    model = _model(table, most=3)
    seen = explore(model)
    assert not seen.faults
    ends = [word for kind, word in model.ends.items() if kind in seen.announced]
    asks = any(not one.tells for stage in table for one in stage)
    assert ends == (["done", "failed"] if asks else ["done"])


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(tables())
def test_nothing_is_missed_where_the_order_does_not_matter(table: list[list[Sketch]]) -> None:
    model = _model([[_in_twos(one) for one in stage] for stage in table], most=3)
    less, apart = explore(model), [seen for _, seen in explore_apart(model)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reduce, "apart", lambda _play, _state: ())
        full = explore(model)
    assert less.states <= full.states
    assert less.faults.keys() == full.faults.keys()
    assert {fault for seen in apart for fault in seen.faults} == full.faults.keys()
    assert (less.announced, less.reached) == (full.announced, full.reached)


def _model(table: list[list[Sketch]], most: int) -> Model:
    """A conductor and who does what it asks for; side by side they are soon too many to follow."""
    sketches = [one for stage in table for one in stage]
    asks = [one for one in sketches if not one.tells]
    assume(sum(2 if one.form == "several" else 1 for one in asks) <= most)
    services = [made_up(table).service, _workers(sketches)]
    flow = Flow(f"worked_{next(_flows)}", starts=Start, ends=_ENDS, fails=["failed"])
    return Model(Choreography(services, [flow], []), flow)
