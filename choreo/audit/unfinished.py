"""Names what is unfinished: begun and waiting, parked as a dead letter, or awaited by a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from choreo.audit.evidence import Evidence, Kept, Row
from choreo.audit.finding import Finding, Severity

#: How a message stands that its handler is done with.
_FINAL = ("done", "cancelled", "parked")
#: The kind of what is due for a message that is not final yet.
_WAITS_IN = {"waiting": "retry", "started": "call"}
_OPEN_RUNS = ("running", "undoing")
_AWAITED = ("asked", "undoing")


def stuck(evidence: Evidence) -> Iterator[Finding]:
    """What a service has begun on is due, or nothing would go on with it."""
    for flow in evidence.judged.values():
        for kept, row in flow.inbox:
            kind = _WAITS_IN.get(row.status)
            if kind is None:
                continue
            planned = kept.planned.get((kind, row.handler, row.message_id))
            what, severity = f"is {row.status}", evidence.unless_settled
            if planned is None:
                what, severity = f"{what}, and nothing will go on with it", Severity.WRONG
            elif planned.attempts:
                what = f"{what}, after {planned.attempts} attempts: {planned.error}"
            yield Finding(
                "stuck" if planned is None else "under way",
                what,
                flow=flow.id,
                message=row.message_id,
                handler=f"{kept.service.name}.{row.handler}",
                severity=severity,
            )


def twice(evidence: Evidence) -> Iterator[Finding]:
    """What is due has not been done already."""
    for kept in evidence.kept.values():
        for row in kept.due:
            if row.kind in ("retry", "call") and row.handler and row.flow in evidence.judged:
                known = kept.known.get((row.message_id, row.handler))
                if known is None or known.status in _FINAL:
                    stands = known.status if known else "not in the inbox"
                    yield Finding(
                        "twice",
                        f"a {row.kind} is due, though the message is {stands}: it would run again",
                        flow=row.flow,
                        message=row.message_id,
                        handler=f"{kept.service.name}.{row.handler}",
                    )


def letters(evidence: Evidence) -> Iterator[Finding]:
    """Every dead letter, by name; those of a flow that is not judged as well."""
    for kept in evidence.kept.values():
        for row in kept.dead:
            yield Finding(
                "dead letter",
                row.reason.partition("\n")[0],
                flow=row.flow,
                message=row.message_id,
                handler=f"{kept.service.name}.{row.handler}".rstrip("."),
                severity=Severity.NOTED,
                look=f"choreo dead show {row.id}",
            )


def runs(evidence: Evidence) -> Iterator[Finding]:
    """Every run of a conductor has ended, with no answer awaited and nothing left to undo."""
    for kept in evidence.kept.values():
        tasks: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for task in kept.tasks:
            tasks[task.run, task.conductor].append(task)
        for run in kept.runs:
            if run.flow in evidence.judged:
                yield from _run(evidence, kept, run, tasks[run.run, run.conductor])


def _run(evidence: Evidence, kept: Kept, run: Row, tasks: list[Row]) -> Iterator[Finding]:
    conductor = kept.service.conductors.get(run.conductor)
    parts = {part.name: part for stage in conductor.stages for part in stage} if conductor else {}
    awaited = [task for task in tasks if task.status in _AWAITED]
    found: list[tuple[str, Severity]] = []
    if run.status in _OPEN_RUNS:
        waits = ", ".join(f"{one.step} {one.subject}".rstrip() for one in awaited)
        found.append((f"is {run.status}, and waits for {waits or 'nothing'}",
                      evidence.unless_settled if awaited else Severity.WRONG))  # fmt: skip
    elif awaited:
        steps = ", ".join(one.step for one in awaited)
        found.append((f"has {run.status}, though {steps} is not answered", Severity.WRONG))
    if run.status == "failed":
        found += [
            (f"has failed, and {task.step} {task.subject} is not taken back", Severity.WRONG)
            for task in tasks
            if task.status in ("done", "late")
            and task.step in parts
            and parts[task.step].undo is not None
        ]
    planned = {(row.handler, row.flow, row.subject or "") for row in kept.due
               if row.kind == "deadline"}  # fmt: skip
    late = {handler for service, handler, _ in evidence.given_up if service == kept.service.name}
    found += [
        (f"awaits {task.step} {task.subject} without a time limit", Severity.WRONG)
        for task in tasks
        if task.status == "asked"
        and (f"{task.step}_late", task.flow, task.subject) not in planned
        and f"{task.step}_late" not in late
    ]
    for what, severity in found:
        yield Finding(
            "run",
            what,
            flow=run.flow,
            message=run.run,
            handler=f"{kept.service.name}.{run.conductor}",
            severity=severity,
            look=f"choreo runs {run.flow} --all",
        )
