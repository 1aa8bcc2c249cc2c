"""`choreo check`: what can be proved of the choreography before it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from choreo import discovery
from choreo.check import Choreography, Finding, Happening, Report
from choreo.check import check as checked
from choreo.check.explore import MOST
from choreo.cli import frame
from choreo.errors import CannotRunError

_NOTHING = (
    "nothing found: no run breaks a rule, if each handler does what its signature says; "
    "whether it does, choreo rehearse tries"
)


def check(
    flows: Annotated[
        list[str] | None, typer.Argument(metavar="FLOW", help="Only these; else all of them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Prove what can be proved of the choreography, by its signatures and declared flows alone.

    Every run of every flow is followed: whatever each handler may return, in any order of
    deliveries, with every deadline that may be up. What is wrong is shown with the shortest run
    that leads there. No broker and no database is asked, and no handler runs.
    """
    choreography = Choreography.of(frame.prepare())
    known = {one.name: one for one in choreography.flows}
    chosen = [discovery.named("flow", one, known) for one in dict.fromkeys(flows or ())] or None
    with _shown() as tell:
        report = checked(choreography, chosen, tell)
    if as_json:
        print(json.dumps(_as_json(report), indent=2, ensure_ascii=False))
    else:
        _print(report, choreography)
    if report.too_large:
        raise CannotRunError(
            f"flow {', '.join(report.too_large)}: there are more than {MOST:,} states, "
            "and not every run was followed; part it into smaller flows"
        )
    if report.findings:
        raise typer.Exit(frame.FOUND_SOMETHING)


@contextmanager
def _shown() -> Iterator[Any]:
    """On a terminal: which flow is explored, and how far."""
    console = Console(stderr=True)
    with console.status("checking") as status:
        yield lambda flow, states: status.update(f"{flow}: {states:,} states")


def _print(report: Report, choreography: Choreography) -> None:
    console = frame.console()
    for finding in report.findings:
        console.print(_tree(finding), "")
    if report.explored:
        console.print(_explored(report))
    if report.never_reached:
        console.print("No flow comes to", ", ".join(report.never_reached))
    if not choreography.flows:
        console.print("No flow is declared, so only the signatures were checked.")
    found = len(report.findings)
    if found or not report.too_large:
        console.print(f"{found} finding{'' if found == 1 else 's'}" if found else _NOTHING)


def _tree(finding: Finding) -> Tree:
    flow = f"{finding.flow}: " if finding.flow else ""
    head = Text.assemble((f"{finding.rule}  ", "bold red"), f"{flow}{finding.what}")
    tree = Tree(head, guide_style="dim")
    tree.add(Text(_near(finding.place), "cyan"))
    tree.add(Text(finding.do, "green"))
    if finding.trace:
        run = tree.add("the shortest run that shows it")
        for number, one in enumerate(finding.trace, 1):
            run.add(f"{number}. {_told(one)}")
    return tree


def _told(one: Happening) -> str:
    about = f"[{one.about}]" if one.about > 0 else ""
    outcome = one.note or (", ".join(_short(kind) for kind in one.outcome) or "nothing")
    if one.do == "start":
        return f"{_short(one.type)} starts it"
    if one.do == "lost":
        return f"{_short(one.type)}{about} to {one.to}, which is never answered"
    if one.do == "deadline":
        return f"time is up: {one.to} -> {outcome}"
    does = "" if one.role in ("step", "undo", "conduct") else f" ({one.role})"
    return f"{_short(one.type)}{about} to {one.to}{does} -> {outcome}"


def _short(wire_type: str) -> str:
    return wire_type.removesuffix(".v1")


def _near(place: str) -> str:
    """A place relative to the working folder, if it is in it."""
    here = f"{Path.cwd()}/"
    return place.removeprefix(here)


def _explored(report: Report) -> Table:
    table = Table("flow", "ends", "states", "transitions", "seconds")
    for one in report.explored:
        ends = ", ".join(sorted(one.ends))
        table.add_row(
            one.flow, ends, f"{one.states:,}", f"{one.transitions:,}", f"{one.seconds:.2f}"
        )
    return table


def _as_json(report: Report) -> dict[str, Any]:
    def finding(one: Finding) -> dict[str, Any]:
        return {
            "rule": one.rule,
            "flow": one.flow,
            "what": one.what,
            "do": one.do,
            "place": _near(one.place),
            "trace": [asdict(step) for step in one.trace],
        }

    explored: Sequence[dict[str, Any]] = [
        {
            "flow": one.flow,
            "states": one.states,
            "transitions": one.transitions,
            "ends": one.ends,
            "seconds": round(one.seconds, 3),
            "whole": one.is_whole,
        }
        for one in report.explored
    ]
    return {
        "findings": [finding(one) for one in report.findings],
        "explored": explored,
        "never_reached": report.never_reached,
    }
