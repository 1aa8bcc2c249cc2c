"""`choreo dead`: look at what the services could do nothing more with, and send it back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import sqlalchemy as sa
import typer
from rich.table import Table

from choreo import discovery
from choreo.cli import frame
from choreo.dead import send_back
from choreo.envelope import timestamp
from choreo.settings import Settings
from choreo.store.database import opened
from choreo.store.memory import Row
from choreo.store.tables import dead

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

_SHORTEST_ID = 8
OneService = Annotated[
    str | None, typer.Option("--service", help="Letters of this service alone.", metavar="NAME")
]
WithReason = Annotated[
    str | None, typer.Option("--reason", help="Letters whose reason contains this.", metavar="TEXT")
]


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and the service that keeps it."""

    service: str
    row: Row

    @property
    def id(self) -> str:
        """What `show` and `retry` call it by."""
        identifier: str = self.row["id"]
        return identifier

    @property
    def handler(self) -> str:
        """Who could not take it; the service alone if it was refused before any handler."""
        return f"{self.service}.{self.row['handler']}".rstrip(".")

    @property
    def came(self) -> dict[str, Any]:
        """Everything about the delivery but its body."""
        found: dict[str, Any] = json.loads(self.row["properties"])
        return found

    def summary(self) -> dict[str, Any]:
        """What a list says of it."""
        row = self.row
        names = ("handler", "message_id", "flow", "subject", "reason", "attempts")
        return {
            "id": self.id,
            "service": self.service,
            "type": self.came["type"],
            **{name: row[name] for name in names},
            "first_failed": timestamp(row["first_failed"]),
            "last_failed": timestamp(row["last_failed"]),
        }


@app.command("list", epilog="Example: choreo dead list --service inventory --reason 'KeyError'")
def list_letters(
    service: OneService = None,
    reason: WithReason = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the dead letters of all services, the oldest first."""
    every = _letters(frame.prepare(), service)
    letters = _with_reason(every, reason)
    if as_json:
        print(json.dumps([one.summary() for one in letters], indent=2))
        return
    if not letters:
        print("no dead letters")
        return
    table = Table("id", "service", "handler", "type", "reason", "attempts", "when")
    length = _enough(every)
    for one in letters:
        row = one.row
        table.add_row(
            one.id[:length], one.service, row["handler"], one.came["type"],
            row["reason"].partition("\n")[0], str(row["attempts"]), timestamp(row["last_failed"]),
        )  # fmt: skip
    frame.console().print(table)


@app.command(epilog="Example: choreo dead show 01a1f81d")
def show(
    letter: Annotated[str, typer.Argument(help="Its id, or how that begins.", metavar="ID")],
) -> None:
    """Show everything about a dead letter: reason, traceback, properties and body."""
    found = _find(_letters(frame.prepare(), None), letter)
    came = found.came
    for name, value in found.summary().items():
        print(f"{name.replace('_', ' '):13} {'' if value is None else value}")
    print(f"\nproperties\n{json.dumps(came, indent=2, ensure_ascii=False)}")
    body = bytes(found.row["body"])
    print(f"\nbody ({len(body)} bytes)\n{_readable(body)}")
    if found.row["error"]:
        print(f"\ntraceback\n{found.row['error'].rstrip()}")


@app.command(epilog="Example: choreo dead retry --all --service payments --reason 'timed out'")
def retry(
    letters: Annotated[
        list[str] | None, typer.Argument(help="Ids, or how they begin.", metavar="ID")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All that the filters let through.")] = False,
    service: OneService = None,
    reason: WithReason = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be sent back.")
    ] = False,
) -> None:
    """Send dead letters back to the handlers that could not take them; nobody else sees them.

    A service that runs takes them within seconds, any other at its next start.
    """
    if bool(letters) == every:
        raise typer.BadParameter("name letters, or choose with --all (and filters)")
    settings = frame.prepare()
    found = _letters(settings, service)
    length = _enough(found)
    chosen = _with_reason(found, reason)
    if letters:
        chosen = list({one.id: one for one in (_find(chosen, id_) for id_ in letters)}.values())
    sent = chosen if dry_run else _send_back(settings, chosen)
    for one in sent:
        verb = "would send back" if dry_run else "sent back"
        print(f"{verb} {one.id[:length]} to {one.handler}: {one.came['type']}")
    if not sent:
        print("no dead letters")


def _letters(settings: Settings, only: str | None) -> list[Letter]:
    """The letters of all services, or of one, the oldest first."""
    services = [discovery.service(settings, only)] if only else discovery.services(settings)
    found: list[Letter] = []
    for service in services:
        with opened(service.name, settings) as there:
            if there is not None:
                rows = there[0].execute(sa.select(dead)).mappings()
                found.extend(Letter(service.name, dict(row)) for row in rows)
    return sorted(found, key=lambda one: (one.row["last_failed"], one.id))


def _with_reason(letters: Iterable[Letter], reason: str | None) -> list[Letter]:
    return [one for one in letters if reason is None or reason in one.row["reason"]]


def _find(letters: Iterable[Letter], wanted: str) -> Letter:
    found = [one for one in letters if one.id.startswith(wanted)]
    if not found:
        frame.refuse(f"no dead letter {wanted}: 'choreo dead list' names them")
    if len(found) > 1:
        frame.refuse(f"{len(found)} dead letters begin with {wanted}: give more of the id")
    return found[0]


def _send_back(settings: Settings, letters: Sequence[Letter]) -> list[Letter]:
    """Send letters back, those of one service in one transaction; gives those still there."""
    sent: list[Letter] = []
    for service in dict.fromkeys(one.service for one in letters):
        with opened(service, settings) as there:
            if there is None:
                continue
            db, now = there
            for one in letters:
                still = sa.select(dead.c.id).where(dead.c.id == one.id)
                if one.service == service and db.execute(still).first() is not None:
                    send_back(db, one.row, now)
                    sent.append(one)
    return sent


def _enough(letters: Sequence[Letter]) -> int:
    """How much of an id tells the letters apart."""
    length = _SHORTEST_ID
    while len({one.id[:length] for one in letters}) < len(letters):
        length += 1
    return length


def _readable(body: bytes) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return body.decode(errors="backslashreplace")
