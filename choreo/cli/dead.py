"""`choreo dead`: look at what the services could do nothing more with, send it back, or drop it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import sqlalchemy as sa
import typer
from rich.table import Table

from choreo import discovery
from choreo.cli import frame
from choreo.dead import LONGEST_REASON, drop, is_owed, send_back
from choreo.envelope import timestamp
from choreo.service import Service
from choreo.settings import Settings
from choreo.store.database import looked_at, opened
from choreo.store.memory import Row
from choreo.store.tables import dead
from choreo.terminal import escaped, shown

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

_SHORTEST_ID = 8
_DAY_S = 86_400
#: What differs between letters of one error: how often it was tried, what is quoted, figures, ids.
_TRIED = re.compile(r"^failed (?:once|\d+ times), last with ")
_VARIES = re.compile(r"(?<!\w)'[^']*'|[\w.:@/+-]*(?<![A-Za-z])\d[\w.:@/+-]*")

#: The columns of a list, and what of a letter or group stands in them.
_OF_A_LETTER = {
    "id": "id", "service": "service", "handler": "handler", "type": "type", "reason": "reason",
    "attempts": "attempts", "when": "last_failed",
}  # fmt: skip
_OF_A_GROUP = {
    "letters": "count", "service": "service", "handler": "handler", "type": "type",
    "reason of the last": "reason", "first": "first_failed", "last": "last_failed",
}  # fmt: skip

Ids = Annotated[list[str] | None, typer.Argument(help="Ids, or how they begin.", metavar="ID")]
Every = Annotated[bool, typer.Option("--all", help="All that the filters let through.")]
OneService = Annotated[
    str | None, typer.Option("--service", help="Letters of this service alone.", metavar="NAME")
]
WithReason = Annotated[
    str | None, typer.Option("--reason", help="Letters whose reason contains this.", metavar="TEXT")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON list.")]


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and the service that keeps it."""

    keeper: Service
    row: Row

    @property
    def service(self) -> str:
        """The name of the service that keeps it."""
        return self.keeper.name

    @property
    def id(self) -> str:
        """What the commands call it by."""
        identifier: str = self.row["id"]
        return identifier

    @property
    def handler(self) -> str:
        """Who could not take it; the service alone if it was refused before any handler."""
        return f"{self.service}.{self.row['handler']}".rstrip(".")

    @property
    def error(self) -> str:
        """The reason without what makes it differ from those of its like."""
        reason = _TRIED.sub("", self.row["reason"])
        for known in (self.row["subject"], self.row["flow"], self.row["message_id"]):
            if known:
                reason = re.sub(rf"(?<!\w){re.escape(known)}(?!\w)", "*", reason)
        return _VARIES.sub("*", reason)

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
    group: Annotated[
        bool, typer.Option("--group", help="One line for each error, the most frequent first.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the dead letters of all services, the oldest first."""
    every = _letters(frame.prepare(), service)
    letters = _with_reason(every, reason)
    found = _groups(letters) if group else [one.summary() for one in letters]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    if not letters:
        print("no dead letters")
        return
    columns = _OF_A_GROUP if group else _OF_A_LETTER
    table, length = Table(*columns), _enough(every)
    for one in found:
        row = {**one, "id": one.get("id", "")[:length]}
        table.add_row(*(str(row[name] or "") for name in columns.values()))
    frame.console().print(table)


@app.command(epilog="Example: choreo dead show 01a1f81d")
def show(
    letter: Annotated[str, typer.Argument(help="Its id, or how that begins.", metavar="ID")],
) -> None:
    """Show everything about a dead letter: reason, traceback, properties and body."""
    found = _find(_letters(frame.prepare(), None), letter)
    came = found.came
    for name, value in found.summary().items():
        said = "" if value is None else shown(str(value), LONGEST_REASON)
        print(f"{name.replace('_', ' '):13} {said}")
    print(f"\nproperties\n{escaped(json.dumps(came, indent=2, ensure_ascii=False))}")
    body = bytes(found.row["body"])
    print(f"\nbody ({len(body)} bytes)\n{escaped(_readable(body))}")
    if found.row["error"]:
        print(f"\ntraceback\n{escaped(found.row['error'].rstrip())}")


@app.command(epilog="Example: choreo dead retry --all --service payments --reason 'timed out'")
def retry(
    *,
    letters: Ids = None,
    every: Every = False,
    service: OneService = None,
    reason: WithReason = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also what is older than CHOREO_RETENTION_DAYS.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to the handlers that could not take them; nobody else sees them.

    A service that runs takes them within seconds, any other at its next start. A letter that is
    older than what services remember is not sent back: its flow may be forgotten elsewhere.
    """
    settings = frame.prepare()
    found, chosen = _chosen(settings, letters, every=every, service=service, reason=reason)

    def act(db: sa.Connection, now: float, one: Letter) -> str | None:
        age = (now - one.row["last_failed"]) / _DAY_S
        if age > settings.retention_days and not force:
            return (
                f"it failed {age:.0f} days ago, and flows are remembered for "
                f"{settings.retention_days:g}: what was undone since, or done by another way, "
                "could be done again; --force sends it back all the same"
            )
        if not dry_run:
            send_back(db, one.row, now)
        return None

    _report(_each(settings, chosen, act), ("send back", "sent back", "to"), _enough(found),
            dry_run=dry_run, as_json=as_json)  # fmt: skip


@app.command("drop", epilog="Example: choreo dead drop --all --service payments --reason 'no such'")
def drop_letters(
    *,
    letters: Ids = None,
    every: Every = False,
    service: OneService = None,
    reason: WithReason = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also what an undo is owed to; it stays owed.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask back.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters for good: their handlers take these messages no more.

    A letter that an undo is owed to is not dropped: only sent back it comes to its outcome, and
    is undone.
    """
    settings = frame.prepare()
    found, chosen = _chosen(settings, letters, every=every, service=service, reason=reason)
    if chosen and sys.stdin.isatty() and not (yes or dry_run):
        typer.confirm(
            f"Delete {len(chosen)} of {len(found)} dead letters for good?", abort=True, err=True
        )

    def act(db: sa.Connection, _: float, one: Letter) -> str | None:
        if not force and is_owed(db, one.row, one.keeper):
            return (
                "an undo is owed to it; sent back it comes to its outcome and is undone, and "
                "--force drops it and leaves the undo owed"
            )
        if not dry_run:
            drop(db, one.row, one.keeper)
        return None

    _report(_each(settings, chosen, act), ("drop", "dropped", "of"), _enough(found),
            dry_run=dry_run, as_json=as_json)  # fmt: skip


def _chosen(
    settings: Settings,
    ids: Sequence[str] | None,
    *,
    every: bool,
    service: str | None,
    reason: str | None,
) -> tuple[list[Letter], list[Letter]]:
    """The letters there are, and those that are meant."""
    if bool(ids) == every:
        raise typer.BadParameter("name letters, or choose with --all (and filters)")
    found = _letters(settings, service)
    chosen = _with_reason(found, reason)
    if ids:
        chosen = list({one.id: one for one in (_find(chosen, id_) for id_ in ids)}.values())
    return found, chosen


def _each(
    settings: Settings,
    letters: Sequence[Letter],
    act: Callable[[sa.Connection, float, Letter], str | None],
) -> list[tuple[Letter, str | None]]:
    """Do it to each letter that is still there, those of one service in one transaction.

    Gives with each why it was not done; None if it was.
    """
    done: list[tuple[Letter, str | None]] = []
    for service in dict.fromkeys(one.service for one in letters):
        with opened(service, settings) as there:
            if there is None:
                continue
            db, now = there
            for one in letters:
                still = sa.select(dead.c.id).where(dead.c.id == one.id)
                if one.service == service and db.execute(still).first() is not None:
                    done.append((one, act(db, now, one)))
    return done


def _report(
    done: Sequence[tuple[Letter, str | None]],
    words: tuple[str, str, str],
    length: int,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Say what was done, and what was not; that is exit code 1."""
    verb, did, whither = words
    if as_json:
        print(json.dumps([{**one.summary(), "refused": why} for one, why in done], indent=2))
    elif not done:
        print("no dead letters")
    for one, why in done:
        if why is not None:
            print(f"choreo: did not {verb} {one.id[:length]}: {why}", file=sys.stderr)
        elif not as_json:
            said = f"would {verb}" if dry_run else did
            print(
                f"{said} {one.id[:length]} {whither} {one.handler}: {shown(str(one.came['type']))}"
            )
    if any(why is not None for _, why in done):
        raise typer.Exit(frame.FOUND_SOMETHING)


def _groups(letters: Iterable[Letter]) -> list[dict[str, Any]]:
    """The letters of each error: of one service, handler and type, with a like reason."""
    found: dict[tuple[Any, ...], list[Letter]] = {}
    for one in letters:
        found.setdefault((one.handler, one.came["type"], one.error), []).append(one)
    groups = []
    for alike in found.values():
        last = alike[-1].summary()
        groups.append({
            "count": len(alike),
            **{name: last[name] for name in ("service", "handler", "type", "reason")},
            "first_failed": timestamp(min(one.row["first_failed"] for one in alike)),
            "last_failed": last["last_failed"],
            "letters": [one.id for one in alike],
        })  # fmt: skip
    return sorted(groups, key=lambda group: -group["count"])


def _letters(settings: Settings, only: str | None) -> list[Letter]:
    """The letters of all services, or of one, the oldest first."""
    services = [discovery.service(settings, only)] if only else discovery.services(settings)
    found: list[Letter] = []
    for service in services:
        with looked_at(service.name, settings) as there:
            if there is not None:
                rows = there[0].execute(sa.select(dead)).mappings()
                found.extend(Letter(service, dict(row)) for row in rows)
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


def _enough(letters: Sequence[Letter]) -> int:
    """How much of an id tells the letters apart."""
    length = _SHORTEST_ID
    while len({one.id[:length] for one in letters}) < len(letters):
        length += 1
    return length


def _readable(body: bytes) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return body.decode(errors="backslashreplace")
