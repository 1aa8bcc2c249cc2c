"""Gathers the evidence: the journal to its present end, and every service's tables in bulk."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa

from choreo import discovery
from choreo.audit.evidence import Announced, Evidence, Kept, announced
from choreo.envelope import Envelope
from choreo.envelope import read as read_envelope
from choreo.errors import CannotRunError, UndecodableError
from choreo.rabbitmq.journal import past
from choreo.rabbitmq.survey import survey
from choreo.seams import Delivery
from choreo.service import Service
from choreo.settings import Settings
from choreo.store import tables
from choreo.topology import Topology

T = TypeVar("T")
#: Told how much is done, of how much.
Progress = Callable[[int, int], None]

#: All but what no check looks at: bodies, properties, digests.
READ: dict[str, sa.Select[Any]] = {
    "inbox": sa.select(*(tables.inbox.c[name] for name in (
        "message_id", "handler", "flow", "subject", "status", "outcome", "undo", "at"))),
    "outbox": sa.select(*(tables.outbox.c[name] for name in ("id", "envelope", "body"))),
    "due": sa.select(*(tables.due.c[name] for name in (
        "kind", "handler", "message_id", "flow", "subject", "at", "owner", "attempts", "error",
        "properties"))),
    "tombstones": sa.select(tables.tombstones),
    "dead": sa.select(*(tables.dead.c[name] for name in (
        "id", "kind", "handler", "message_id", "flow", "reason", "last_failed"))),
    "runs": sa.select(*(tables.runs.c[name] for name in (
        "run", "conductor", "flow", "subject", "status", "failed_step", "moved"))),
    "tasks": sa.select(*(tables.tasks.c[name] for name in (
        "flow", "step", "subject", "run", "conductor", "status"))),
}  # fmt: skip


async def gather(
    settings: Settings,
    url: str,
    services: Sequence[Service] | None = None,
    *,
    is_settled: bool = False,
    only: str | None = None,
    progress: Progress = lambda _done, _of: None,
) -> Evidence:
    """Read the journal of the broker and the databases of these services, or of all.

    Raises CannotRunError if there is no broker or journal, or a database cannot be read.
    """
    asked = discovery.services(settings) if services is None else services
    began = time.time()
    # Whoever leaves an outbox while the journal is read was seen in it before.
    before = [row for one in asked for row in _outbox(settings, one)]
    deliveries, is_cut = await _read_journal(url, progress)
    waiting = await _waiting(settings, url, [one.name for one in asked])
    kept = [found for one in asked if (found := _kept(settings, one)) is not None]
    in_outbox = [row for one in kept for row in one.outbox]
    evidence = Evidence(
        settings,
        kept,
        [*_understood(deliveries, began), *_unsent([*before, *in_outbox])],
        began=began,
        waiting=waiting,
        is_cut=is_cut,
        is_settled=is_settled,
        only=only,
        absent=[one.name for one in asked if one.name not in {it.service.name for it in kept}],
    )

    def reader(service: str, work: Callable[[sa.Connection], Any]) -> Any:
        with _opened(settings, service) as db:
            return None if db is None else work(db)

    evidence.reader = reader
    return evidence


# The journal.


async def _read_journal(url: str, progress: Progress) -> tuple[list[Delivery], bool]:
    """Every event that the journal keeps, and whether it has lost its beginning."""
    found: list[Delivery] = []
    first: int | None = None
    async with past(url) as events:
        async for piece in events:
            first = piece[0][0] if first is None and piece else first
            found += (delivery for _, delivery in piece)
            progress(len(found), events.last + 1 - (first or 0))
    return found, bool(first)


async def _waiting(settings: Settings, url: str, queues: Sequence[str]) -> dict[str, int]:
    """How many messages wait in these queues, as far as they are there."""
    seen = await survey(url, settings, Topology((), (), (), ()), also=queues)
    return {name: queue.waiting for name, queue in seen.queues.items()}


def _understood(deliveries: Iterable[Delivery], now: float) -> Iterator[Announced]:
    for one in deliveries:
        try:
            yield announced(read_envelope(one, now), one.body)
        except UndecodableError:
            continue  # what cannot be read belongs to no flow; who heard it has a dead letter


def _unsent(rows: Iterable[sa.Row[Any]]) -> Iterator[Announced]:
    for row in rows:
        envelope = Envelope(**json.loads(row.envelope))
        yield announced(envelope, bytes(row.body), in_journal=False)


# The databases.


def _kept(settings: Settings, service: Service) -> Kept | None:
    """What a service keeps; None if it never ran."""
    with _opened(settings, service.name) as db:
        if db is None:
            return None
        return Kept(service, **{name: db.execute(one).all() for name, one in READ.items()})


def _outbox(settings: Settings, service: Service) -> Sequence[sa.Row[Any]]:
    with _opened(settings, service.name) as db:
        return [] if db is None else db.execute(READ["outbox"]).all()


@contextmanager
def _opened(settings: Settings, service: str) -> Iterator[sa.Connection | None]:
    """A database as it is at one moment, to be read alone; None if the service never ran."""
    url = sa.make_url(settings.database_of(service))
    if url.drivername.startswith("sqlite") and not Path(f"{url.database}").exists():
        yield None
        return
    engine = _engine(url)
    try:
        with engine.connect() as db:
            if db.dialect.name == "sqlite":
                db.exec_driver_sql("BEGIN")
            yield db if sa.inspect(db).has_table(tables.owner.name) else None
    except sa.exc.DBAPIError as error:
        said = str(error.orig).strip().partition("\n")[0]
        shown = url.render_as_string(hide_password=True)
        raise CannotRunError(
            f"the database of {service} cannot be read ({shown}): {said}"
        ) from error
    finally:
        engine.dispose()


def _engine(url: sa.URL) -> sa.Engine:
    if url.drivername.startswith("sqlite"):
        path = f"file:{quote(str(url.database))}?mode=ro"

        def connect() -> sqlite3.Connection:
            return sqlite3.connect(path, uri=True, isolation_level=None, timeout=10)

        return sa.create_engine("sqlite://", creator=connect, poolclass=sa.NullPool)
    return sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        poolclass=sa.NullPool,
        isolation_level="REPEATABLE READ",
        connect_args={"connect_timeout": 10, "options": "-c default_transaction_read_only=on"},
    )
