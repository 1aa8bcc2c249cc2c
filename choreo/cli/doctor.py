"""`choreo doctor`: whether all is well, and if not, what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from choreo.cli import frame
from choreo.doctor import Facts, Finding, Stale, State, examine, look, prune, stale
from choreo.errors import CannotRunError
from choreo.terminal import escaped

_STYLES = {State.OK: "green", State.WRONG: "bold red", State.UNKNOWN: "yellow"}


def doctor(
    prune_stale: Annotated[
        bool, typer.Option("--prune", help="Show which bindings and queues are proven stale.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --prune: delete them.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Look at the broker, the queues and every database, and say what is wrong.

    It changes nothing, unless --prune --yes. What it cannot see from here is "not checked", and
    is not counted as wrong. Prune from what is deployed: a binding is stale by these signatures.
    """
    if yes and not prune_stale:
        raise typer.BadParameter("--yes says what --prune may do: give both")
    facts = look(frame.prepare())
    found = _prune(facts, yes) if prune_stale else []
    if yes and found:
        facts = look(facts.settings)
    report = list(examine(facts))
    is_wrong = any(finding.state is State.WRONG for _, finding in report)
    if as_json:
        _print_json(report, found if prune_stale else None, deleted=yes)
    else:
        frame.console().print(_table(report))
        for one in found:
            print(escaped(f"{'deleted' if yes else 'would delete'}: {one}"))
        if prune_stale and not found:
            print("nothing is proven stale")
    if is_wrong:
        raise typer.Exit(frame.FOUND_SOMETHING)


def _prune(facts: Facts, yes: bool) -> list[Stale]:
    if isinstance(facts.management, str):
        raise CannotRunError(f"--prune needs the management API: {facts.management}")
    return prune(facts) if yes else stale(facts)


def _table(report: Sequence[tuple[str, Finding]]) -> Table:
    table = Table("check", "", "about", "found", "what to do")
    last = None
    for name, finding in report:
        table.add_row(
            "" if name == last else name,
            Text(finding.state, _STYLES[finding.state]),
            finding.about, finding.what, finding.do,
        )  # fmt: skip
        last = name
    return table


def _print_json(
    report: Sequence[tuple[str, Finding]], found: Sequence[Stale] | None, *, deleted: bool
) -> None:
    said: dict[str, object] = {
        "findings": [{"check": name, **asdict(finding)} for name, finding in report]
    }
    if found is not None:
        said["deleted" if deleted else "stale"] = [
            {"queue": one.queue, "exchange": one.exchange, "routing_key": one.routing_key}
            for one in found
        ]
    print(escaped(json.dumps(said, indent=2, ensure_ascii=False)))
