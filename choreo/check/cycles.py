"""Says whether a cycle goes round for ever: nothing that runs by then will end it."""

from __future__ import annotations

from collections.abc import Iterator

from choreo.check.model import Model
from choreo.check.play import Move
from choreo.check.state import State
from choreo.service import Deadline
from choreo.store.runs import RunStatus


def is_endless(model: Model, move: Move) -> bool:
    """Whether a handler ran once more, goes on to itself again, and no end will stop that."""
    if move.again is None or not model.leads_to(move.sent, model.handlers[move.again]):
        return False
    stops = {kind for kind, _ in move.state.ends} | set(_ends_in_time(model, move.state))
    return move.again in model.on_cycles(without=_stopped(model, stops))


def _ends_in_time(model: Model, state: State) -> Iterator[int]:
    """The ends that the deadlines announce that run now, or are about to."""
    runs = [one.deadline for one in state.armed]
    waiting = [model.receivers[post.to] for post in state.posts]
    runs += [one.of for one in waiting if one.role == "arm"]
    late = [model.deadline(number) for number in runs]
    for run in state.runs:
        if run.status in (RunStatus.RUNNING, RunStatus.UNDOING):
            conductor = model.conductors[run.conductor]
            late += [one for one in conductor.service.deadlines if one.conductor == conductor.name]
    for one in late:
        yield from model.ends.keys() & {model.index[kind] for kind in one.signature.publishes}


def _stopped(model: Model, ends: set[int]) -> frozenset[int]:
    """The handlers that an end keeps from running."""
    kinds = model.bits(model.kinds[kind] for kind in ends)
    steps = (one for one in model.watches.values() if one.stoppers & kinds and not one.is_plainly)
    deadlines = (one for one in model.handlers if isinstance(one, Deadline))
    return frozenset(one.number for one in steps) | {
        model.number[one] for one in deadlines if model.bits(one.until) & kinds
    }
