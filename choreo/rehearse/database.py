"""A service's database in memory: emptied, not made anew, for each schedule."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from choreo.errors import CannotRunError
from choreo.rehearse.loop import Actor
from choreo.rehearse.quick import Filled, QuickConnection
from choreo.seams import Clock
from choreo.service import Service
from choreo.store.database import OutageError, Transactor, in_memory

T = TypeVar("T")

_NAMED = "SELECT name FROM sqlite_master WHERE type = ? AND name NOT LIKE 'sqlite_%'"
_COUNTS = "SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'"
_NEXT_DEADLINE = "SELECT min(at) FROM choreo_due WHERE kind = 'deadline'"
_LETTER = "SELECT 1 FROM choreo_dead LIMIT 1"
_PLANS = "SELECT kind, handler, error FROM choreo_due WHERE at IS NOT NULL"
_IN_HAND = """
    SELECT 'a ' || kind || ' of ' || handler || ' in hand' FROM choreo_due WHERE owner = :owner
    UNION ALL
    SELECT 'an unconfirmed ' || routing_key || ' in hand' FROM choreo_outbox
    WHERE owner = :owner AND lease_until > :now
"""
_HAS_PLANS = f"SELECT EXISTS ({_PLANS}) OR EXISTS (SELECT 1 FROM choreo_outbox)"  # noqa: S608


class MemoryDatabase:
    """What all instances of one service share."""

    def __init__(self, service: Service, clock: Clock) -> None:
        self.engine = in_memory()
        #: Which tables may have rows.
        self.filled = Filled()
        self.engine._connection_cls = partial(QuickConnection, filled=self.filled)  # type: ignore[assignment]  # noqa: SLF001 - an engine takes none else
        self._transactor = Transactor(service, self.engine, clock)
        self._transactor.transact(self._transactor.make_tables)
        with self.engine.connect() as db:
            driver: object = db.connection.dbapi_connection
        if not isinstance(driver, sqlite3.Connection):
            raise TypeError(f"{driver!r} is no SQLite database")
        #: For what must be quick.
        self.driver: sqlite3.Connection = driver
        self._clock = clock
        self.transact = self._transactor.transact
        self.set_up = self._transactor.set_up
        self.has_setups = bool(service.setups)
        #: Reads each of the service's own tables.
        self.own_tables = [
            f'SELECT * FROM "{name}"'  # noqa: S608 - a name that the service gave
            for name in (service.tables.tables if service.tables is not None else ())
        ]
        self._emptied = driver.total_changes
        self.filled.none_but("choreo_owner")
        #: How often it was written to when it last stood by.
        self._stands_by = -1
        #: How often it was written to when it was last asked for plans, and whether it had any.
        self._asked = (-1, False)

    @property
    def is_used(self) -> bool:
        """Whether anything was written since it was emptied."""
        return self.driver.total_changes != self._emptied

    @property
    def has_plans(self) -> bool:
        """Whether something will happen by itself: it is due some day, or is to be published."""
        if self.filled.is_empty("choreo_due", "choreo_outbox"):
            return False
        changes = self.driver.total_changes
        if self._asked[0] != changes:
            self._asked = (changes, bool(self.driver.execute(_HAS_PLANS).fetchone()[0]))
        return self._asked[1]

    @property
    def has_letters(self) -> bool:
        """Whether there is a dead letter."""
        if self.filled.is_empty("choreo_dead"):
            return False
        return self.driver.execute(_LETTER).fetchone() is not None

    def next_deadline(self) -> float | None:
        """When the next deadline is up, in seconds since 1970."""
        if self.filled.is_empty("choreo_due"):
            return None
        found: float | None = self.driver.execute(_NEXT_DEADLINE).fetchone()[0]
        return found

    def in_hand_of(self, owner: str) -> list[str]:
        """What is an instance's until its lease is over."""
        given = {"owner": owner, "now": self._clock.now()}
        return [what for (what,) in self.driver.execute(_IN_HAND, given)]

    def plans(self) -> list[str]:
        """What that is."""
        due = self.driver.execute(_PLANS)
        found = [
            f"a {kind} of {handler} due{f' ({error})' if error else ''}"
            for kind, handler, error in due
        ]
        unsent = self.driver.execute("SELECT routing_key FROM choreo_outbox")
        return found + [f"an unconfirmed {kind}" for (kind,) in unsent]

    def stand_by(self) -> None:
        """Have what a service has that was set up, and has heard of nothing yet."""
        if self._stands_by != self.driver.total_changes:
            self.empty()
            self.transact(self.set_up)
            self._stands_by = self.driver.total_changes

    def empty(self) -> None:
        """Take all rows out, as if the service had never run."""
        if not self.is_used:
            return
        run = self.driver.execute
        run("BEGIN")
        for (trigger,) in run(_NAMED, ("trigger",)).fetchall():
            run(f'DROP TRIGGER "{trigger}"')  # the setup that made it runs at the next start
        for (table,) in run(_NAMED, ("table",)).fetchall():
            if table != "choreo_owner" and not self.filled.is_empty(table):
                run(f'DELETE FROM "{table}"')  # noqa: S608 - a name that the database gave
        if run(_COUNTS).fetchone():  # tables with AUTOINCREMENT count on otherwise
            run("DELETE FROM sqlite_sequence")
        run("COMMIT")
        self._emptied = self.driver.total_changes
        self.filled.none_but("choreo_owner")


class InstanceDatabase:
    """See `choreo.seams.Database`: one instance's way to its service's database, run inline."""

    def __init__(
        self,
        database: MemoryDatabase,
        actor: Actor,
        *,
        fault: Callable[[], str],
        pace: Callable[[], tuple[float, float]],
        breaks: Callable[[], bool | None],
        is_shared: bool,
    ) -> None:
        """`fault` decides what goes wrong: the database is "away", the work "undone", "unheard".

        Or nothing: "". `pace` decides how long it takes before it is done, and after that until
        that is known, in virtual seconds. `breaks` decides whether a statement that a handler makes
        fails, and with it its transaction; None: it does not.
        """
        self._database = database
        self._actor = actor
        self._fault = fault
        self._pace = pace
        self._breaks = breaks
        #: How many transactions are under way.
        self.under_way = 0
        #: Whether what was done last has failed, as far as this instance knows.
        self.has_failed = False
        self.is_shared = is_shared

    async def open(self) -> None:
        """See `choreo.seams.Database`."""
        if not self._database.has_setups:
            return
        try:
            await self.run(self._database.set_up)
        except OutageError as outage:
            raise CannotRunError(str(outage)) from outage

    async def run(self, work: Callable[[Connection, float], T]) -> T:
        """See `choreo.seams.Database`."""
        if not self._actor.is_alive:  # it is let go of, and its clean-up must not act
            raise OutageError("its process is gone")
        fault = self._fault()
        before_s, behind_s = self._pace()
        self.under_way += 1
        self.has_failed = True
        try:
            if before_s:
                await asyncio.sleep(before_s)
            result = self._transact(work, fault)
            await asyncio.sleep(behind_s)  # at least as long as others have something to do
        finally:
            self.under_way -= 1
        if fault:
            raise OutageError("the answer to a commit was lost (rehearsed)")
        self.has_failed = False
        return result

    def _transact(self, work: Callable[[Connection, float], T], fault: str) -> T:
        if fault == "away":
            raise OutageError("the database is away (rehearsed)")
        if fault == "undone":
            self._database.transact(partial(_lose, work))
        return self._database.transact(partial(self._watched, work))

    def _watched(self, work: Callable[[Connection, float], T], db: Connection, now: float) -> T:
        """Do the work on a connection that asks before each statement that a handler makes."""
        watched = cast("QuickConnection", db)
        watched.before = partial(self._before, db)
        try:
            return work(db, now)
        finally:
            watched.before = None

    def _before(self, db: Connection) -> None:
        """Raise what the driver would, where that is decided."""
        breaks = self._breaks()
        if breaks is None:
            return
        driver: Any = db.connection.dbapi_connection
        if breaks:  # as SQLite may, and PostgreSQL does
            driver.rollback()
        error = sqlite3.OperationalError("disk I/O error (rehearsed)")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise OperationalError(None, None, error)

    async def close(self) -> None:
        """See `choreo.seams.Database`."""


def _lose(work: Callable[[Connection, float], object], db: Connection, now: float) -> None:
    work(db, now)
    raise OutageError("the database went away before the commit (rehearsed)")
