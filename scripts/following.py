"""Sends commands for a person: follows them, with a bar where there are many, and shows the ends.

Exit code 1: a flow did not end, a message of it became a dead letter, or nobody hears the command.
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import sending
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from choreo import Service, discovery
from choreo.cli import frame
from choreo.follow import following, owed
from choreo.process import amqp_url
from choreo.settings import Settings
from choreo.terminal import shown
from choreo.tree import Flow, after_ms

#: Of many flows that did not end, so many are shown whole.
_SHOWN = 3


def follow(
    chains: Sequence[sending.Chain], what: str, *, script: str, timeout_s: float, as_json: bool
) -> None:
    """Carry out the commands in the running system and show what came of it.

    `what` is what the flows are about, in the plural.
    """
    settings = frame.prepare()
    services = discovery.services(settings)
    try:
        found = asyncio.run(_carry_out(settings, services, chains, what, timeout_s))
    except sending.NobodyHearsError as error:
        print(f"{script}: {error}", file=sys.stderr)
        raise typer.Exit(frame.FOUND_SOMETHING) from None
    if as_json:
        print(json.dumps(_as_json(found, services, what)))
    else:
        _show(found, services, what, timeout_s, whole=len(chains) == 1)
    if any(map(_is_remarkable, found)):
        raise typer.Exit(frame.FOUND_SOMETHING)


async def _carry_out(
    settings: Settings,
    services: Sequence[Service],
    chains: Sequence[sending.Chain],
    what: str,
    timeout_s: float,
) -> list[Flow]:
    bar = Progress(console=Console(stderr=True), disable=len(chains) == 1, transient=True)
    async with following(amqp_url(settings)) as follower, frame.broker(settings) as broker:
        with bar:
            task = bar.add_task(f"{what} ended", total=sum(map(len, chains)))
            return await sending.Sender(broker, follower, services).carry_out(
                chains,
                within_s=timeout_s,
                on_ended=lambda many: bar.advance(task, many),
            )


def _show(
    found: Sequence[Flow], services: Sequence[Service], what: str, timeout_s: float, *, whole: bool
) -> None:
    console = frame.console()
    for flow in found if whole else list(filter(_is_remarkable, found))[:_SHOWN]:
        console.print(flow.as_tree())
        console.print(_verdict(flow, timeout_s))
        for one in _missing(flow, services):
            console.print(Text(f"  {one}", style="red"))
    if not whole:
        table = Table("outcome", what, "median ms", "99th ms")
        for outcome, figures in _summary(found, what).items():
            table.add_row(outcome, *(str(value) for value in figures.values()))
        console.print(table)


def _verdict(flow: Flow, timeout_s: float) -> Text:
    if sending.end_of(flow) is None:
        return Text(f"no end within {timeout_s:g} s", style="bold red")
    reason = sending.reason_of(flow)
    why = f": {shown(reason)}" if reason else ""
    return Text(f"{sending.outcome_of(flow)} after {_end_ms(flow)} ms{why}", style="bold")


def _missing(flow: Flow, services: Sequence[Service]) -> list[str]:
    """Who kept an open flow from its end; of an ended one, what was not done in time."""
    certain = owed(flow, services)
    if certain or sending.end_of(flow) is not None:
        return certain
    return owed(flow, services, certain=False)


def _summary(found: Sequence[Flow], what: str) -> dict[str, dict[str, Any]]:
    """For each outcome: how many, and the median and the 99th time to the end."""
    times: dict[str, list[int | None]] = {}
    for flow in found:
        times.setdefault(sending.outcome_of(flow), []).append(_end_ms(flow))
    summary: dict[str, dict[str, Any]] = {}
    for outcome, every in sorted(times.items()):
        known = sorted(one for one in every if one is not None)
        summary[outcome] = {
            what: len(every),
            "median_ms": statistics.median_low(known) if known else None,
            "p99_ms": known[math.ceil(len(known) * 0.99) - 1] if known else None,
        }
    return summary


def _as_json(found: Sequence[Flow], services: Sequence[Service], what: str) -> dict[str, Any]:
    return {
        "outcomes": _summary(found, what),
        what: [
            {
                "outcome": sending.outcome_of(flow),
                "reason": sending.reason_of(flow),
                "after_ms": _end_ms(flow),
                "missing": _missing(flow, services),
                **flow.as_json(),
            }
            for flow in found
        ],
    }


def _end_ms(flow: Flow) -> int | None:
    end = sending.end_of(flow)
    return None if end is None else after_ms(end, flow.began)


def _is_remarkable(flow: Flow) -> bool:
    """Whether it did not end, or a message of it became a dead letter."""
    return sending.end_of(flow) is None or any(one.gave_up for one in flow.entries.values())
