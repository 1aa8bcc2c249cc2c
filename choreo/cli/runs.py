"""`choreo runs`: how far the conductors are, and what they wait for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import sqlalchemy as sa
import typer
from rich.table import Table

from choreo import discovery
from choreo.cli import frame
from choreo.settings import Settings
from choreo.store import tables
from choreo.store.database import looked_at
from choreo.store.runs import RunStatus, TaskStatus
from choreo.terminal import escaped

_OPEN = (RunStatus.RUNNING.value, RunStatus.UNDOING.value)
_AWAITED = (TaskStatus.ASKED, TaskStatus.UNDOING)


def show_runs(
    about: Annotated[
        str | None,
        typer.Argument(help="Only runs about this subject, or in this flow.", metavar="SUBJECT"),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list, with every step of each.")
    ] = False,
) -> None:
    """List the runs of the conductors that are open: how each stands, and what it waits for."""
    found = [
        one
        for one in _runs(frame.prepare())
        if (every or one["status"] in _OPEN) and about in (None, one["subject"], one["flow"])
    ]
    if as_json:
        print(escaped(json.dumps(found, indent=2, ensure_ascii=False)))
        return
    if not found:
        print("no runs" if every else "no open runs")
        return
    table = Table("conductor", "subject", "flow", "status", "waits for", "failed at", "moved")
    for one in found:
        table.add_row(
            f"{one['service']}.{one['conductor']}", one["subject"], one["flow"], one["status"],
            ", ".join(one["waits_for"]), one["failed_at"], one["moved"],
        )  # fmt: skip
    frame.console().print(table)


def _runs(settings: Settings) -> Iterator[dict[str, Any]]:
    """Every run of every service that conducts, the oldest first."""
    for service in discovery.services(settings):
        if not any(one.conductor for one in service.handlers.values()):
            continue
        with looked_at(service.name, settings) as found:
            if found is None:
                continue
            db, _ = found
            runs = db.execute(sa.select(tables.runs).order_by(tables.runs.c.run)).mappings().all()
            tasks = db.execute(sa.select(tables.tasks).order_by(tables.tasks.c.number)).mappings()
            sent: dict[tuple[str, str], list[Any]] = {}
            for task in tasks:
                sent.setdefault((task["run"], task["conductor"]), []).append(task)
        for run in runs:
            steps = sent.get((run["run"], run["conductor"]), [])
            yield {
                "service": service.name,
                "conductor": run["conductor"],
                "subject": run["subject"],
                "flow": run["flow"],
                "status": run["status"],
                "waits_for": [
                    f"{one['step']} {one['subject']}" for one in steps if one["status"] in _AWAITED
                ],
                "failed_at": run["failed_step"],
                "moved": run["moved"],
                "steps": [
                    {name: one[name] for name in ("step", "subject", "status")} for one in steps
                ],
            }
