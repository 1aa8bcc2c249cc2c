"""Forgets old flows whole: inbox, steps, tombstones and runs of one flow go together."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Connection, bindparam

from choreo.store.among import among
from choreo.store.runs import RunStatus
from choreo.store.tables import dead, due, inbox, runs, tasks, tombstones

_OLD = (
    sa.select(inbox.c.flow, inbox.c.at)
    .where(inbox.c.at > bindparam("after"), inbox.c.at < bindparam("before"))
    .order_by(inbox.c.at)
    .limit(bindparam("most"))
)
_OPEN = runs.c.status.in_((RunStatus.RUNNING.value, RunStatus.UNDOING.value))


def _of_flows(table: sa.Table) -> sa.ColumnElement[bool]:
    return among(table.c.flow, "flows")


#: Of some flows, those that are not over: something happened of late, or is to happen yet.
_KEPT = sa.union(
    sa.select(inbox.c.flow).where(_of_flows(inbox), inbox.c.at >= bindparam("before")),
    sa.select(due.c.flow).where(_of_flows(due)),
    sa.select(dead.c.flow).where(_of_flows(dead)),
    sa.select(runs.c.flow).where(_of_flows(runs), _OPEN),
)
_FORGET = [table.delete().where(_of_flows(table)) for table in (inbox, tombstones, tasks, runs)]


def prune(db: Connection, *, before: float, after: float, most: int) -> tuple[int, float | None]:
    """Forget flows that were over before that time; looks at `most` messages later than `after`.

    Gives how many flows were forgotten, and where to go on; None once it has looked at all.
    A flow with a dead letter, or anything else that may still happen, is kept.
    """
    rows = db.execute(_OLD, {"after": after, "before": before, "most": most}).all()
    flows = {row.flow for row in rows}
    if flows:
        given = {"flows": list(flows), "before": before}
        flows -= set(db.scalars(_KEPT, given))
    if flows:
        for statement in _FORGET:
            db.execute(statement, {"flows": list(flows)})
    return len(flows), rows[-1].at if len(rows) == most else None
