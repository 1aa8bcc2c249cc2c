"""What is wrong with a step of a run, or with a run that has come to rest."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import NamedTuple

from choreo.check.choreography import name
from choreo.check.cycles import is_endless
from choreo.check.finding import Rule
from choreo.check.model import Model
from choreo.check.play import Move, Play
from choreo.check.state import Run, State
from choreo.store.runs import RunStatus, TaskStatus


class Fault(NamedTuple):
    """A rule, and what breaks it; of equal ones the first is told."""

    rule: Rule
    #: Handlers, services or kinds, as the rule needs them.
    about: tuple[str, ...] = ()


def on_the_way(model: Model, move: Move) -> Iterator[Fault]:
    """What a step of a run shows."""
    if len(move.state.ends) > 1 and any(kind in model.ends for kind, _ in move.sent):
        deciders = {service for _, service in move.state.ends}
        if len(deciders) > 1:
            yield Fault(Rule.TWO_DECIDERS, tuple(sorted(deciders)))
        else:
            yield Fault(Rule.TWO_ENDS, (move.to,))
    if move.too_late is not None:
        yield Fault(Rule.PIVOT, (move.to, model.kinds[move.too_late].__name__))
    if move.forgotten:
        days = f"{model.choreography.memory / timedelta(days=1):g}"
        yield Fault(Rule.NO_DEADLINE, (move.forgotten, move.to, days))
    if is_endless(model, move):
        yield Fault(Rule.ENDLESS_CYCLE, (move.to,))
    for kind in _fails_by(model, move):
        if kind in model.ends and kind not in model.failing:
            yield Fault(Rule.UNDECLARED_FAILURE, (model.ends[kind],))


def _fails_by(model: Model, move: Move) -> Iterator[int]:
    """The messages that show the flow to fail: one undoes something, or a conductor gives up."""
    if move.role == "undo" and not move.note:
        yield move.kind
    for run in move.state.runs:
        fails = model.conductors[run.conductor].fails
        if run.status is RunStatus.FAILED and fails:
            yield from (kind for kind, _ in move.sent if model.kinds[kind] in fails.publishes)


def at_rest(play: Play, state: State) -> Iterator[Fault]:
    """What a run shows in which nothing more happens."""
    held = {play.model.receivers[post.to].name for post in state.posts}
    if play.lost is not None:
        if play.lost in held and not state.ends:
            yield Fault(Rule.NO_DEADLINE, (play.lost,))
    elif not (held or state.armed):  # what is held, or armed, goes round in a cycle
        yield from _settled(play, state)


def _settled(play: Play, state: State) -> Iterator[Fault]:
    model = play.model
    waits = [run for run in state.runs if run.awaits(TaskStatus.UNDOING)]
    for run in waits:
        yield from _waiting(play, run)
    if waits:
        return
    if not state.ends:
        yield Fault(Rule.NO_END)
    if any(kind in model.failing for kind, _ in state.ends):
        for one in state.done:
            rule = Rule.OVERTAKEN if one.overtaken else Rule.LEFT_UNDONE
            yield Fault(rule, (name(model.step(one.step)),))


def _waiting(play: Play, run: Run) -> Iterator[Fault]:
    """What it asked for has a deadline; that something was undone has to be said."""
    conducting = play.conducting[run.conductor]
    for task in run.tasks:
        if task.status == TaskStatus.UNDOING:
            handler = conducting.handler(task, TaskStatus.UNDONE)
            yield Fault(Rule.NO_DEADLINE, (handler, conducting.conductor.name))
