"""A database that is away burns no attempt, parks nothing and calls nobody twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from faults import full, locked, lose_each_answer, small_disk
from stage import Stage, until

from choreo import Connection, Event, Retry, Service, failure
from choreo.rabbitmq.messages import delivery_of
from choreo.seams import Delivery
from choreo.store import database
from choreo.store.memory import Memory, Row, Status
from choreo.transaction import Transaction
from choreo.work import Unit


class Asked(Event, topic="outage.asked"):
    what: str


class Answered(Event, topic="outage.answered"):
    what: str


class Called(Event, topic="outage.called"):
    what: str


class Caller:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.gate = asyncio.Event()


@pytest.fixture
def caller() -> Caller:
    return Caller()


@pytest.fixture
def service(caller: Caller) -> Service:
    metadata = sa.MetaData()
    answers = sa.Table("answers", metadata, sa.Column("what", sa.String))
    service = Service("outage", tables=metadata)

    @service.adapter
    async def open_caller() -> AsyncGenerator[Caller, None]:
        yield caller

    @service.on
    def answer(asked: Asked, db: Connection) -> Answered:
        db.execute(answers.insert(), {"what": asked.what})
        return Answered(what=asked.what)

    @service.on(timeout=timedelta(seconds=30))
    async def call(asked: Asked, caller: Caller) -> Called:
        caller.calls.append(asked.what)
        await caller.gate.wait()
        return Called(what=asked.what)

    return service


async def _spend_an_outage(
    running: Stage, caller: Caller, away: Callable[[], AbstractContextManager[None]]
) -> None:
    """A call is under way and a message arrives while the database is away."""
    await running.publish(Asked(what="before"))
    await until(lambda: caller.calls == ["before"], "the call is under way")
    await until(lambda: running.events(Answered), "answered")
    with away():
        caller.gate.set()
        await running.publish(Asked(what="during"))
        await until(
            lambda: any("database away" in line["event"] for line in running.logs), "an outage"
        )
    await until(lambda: len(running.events(Called)) == 2, "both calls came to an end")
    await until(lambda: len(running.events(Answered)) == 2, "both are answered")
    await running.settled()
    assert caller.calls == ["before", "during"]
    assert running.rows("dead") == running.rows("due") == []
    assert not [line for line in running.logs if "will be tried again" in line["event"]]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with locked([f"{folder}/outage.db"]):
        yield


@pytest.mark.parametrize("away", [_locked, full], ids=["locked", "disk full"])
async def test_sqlite(  # noqa: PLR0917 - fixtures
    away: Callable[[Path], AbstractContextManager[None]],
    service: Service,
    caller: Caller,
    amqp_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
    with small_disk(tmp_path / "disk") as disk:
        if disk is None and away is full:
            pytest.skip("NO FULL DISK: only root can mount a small one")
        folder = disk or tmp_path
        async with Stage(service, amqp_url, f"sqlite:///{folder}/outage.db", tmp_path) as running:
            await _spend_an_outage(running, caller, partial(away, folder))


@contextmanager
def _refused(admin: psycopg.Connection, name: str) -> Iterator[None]:
    admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    _end_sessions(admin, name)
    yield
    admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


@contextmanager
def _read_only(admin: psycopg.Connection, name: str) -> Iterator[None]:
    admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    _end_sessions(admin, name)
    yield
    admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    _end_sessions(admin, name)


@contextmanager
def _rows_locked(admin: psycopg.Connection, name: str) -> Iterator[None]:
    with psycopg.connect(admin.info.dsn, password=admin.info.password, dbname=name) as other:
        other.execute("LOCK TABLE choreo_inbox, choreo_due, answers IN ACCESS EXCLUSIVE MODE")
        yield


def _end_sessions(admin: psycopg.Connection, name: str) -> None:
    admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
    )


@pytest.mark.parametrize(
    "away", [_refused, _read_only, _rows_locked], ids=["down", "read-only", "locked"]
)
async def test_postgres(  # noqa: PLR0917 - fixtures
    away: Callable[[psycopg.Connection, str], AbstractContextManager[None]],
    service: Service,
    caller: Caller,
    amqp_url: str,
    postgres_url: str,
    create_databases: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 1)
    create_databases("outage")
    url = postgres_url.replace("{service}", "outage").replace("+psycopg", "")
    name = url.rpartition("/")[2]
    with psycopg.connect(url[: -len(name)] + "postgres", autocommit=True) as admin:
        async with Stage(service, amqp_url, postgres_url, tmp_path) as running:
            await _spend_an_outage(running, caller, partial(away, admin, name))


async def test_a_commit_whose_answer_was_lost_is_decided_by_the_inbox(
    service: Service, caller: Caller, amqp_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction commits, and then the connection is lost before the answer comes."""
    caller.gate.set()
    lost = lose_each_answer(monkeypatch)
    async with Stage(service, amqp_url, f"sqlite:///{tmp_path}/outage.db", tmp_path) as running:
        for number in range(3):
            await running.publish(Asked(what=str(number)))
        await until(lambda: len(running.events(Answered)) == 3, "answered")
        await until(lambda: len(running.events(Called)) == 3, "called")
        await running.settled()
        events = running.events(Answered) + running.events(Called)
        assert Counter(lost) == Counter(one.message_id for one in events)
        assert sorted(caller.calls) == ["0", "1", "2"]
        assert running.rows("due") == running.rows("dead") == []


class LostAnswers:
    """Loses the answer to each commit that counts a message as begun, or hands one out, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        #: What it was that was counted or handed out: for each, one answer was lost.
        self.lost: set[tuple[str, ...]] = set()
        self._is_new = False
        run, mark, hand_out = database.Transactor.transact, failure.mark, Memory.hand_out

        def marked(tx: Transaction, unit: Unit, crashes: int | None) -> tuple[bool, int]:
            self._lose("begun", unit.envelope.id, unit.route.key)
            return mark(tx, unit, crashes)

        def handed_out(memory: Memory, rows: Sequence[Row]) -> None:
            for row in rows:
                self._lose("handed out", row["message_id"], row["handler"])
            hand_out(memory, rows)

        def transact(transactor: database.Transactor, work: Callable[..., Any]) -> Any:
            result = run(transactor, work)
            if self._is_new:
                self._is_new = False
                raise database.OutageError("the answer was lost")
            return result

        monkeypatch.setattr(failure, "mark", marked)
        monkeypatch.setattr(Memory, "hand_out", handed_out)
        monkeypatch.setattr(database.Transactor, "transact", transact)

    def _lose(self, *what: str) -> None:
        self._is_new = self._is_new or what not in self.lost
        self.lost.add(what)


async def test_lost_answers_count_neither_as_attempts_nor_as_crashes(
    service: Service, caller: Caller, amqp_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leases are so short that all is due again before a commit is tried once more."""
    handled: list[str] = []

    @service.on
    def fail_once(asked: Asked) -> None:
        handled.append(asked.what)
        if handled.count(asked.what) == 1:
            raise Retry(after=timedelta(milliseconds=1))

    def again(*given: Any) -> Delivery:
        delivery = delivery_of(*given)
        delivery.redelivered = True
        return delivery

    caller.gate.set()
    monkeypatch.setattr("choreo.rabbitmq.broker.delivery_of", again)
    answers = LostAnswers(monkeypatch)
    given = {"crashes": 1, "attempts": 2, "lease_s": 0.02}
    async with Stage(service, amqp_url, f"sqlite:///{tmp_path}/x.db", tmp_path, **given) as running:
        for number in range(3):
            await running.publish(Asked(what=str(number)))
        await until(lambda: len(running.events(Answered)) == 3, "answered")
        await until(lambda: len(running.events(Called)) == 3, "called")
        await until(lambda: not running.rows("due"), "all is done")
        assert running.rows("dead") == []
        assert {row["status"] for row in running.rows("inbox")} == {Status.DONE}
    assert sorted(caller.calls) == ["0", "1", "2"]
    assert sorted(handled) == ["0", "0", "1", "1", "2", "2"]
    assert Counter(what for what, *_ in answers.lost) == {"begun": 6, "handed out": 3}
