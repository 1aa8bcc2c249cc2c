"""Judges effects: what was to be undone is undone once, and what was to be stopped did not run."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from choreo.audit.evidence import Evidence, Kept, Row, Trace
from choreo.audit.finding import Finding, Severity
from choreo.contract import Event
from choreo.service import Deadline, Handler, Step
from choreo.signature import MessageType

#: A clock of the audit's machine and that of a database differ less.
_CLOCKS_S = 5.0


def undone(evidence: Evidence) -> Iterator[Finding]:
    """Every outcome that a cause reaches is undone once; until then it is owed, and says so."""
    for kept, step, undo in _undos(evidence):
        for flow, rows in _by_flow(evidence, kept, step.name, undo.name).items():
            causes = [row for row in rows if row.handler == undo.name and row.status == "done"]
            steps = [row for row in rows if row.handler == step.name]
            for row in steps:
                reached = any(one.subject in (None, row.subject) for one in causes)
                if row.undo == "owed":
                    given_up = any(
                        one.status == "parked" for one in rows if one.handler == undo.name
                    )
                    yield _owed(evidence, kept, row, undo, given_up=given_up)
                elif reached and row.status == "done" and row.undo is None and _taken(undo, row):
                    yield Finding(
                        "not undone",
                        f"{undo.name} has not taken back what it announced, though its cause came",
                        flow=flow,
                        message=row.message_id,
                        handler=f"{kept.service.name}.{step.name}",
                    )
            yield from _counted(evidence, kept, undo, evidence.flows[flow], steps)


def _owed(
    evidence: Evidence, kept: Kept, row: Row, undo: Handler[..., Any], *, given_up: bool
) -> Finding:
    """An undo that is still to come: it is due, or waits for its step, or for a person.

    `given_up`: its cause is, or was, a dead letter.
    """
    planned = kept.planned.get(("undo", undo.name, row.message_id))
    letter = (kept.service.name, undo.name, row.message_id) in evidence.given_up
    parked = given_up or letter or row.status == "parked" or (planned and planned.attempts > 0)
    severity, what = evidence.unless_settled, "its undo is owed"
    if planned is None:
        severity, what = Severity.WRONG, f"{what}, and nothing will bring it"
    elif parked and planned.at is None:
        severity, what = Severity.NOTED, f"{what}, and waits for a person"
    elif planned.at is None and row.status == "done":
        severity, what = Severity.WRONG, f"{what}, and waits for an outcome that is there"
    return Finding(
        "owed",
        what,
        flow=row.flow,
        message=row.message_id,
        handler=f"{kept.service.name}.{undo.name}",
        severity=severity,
        look=f"choreo dead list --service {kept.service.name}",
    )


def _counted(
    evidence: Evidence, kept: Kept, undo: Handler[..., Any], flow: Trace, steps: list[Row]
) -> Iterator[Finding]:
    """An undo that always says one thing has said it once for each outcome that is undone."""
    if not is_counted(undo):
        return
    source = f"/{kept.service.name}/{undo.name}"
    said = [one for one in flow.announced if one.envelope.source == source]
    done = [row for row in steps if row.undo == "done"]
    right = sum(_taken(undo, row) for row in done)
    handler = f"{kept.service.name}.{undo.name}"
    if len(said) > right:
        ids = ", ".join(one.id for one in said)
        what = f"undid {right} outcomes and announced it {len(said)} times: {ids}"
        yield Finding("doubled", what, flow=flow.id, handler=handler)
    elif len(said) < right and not evidence.is_young(flow.last):
        lacking = f"{right - len(said)} are neither in the journal nor in the outbox"
        what = f"undid {right} outcomes, of which {lacking}"
        yield Finding("lost", what, flow=flow.id, handler=handler)


def is_counted(undo: Handler[..., Any]) -> bool:
    """Whether what an undo announces is counted by the outcomes that it has taken back."""
    returns = undo.signature.returns
    is_one = not returns.none and not returns.several
    return is_one and all(issubclass(one, Event) for one in returns.single)


def stopped(evidence: Evidence) -> Iterator[Finding]:
    """What ends or undoes a step keeps it from running, from then on and for good."""
    for kept in evidence.kept.values():
        for step in kept.service.steps:
            undo = step.taken_back_by
            if undo is not None:
                yield from _buried(evidence, kept, step, undo.name)
            if step.unless:
                yield from _buried(evidence, kept, step, f"{step.name}.unless")
                yield from _ran_after(evidence, kept, step)
        for deadline in kept.service.deadlines:
            if deadline.conductor is None:
                yield from _buried(evidence, kept, deadline, f"{deadline.name}.until")


def _buried(
    evidence: Evidence, kept: Kept, handler: Handler[..., Any], key: str
) -> Iterator[Finding]:
    for flow, rows in _by_flow(evidence, kept, key).items():
        for row in rows:
            if row.status == "done" and not kept.is_buried(flow, handler.name, row.subject):
                yield Finding(
                    "not stopped",
                    f"{key} took this message, and nothing keeps {handler.name} from running",
                    flow=flow,
                    message=row.message_id,
                    handler=f"{kept.service.name}.{handler.name}",
                )


def _ran_after(evidence: Evidence, kept: Kept, step: Step[..., Any]) -> Iterator[Finding]:
    """A `def` step ran though what stops it was there; an outside call may have begun before."""
    key = f"{step.name}.unless"
    if step.is_async:
        return
    for flow, rows in _by_flow(evidence, kept, key, step.name).items():
        stops = [row for row in rows if row.handler == key]
        for row in rows:
            if row.handler == step.name and row.status == "done":
                for stop in stops:
                    if stop.subject in (None, row.subject) and stop.at < row.at:
                        yield Finding(
                            "not stopped",
                            f"ran after {stop.message_id}, which should have kept it from running",
                            flow=flow,
                            message=row.message_id,
                            handler=f"{kept.service.name}.{step.name}",
                        )


def deadlines(evidence: Evidence) -> Iterator[Finding]:
    """A deadline that was armed is due, was ended, or has run."""
    for kept in evidence.kept.values():
        for deadline in kept.service.deadlines:
            if deadline.conductor is None:
                for flow, message, subject, at in _armed(evidence, kept, deadline):
                    if _is_gone(evidence, kept, deadline, (flow, message, subject, at)):
                        yield Finding(
                            "deadline lost",
                            "it was armed, and is neither due nor ended, and has not run",
                            flow=flow,
                            message=message,
                            handler=f"{kept.service.name}.{deadline.name}",
                        )
        for row in kept.due:
            if row.kind == "deadline" and row.flow in evidence.judged:
                is_over = row.at is not None and not evidence.is_young(row.at + _CLOCKS_S)
                is_over = is_over and row.at < evidence.began
                yield Finding(
                    "deadline",
                    "its time is up, and it has not run" if is_over else "it is armed",
                    flow=row.flow,
                    message=row.message_id,
                    handler=f"{kept.service.name}.{row.handler}",
                    severity=evidence.unless_settled if is_over else Severity.OPEN,
                )


Armed = tuple[str, str, str | None, float]


def _armed(evidence: Evidence, kept: Kept, deadline: Deadline[..., Any]) -> Iterator[Armed]:
    """What armed it: flow, message, subject, and when. One's own events leave no row."""
    for rows in _by_flow(evidence, kept, f"{deadline.name}.arm").values():
        yield from ((row.flow, row.message_id, row.subject, row.at) for row in rows)
    own = _wire_types(deadline.signature.consumes) & _wire_types(kept.service.published)
    for flow in evidence.judged.values() if own else ():
        for one in flow.announced:
            if one.envelope.type in own and one.envelope.service == kept.service.name:
                yield flow.id, one.id, one.envelope.subject, one.at


def _is_gone(evidence: Evidence, kept: Kept, deadline: Deadline[..., Any], armed: Armed) -> bool:
    flow, message, subject, at = armed
    source = f"/{kept.service.name}/{deadline.name}"
    if (
        evidence.is_young(at)
        or ("deadline", deadline.name, message) in kept.planned
        or (kept.service.name, deadline.name, message) in evidence.given_up
        or kept.is_buried(flow, deadline.name, subject)
        or (message, source) in evidence.answers
    ):
        return False
    is_over = at + deadline.within.total_seconds() < evidence.began + _CLOCKS_S
    speaks = not deadline.signature.may_be_silent and all(
        issubclass(one, Event) for one in deadline.signature.publishes
    )
    # One that has run in silence leaves no trace.
    return speaks or not is_over


def _undos(evidence: Evidence) -> Iterator[tuple[Kept, Step[..., Any], Handler[..., Any]]]:
    for kept in evidence.kept.values():
        for step in kept.service.steps:
            if step.taken_back_by is not None:
                yield kept, step, step.taken_back_by


def _by_flow(evidence: Evidence, kept: Kept, *keys: str) -> dict[str, list[Row]]:
    """What the inbox holds under these keys, in the flows that are judged."""
    found: dict[str, list[Row]] = defaultdict(list)
    for key in keys:
        for row in kept.by_handler.get(key, ()):
            if row.flow in evidence.judged:
                found[row.flow].append(row)
    return found


def _taken(undo: Handler[..., Any], row: Row) -> int:
    """How many of a step's outcomes its undo takes back."""
    wanted = _wire_types(undo.signature.outcomes)
    announced = Counter(kind for kind, _ in json.loads(row.outcome or "[]"))
    return sum(many for kind, many in announced.items() if kind in wanted)


def _wire_types(kinds: tuple[MessageType, ...]) -> set[str]:
    return {kind.__address__.wire_type for kind in kinds}
