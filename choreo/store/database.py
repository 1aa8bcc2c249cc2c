"""A service's own database: one connection in one thread, SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

import psycopg
import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from choreo.errors import CannotRunError, ChoreoError, describe
from choreo.seams import Clock, SystemClock
from choreo.service import Service
from choreo.settings import Settings
from choreo.store import tables

T = TypeVar("T")

#: So long a statement waits for a row that others have; a transaction, for its service's turn.
LOCK_TIMEOUT_S, TURN_TIMEOUT_S = 10, 50
#: Longer than a turn is waited for: who waits for that is no statement that is too slow.
STATEMENT_TIMEOUT_S = 60
BUSY_TIMEOUT_MS = 5000

#: SQLite result codes that tell of the surroundings, not of the statement (sqlite.org/rescode).
_SQLITE_OUTAGES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}
#: SQLSTATE classes of the same kind (PostgreSQL, Appendix A): connection, roll-back, resources,
#: operator intervention, system error.
_POSTGRES_OUTAGES = ("08", "40", "53", "57", "58")
#: Lock not available; read-only transaction; data, or an index, corrupted. The rest of the class
#: of internal errors is raised for what a statement asks.
_POSTGRES_OUTAGE_STATES = {"55P03", "25006", "XX001", "XX002"}
#: What SQLite and PostgreSQL say when others hold what is wanted.
_BUSY = ("database is locked", "lock timeout")
#: Cancelled by statement_timeout: that is the statement's own fault, or it would block for ever.
_TOO_SLOW = "57014"
#: Finds out within a minute that the server's machine is gone.
_KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
              "tcp_user_timeout": 30_000}  # fmt: skip


class OutageError(ChoreoError):
    """The database failed, not the work; the work may be tried again."""


def is_outage(error: BaseException) -> bool:
    """Whether the error tells of the database's surroundings and not of the statement."""
    if not isinstance(error, DBAPIError):
        return False
    cause = error.orig
    if error.connection_invalidated:
        return True
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in _SQLITE_OUTAGES
    if isinstance(cause, psycopg.Error):
        state = cause.sqlstate
        if state is None:
            return isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)
        return state != _TOO_SLOW and (
            state[:2] in _POSTGRES_OUTAGES or state in _POSTGRES_OUTAGE_STATES
        )
    return False


def connect(url: str) -> Engine:
    """An engine for a service's database, set up so that a commit is on disk.

    Raises CannotRunError if the URL is none, or of a database that choreo does not know.
    """
    try:
        made = sa.make_url(url)
        if made.drivername in ("sqlite", "sqlite+pysqlite"):
            if not made.database or made.database == ":memory:":
                raise CannotRunError("a service's SQLite database must be a file")
            Path(made.database).parent.mkdir(parents=True, exist_ok=True)
            engine = sa.create_engine(url, poolclass=sa.NullPool)
            sa.event.listen(engine, "connect", _prepare_sqlite)
            return engine
        if made.drivername in ("postgresql", "postgresql+psycopg"):
            options = (
                f"-c lock_timeout={TURN_TIMEOUT_S}s -c statement_timeout={STATEMENT_TIMEOUT_S}s"
            )
            return sa.create_engine(
                made.set(drivername="postgresql+psycopg"),
                poolclass=sa.NullPool,
                connect_args={"options": options, "connect_timeout": 10, **_KEEPALIVE},
            )
    except NoSuchModuleError as error:
        raise CannotRunError(f"the database URL cannot be read: {error}") from error
    except (ArgumentError, ValueError):
        # What it is about may be a part of the password.
        raise CannotRunError(
            "the database URL cannot be read: write postgresql+psycopg://user:password@host:5432/"
            "name, or sqlite:///file, and escape in a password what else has a meaning (@ is %40)"
        ) from None
    except OSError as error:
        raise CannotRunError(f"the folder of the database cannot be made: {error}") from error
    raise CannotRunError(f"database {made.drivername!r}: choreo knows sqlite and postgresql")


def in_memory() -> Engine:
    """An engine for a database that lives as long as its one connection, as rehearsals use it."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    sa.event.listen(engine, "connect", _begin_by_hand)
    return engine


def _begin_by_hand(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    _begin_by_hand(connection, _)
    connection.execute("PRAGMA journal_mode=WAL")
    # NORMAL can lose a commit on power loss.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA cache_size=-65536")


class Transactor:
    """A service's one connection: runs each piece of work in a transaction of its own."""

    def __init__(self, service: Service, engine: Engine, clock: Clock) -> None:
        self._service = service
        self._engine = engine
        self._clock = clock
        self._connection: Connection | None = None

    def transact(self, work: Callable[[Connection, float], T]) -> T:
        """Run the work in one transaction that holds the service's lock, and commit it.

        Raises OutageError if the database, not the work, failed.
        """
        try:
            if self._connection is None:
                self._connection = _protected(self._engine.connect())
            with self._connection.begin():
                now = _lock(self._connection, self._service.name, self._clock)
                return work(self._connection, now)
        except OutageError:
            self.disconnect()
            raise
        except SQLAlchemyError as error:
            if not is_outage(error):
                raise
            self.disconnect()
            raise OutageError(_said(error)) from error

    def disconnect(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                Connection.close(connection)
            except SQLAlchemyError:
                connection.invalidate()

    def make_tables(self, db: Connection, _: float) -> None:
        """Create the tables that are not there.

        Raises CannotRunError if the database belongs to another service.
        """
        tables.metadata.create_all(db)
        found = db.execute(sa.select(tables.owner.c.service)).scalar()
        if found is None:
            db.execute(tables.owner.insert(), {"service": self._service.name})
        elif found != self._service.name:
            raise CannotRunError(
                f"the database of {self._service.name} already belongs to {found}: "
                "give each service its own ('{service}' in CHOREO_DATABASE_URL)"
            )
        if self._service.tables is not None:
            self._service.tables.create_all(db)

    def set_up(self, db: Connection, _: float) -> None:
        """Run the service's setups."""
        for setup in self._service.setups:
            setup(db)


class ServiceDatabase:
    """Runs each piece of work in one transaction that holds the service's lock."""

    def __init__(self, service: Service, settings: Settings, clock: Clock) -> None:
        self._service = service
        self._engine = connect(settings.database_of(service.name))
        self._transactor = Transactor(service, self._engine, clock)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._lock_file: TextIO | None = None
        self.is_shared = self._engine.dialect.name == "postgresql"
        if not self.is_shared:
            self._lock_path = Path(f"{self._engine.url.database}").with_suffix(".lock")

    async def open(self) -> None:
        """Create the tables and run the service's setups.

        Raises CannotRunError if the database is not there, belongs to another service, or, on
        SQLite, if another process runs this service.
        """
        if not self.is_shared:
            self._take_lock_file()
        try:
            await self.run(self._prepare)
        except OutageError as error:
            raise CannotRunError(_explain(self._service.name, self._engine, str(error))) from error
        except SQLAlchemyError as error:
            raise CannotRunError(
                f"{self._service.name}: its tables cannot be made and filled: {describe(error)}"
            ) from error

    async def run(self, work: Callable[[Connection, float], T]) -> T:
        """See `choreo.seams.Database`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._transactor.transact, work)

    async def close(self) -> None:
        """Close the connection and end the thread."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._transactor.disconnect)
        self._thread.shutdown()
        if self._lock_file is not None:
            self._lock_file.close()

    def _prepare(self, db: Connection, now: float) -> None:
        self._transactor.make_tables(db, now)
        self._transactor.set_up(db, now)

    def _take_lock_file(self) -> None:
        try:
            self._lock_file = self._lock_path.open("w")
        except OSError as error:
            raise CannotRunError(
                f"{self._service.name}: its lock cannot be held: {error}"
            ) from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock_file.close()
            raise CannotRunError(
                f"{self._service.name} already runs on {self._engine.url.database}: SQLite takes "
                "one process of a service; for several set CHOREO_DATABASE_URL to PostgreSQL"
            ) from error


def opened(
    service: str, settings: Settings
) -> AbstractContextManager[tuple[Connection, float] | None]:
    """One transaction on a service's database from outside, with the time; None if it never ran.

    It holds the same lock as the service's own transactions, so both may run at the same time.
    Raises CannotRunError if the database cannot be used.
    """
    return _begun(service, settings, lambda db: _lock(db, service, SystemClock()))


def looked_at(
    service: str, settings: Settings
) -> AbstractContextManager[tuple[Connection, float] | None]:
    """Like `opened`, to read only: it waits for nobody, and nobody waits for it."""
    return _begun(service, settings, _look)


@contextmanager
def _begun(
    service: str, settings: Settings, begin: Callable[[Connection], float]
) -> Iterator[tuple[Connection, float] | None]:
    engine = connect(settings.database_of(service))
    if engine.dialect.name == "sqlite" and not Path(f"{engine.url.database}").exists():
        yield None
        return
    try:
        with engine.begin() as db:
            now = begin(db)
            yield (db, now) if sa.inspect(db).has_table(tables.owner.name) else None
    except SQLAlchemyError as error:
        if not is_outage(error):
            raise
        raise CannotRunError(_explain(service, engine, _said(error))) from error


def _look(db: Connection) -> float:
    """Begin to read what is committed; gives the database's time."""
    if db.dialect.name == "sqlite":
        db.exec_driver_sql("BEGIN")
        return SystemClock().now()
    db.exec_driver_sql("SET TRANSACTION READ ONLY")
    return float(db.execute(sa.text("SELECT extract(epoch from now())")).scalar_one())


def _protected(connection: Connection) -> Connection:
    """A connection whose transaction belongs to the service: a handler may not end it."""

    def refuse(*_: object) -> None:
        raise ChoreoError(
            "a handler works inside its service's transaction and may not commit, roll back or "
            "close it ('with db.begin_nested():' undoes a part)"
        )

    for name in ("commit", "rollback", "close"):
        setattr(connection, name, refuse)
    return connection


def require_usable(db: Connection) -> None:
    """Raise ChoreoError if a handler swallowed an error that broke the transaction."""
    driver: object = db.connection.dbapi_connection
    if isinstance(driver, psycopg.Connection):
        broken = driver.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
    else:
        broken = isinstance(driver, sqlite3.Connection) and not driver.in_transaction
    if broken:
        raise ChoreoError(
            "a handler swallowed an error of the database, which broke its transaction: put what "
            "may fail into 'with db.begin_nested():'"
        )


def _lock(db: Connection, service: str, clock: Clock) -> float:
    """Take the service's lock and read the database's clock, in one round trip.

    On SQLite a transaction has the whole database, and the clock is this machine's.
    """
    if db.dialect.name == "sqlite":
        # A deferred transaction that reads first cannot always become a writer.
        db.exec_driver_sql("BEGIN IMMEDIATE")
        return clock.now()
    key = int.from_bytes(service.encode()[:7].ljust(7, b"\0"), "big")
    return float(db.execute(_LOCK, {"key": key, "longest": f"{LOCK_TIMEOUT_S}s"}).one()[-1])


def _said(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", error)).strip()


def _explain(service: str, engine: Engine, said: str) -> str:
    shown, why = engine.url.render_as_string(hide_password=True), said.partition("\n")[0]
    todo = (
        "it is busy, try again"
        if any(one in why for one in _BUSY)
        else "create it, or correct CHOREO_DATABASE_URL"
    )
    return f"the database of {service} cannot be used ({shown}): {why}; {todo}"


# The clock is read after the lock was waited for: a target list is evaluated left to right.
_LOCK = sa.text(
    "SELECT pg_advisory_xact_lock(:key), set_config('lock_timeout', :longest, true), "
    "extract(epoch from clock_timestamp())"
)
