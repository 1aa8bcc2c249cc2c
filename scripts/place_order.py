"""Places test orders in a running system and follows each to its end."""

from __future__ import annotations

import asyncio
import json
import math
import random
import statistics
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import ordering
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from choreo import CannotRunError, DefinitionError, Service, discovery
from choreo.cli import frame
from choreo.follow import following, owed
from choreo.identity import Ids
from choreo.process import CANNOT_RUN, amqp_url
from choreo.seams import SystemClock
from choreo.settings import Settings
from choreo.tree import Flow, after_ms, shown
from contracts.orders import PlaceOrder

#: Of many orders that did not end, so many are shown whole.
_SHOWN = 3


def main(
    *,
    sku: Annotated[str, typer.Option(help="TEA-1, MUG-1, BOOK-1, or RARE-1 (3 of it).")] = "TEA-1",
    quantity: Annotated[int, typer.Option(help="How many of it.")] = 1,
    card: Annotated[str, typer.Option(help="4000-0002 is declined.")] = "4242-4242",
    member: Annotated[bool, typer.Option("--member", help="The customer gets points.")] = False,
    address: Annotated[str, typer.Option(help="'nowhere' cannot be reached.")] = "1 Main Street",
    email: Annotated[str, typer.Option(help="Where mails go to.")] = "customer@example.com",
    count: Annotated[int, typer.Option(min=1, help="Place so many such orders at once.")] = 1,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the end.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Place a test order in a running system ('choreo up') and follow it to its end.

    More cards and addresses: python -m sandboxes.gateway --help, and sandboxes.carrier.

    Exit code 0: every order came to an end. 1: one did not, or a message of it became a dead
    letter. 2: an option is wrong, or there is no broker.
    """
    ids = Ids(SystemClock(), random.SystemRandom())
    try:
        orders = [
            ordering.order(
                ids, sku, quantity, card=card, member=member, address=address, email=email
            )
            for _ in range(count)
        ]
    except ValidationError as error:
        what = "; ".join(f"--{one['loc'][-1]}: {one['msg']}" for one in error.errors())
        raise CannotRunError(what) from error
    settings = frame.prepare()
    services = discovery.services(settings)
    try:
        flows = asyncio.run(_follow(settings, services, ids, orders, timeout))
    except ordering.NobodyHearsError as error:
        print(f"place-order: {error}", file=sys.stderr)
        raise typer.Exit(frame.FOUND_SOMETHING) from None
    if as_json:
        print(json.dumps(_as_json(flows, services)))
    else:
        _show(flows, services, timeout)
    if any(ordering.end_of(flow) is None or _has_dead_letter(flow) for flow in flows):
        raise typer.Exit(frame.FOUND_SOMETHING)


async def _follow(
    settings: Settings,
    services: Sequence[Service],
    ids: Ids,
    orders: Sequence[PlaceOrder],
    timeout_s: float,
) -> list[Flow]:
    """Place the orders and wait for their ends, with a bar where there are many of them."""
    bar = Progress(console=Console(stderr=True), disable=len(orders) == 1, transient=True)
    async with following(amqp_url(settings)) as follower, frame.broker(settings) as broker:
        flows = await ordering.place(broker, follower, ids, orders)
        with bar:
            task = bar.add_task("orders ended", total=len(orders))
            await ordering.ended(
                follower,
                flows,
                services,
                within_s=timeout_s,
                on_ended=lambda many: bar.update(task, completed=many),
            )
    return flows


def _show(flows: Sequence[Flow], services: Sequence[Service], timeout_s: float) -> None:
    console = frame.console()
    remarkable = [flow for flow in flows if ordering.end_of(flow) is None or _has_dead_letter(flow)]
    for flow in flows if len(flows) == 1 else remarkable[:_SHOWN]:
        console.print(flow.as_tree())
        console.print(_verdict(flow, timeout_s))
        for one in _missing(flow, services):
            console.print(Text(f"  {one}", style="red"))
    if len(flows) > 1:
        table = Table("outcome", "orders", "median ms", "99th ms")
        for outcome, found in _summary(flows).items():
            table.add_row(outcome, *(str(value) for value in found.values()))
        console.print(table)


def _verdict(flow: Flow, timeout_s: float) -> Text:
    if ordering.end_of(flow) is None:
        return Text(f"no end within {timeout_s:g} s", style="bold red")
    reason = ordering.reason_of(flow)
    why = f": {shown(reason)}" if reason else ""
    return Text(f"{ordering.outcome_of(flow)} after {_end_ms(flow)} ms{why}", style="bold")


def _missing(flow: Flow, services: Sequence[Service]) -> list[str]:
    """Who kept an open order from its end; of an ended one, what was not done in time."""
    certain = owed(flow, services)
    if certain or ordering.end_of(flow) is not None:
        return certain
    return owed(flow, services, certain=False)


def _summary(flows: Sequence[Flow]) -> dict[str, dict[str, Any]]:
    """For each outcome: how many, and the median and the 99th time to the end."""
    times: dict[str, list[int | None]] = {}
    for flow in flows:
        times.setdefault(ordering.outcome_of(flow), []).append(_end_ms(flow))
    found: dict[str, dict[str, Any]] = {}
    for outcome, every in sorted(times.items()):
        known = sorted(one for one in every if one is not None)
        found[outcome] = {
            "orders": len(every),
            "median_ms": statistics.median_low(known) if known else None,
            "p99_ms": known[math.ceil(len(known) * 0.99) - 1] if known else None,
        }
    return found


def _as_json(flows: Sequence[Flow], services: Sequence[Service]) -> dict[str, Any]:
    return {
        "outcomes": _summary(flows),
        "orders": [
            {
                "outcome": ordering.outcome_of(flow),
                "reason": ordering.reason_of(flow),
                "after_ms": _end_ms(flow),
                "missing": _missing(flow, services),
                **flow.as_json(),
            }
            for flow in flows
        ],
    }


def _end_ms(flow: Flow) -> int | None:
    end = ordering.end_of(flow)
    return None if end is None else after_ms(end, flow.began)


def _has_dead_letter(flow: Flow) -> bool:
    return any(one.gave_up for one in flow.entries.values())


if __name__ == "__main__":
    app = typer.Typer(
        add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False
    )
    app.command()(main)
    try:
        app(prog_name="scripts/place-order")
    except (CannotRunError, DefinitionError) as error:
        print(f"place-order: {error}", file=sys.stderr)
        sys.exit(CANNOT_RUN)
