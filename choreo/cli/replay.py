"""`choreo replay`: sends events of the past to one service again."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from choreo import discovery
from choreo.cli import frame
from choreo.process import amqp_url
from choreo.replay import Tally, Wanted
from choreo.replay import replay as send_again
from choreo.settings import Settings

_AGO = re.compile(r"([0-9]+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_ALL = "all"
#: AMQP has no time before 1970, and a little earlier than from what is said the journal is read.
_OLDEST = datetime(1970, 1, 2, tzinfo=UTC)


def replay(
    *,
    to: Annotated[
        str, typer.Option(help="The service: its module, or its name alone.", metavar="SERVICE")
    ],
    since: Annotated[
        str,
        typer.Option(
            help="Events from then on: a date and time (local, unless it names a zone), an age "
            "(90s, 30m, 2h, 3d), or 'all'.",
            metavar="TIME",
        ),
    ],
    until: Annotated[
        str | None, typer.Option(help="Events before then, said alike.", metavar="TIME")
    ] = None,
    flow: Annotated[
        str, typer.Option(help="Events of this flow alone: its id, or how that ends.", metavar="ID")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be sent.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Send also what the service may have forgotten.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Send events from the journal to one service once more; nobody else sees them.

    The service's inbox knows an event by its id, and so each has its effect once however often it
    is sent: replay gives a service what it missed. What it may have forgotten since
    (CHOREO_RETENTION_DAYS) is refused. Commands are not in the journal and cannot be replayed.
    """
    settings = frame.prepare()
    service = discovery.service(settings, to)
    now = datetime.now(UTC)
    wanted = Wanted(
        service,
        since=None if since == _ALL else _time(since, now, "--since"),
        until=None if until is None else _time(until, now, "--until"),
        flow=flow,
        force=force,
    )
    tally = asyncio.run(_replay(settings, wanted, dry_run=dry_run))
    if as_json:
        print(json.dumps({"service": service.name, "dry_run": dry_run, **asdict(tally)}))
        return
    verb = "would send" if dry_run else "sent"
    print(f"{verb} {tally.sent} to {service.name}, of {tally.looked_at} in the journal looked at")
    if tally.unreadable:
        print(f"left out {tally.unreadable} that {service.name} cannot read")


async def _replay(settings: Settings, wanted: Wanted, *, dry_run: bool) -> Tally:
    async with frame.broker(settings) as broker:
        return await send_again(amqp_url(settings), settings, broker, wanted, dry_run=dry_run)


def _time(text: str, now: datetime, option: str) -> datetime:
    """A point in time, from how a person says it."""
    try:
        if ago := _AGO.fullmatch(text):
            found = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            # Without a zone it is that of this machine: `choreo watch` shows it, too.
            found = datetime.fromisoformat(text).astimezone()
        if found < _OLDEST:
            raise ValueError(text)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"{option} {text!r} is no time: like 2026-11-20T10:00, 2h or 'all'"
        ) from error
    return found
