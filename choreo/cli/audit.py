"""`choreo audit`: hold what every service and the journal keep against what was promised."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from choreo import audit, discovery
from choreo.audit import Finding, Severity, Verdict
from choreo.cli import frame
from choreo.process import amqp_url
from choreo.terminal import escaped

#: So many findings of a kind are for a person to read.
_SHOWN = 20
_COLOURS = {Severity.WRONG: "bold red", Severity.NOTED: "yellow", Severity.OPEN: "dim"}


def run_audit(
    flow: Annotated[
        str | None, typer.Option("--flow", help="This flow alone: its id, or how that ends.")
    ] = None,
    settled: Annotated[
        bool,
        typer.Option("--settled", help="All is at rest: what is still under way is wrong."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Audit every flow that the journal holds whole: nothing lost, nothing twice, nothing stuck.

    It reads the services' databases and the journal and changes nothing; the services may run
    meanwhile. Exit code 1 if a promise was broken; what is under way, or waits as a dead letter,
    is named.
    """
    settings = frame.prepare()
    services = discovery.services(settings)
    checks = [
        audit.ends(discovery.flows(settings)),
        *audit.project_audits(settings.audits),
    ]
    is_watched = sys.stderr.isatty()
    with Progress(console=Console(stderr=True), transient=True, disable=not is_watched) as bar:
        task = bar.add_task("reading the journal", total=None)
        evidence = asyncio.run(
            audit.gather(
                settings,
                amqp_url(settings),
                services,
                is_settled=settled,
                only=flow,
                progress=lambda done, of: bar.update(task, completed=done, total=of),
            )
        )
        bar.update(task, description="judging", total=None)
        verdict = audit.judge(evidence, checks)
    if flow is not None and not verdict.judged:
        frame.refuse(f"no flow {flow} that could be judged: 'choreo watch {flow}' shows it")
    if as_json:
        print(escaped(json.dumps(verdict.as_json(), indent=2, ensure_ascii=False)))
    else:
        _print(verdict, alone=flow is not None)
    if verdict.wrong:
        raise typer.Exit(frame.FOUND_SOMETHING)


def _print(verdict: Verdict, *, alone: bool) -> None:
    console = frame.console()
    for severity in Severity:
        found = verdict.of(severity)
        for one in found[:_SHOWN]:
            _print_finding(console, one)
        if len(found) > _SHOWN:
            console.print(f"and {len(found) - _SHOWN} more of these: --json has all")
    console.print(
        f"{verdict.judged} flows, {verdict.messages} messages, {verdict.effects} effects: "
        + ", ".join(f"{len(verdict.of(one))} {one.value}" for one in Severity)
    )
    if (left := verdict.flows - verdict.judged) and not alone:
        console.print(f"{left} flows began before the journal does, and were not judged")
    if verdict.absent:
        console.print(f"never ran here, and not judged: {', '.join(verdict.absent)}")


def _print_finding(console: Console, one: Finding) -> None:
    colour = _COLOURS[one.severity]
    console.print(f"{one.severity.value:6} {one}", style=colour, soft_wrap=True)
    where = [f"flow {one.flow}" if one.flow else "", one.look_at or ""]
    console.print(f"       {'; '.join(filter(None, where))}", soft_wrap=True)
