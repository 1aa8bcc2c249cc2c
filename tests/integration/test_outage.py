"""A database that is away burns no attempt, parks nothing and calls nobody twice."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from stage import Stage, until

from choreo import Connection, Event, Service
from choreo.store import database


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
    running: Stage, caller: Caller, begin: Callable[[], Callable[[], None]]
) -> None:
    """A call is under way and a message arrives while the database is away."""
    await running.publish(Asked(what="before"))
    await until(lambda: caller.calls == ["before"], "the call is under way")
    await until(lambda: running.events(Answered), "answered")
    end = begin()
    caller.gate.set()
    await running.publish(Asked(what="during"))
    await until(
        lambda: any("database away" in line["event"] for line in running.logs), "an outage", 30
    )
    end()
    await until(lambda: len(running.events(Called)) == 2, "both calls came to an end", 30)
    await until(lambda: len(running.events(Answered)) == 2, "both are answered", 30)
    await running.settled()
    assert caller.calls == ["before", "during"]
    assert running.rows("dead") == running.rows("due") == []
    assert not [line for line in running.logs if "will be tried again" in line["event"]]


async def test_sqlite_locked(
    service: Service, caller: Caller, amqp_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)

    def begin() -> Callable[[], None]:
        other = sqlite3.connect(tmp_path / "outage.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        def end() -> None:
            other.execute("ROLLBACK")
            other.close()

        return end

    async with Stage(service, amqp_url, f"sqlite:///{tmp_path}/outage.db", tmp_path) as running:
        await _spend_an_outage(running, caller, begin)


async def test_postgres_down(  # noqa: PLR0917 - fixtures
    service: Service,
    caller: Caller,
    amqp_url: str,
    postgres_url: str,
    create_databases: Callable[..., None],
    tmp_path: Path,
) -> None:
    create_databases("outage")
    url = postgres_url.replace("{service}", "outage").replace("+psycopg", "")
    name = url.rpartition("/")[2]
    admin_url = url[: -len(name)] + "postgres"

    def begin() -> Callable[[], None]:
        admin = psycopg.connect(admin_url, autocommit=True)
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )

        def end() -> None:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
            admin.close()

        return end

    async with Stage(service, amqp_url, postgres_url, tmp_path) as running:
        await _spend_an_outage(running, caller, begin)


async def test_a_commit_whose_answer_was_lost_is_decided_by_the_inbox(
    service: Service, caller: Caller, amqp_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction commits, and then the connection is lost before the answer comes."""
    caller.gate.set()
    run = database.ServiceDatabase._transact
    lost = 0

    def lose_some(self: database.ServiceDatabase, work):  # type: ignore[no-untyped-def]
        nonlocal lost
        result = run(self, work)
        if getattr(result, "outgoing", None) and lost < 3:
            lost += 1
            raise database.OutageError("the answer was lost")
        return result

    monkeypatch.setattr(database.ServiceDatabase, "_transact", lose_some)
    async with Stage(service, amqp_url, f"sqlite:///{tmp_path}/outage.db", tmp_path) as running:
        for number in range(3):
            await running.publish(Asked(what=str(number)))
        await until(lambda: len(running.events(Answered)) == 3, "answered")
        await until(lambda: len(running.events(Called)) == 3, "called")
        await running.settled()
        assert lost == 3
        assert sorted(caller.calls) == ["0", "1", "2"]
        assert running.rows("due") == running.rows("dead") == []
        assert len({one.message_id for one in running.events(Answered)}) == 3
