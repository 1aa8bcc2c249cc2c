"""What a message's handler meets in a database is its own attempt, and costs no other message."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from faults import lose_each_answer
from stage import PATIENCE_S, Stage, until

from choreo import Connection, Event, Reject, Retry, Service
from choreo.dead import DeadLettered
from choreo.errors import CannotRunError
from choreo.seams import SystemClock
from choreo.settings import Settings
from choreo.store import database, tables


class Asked(Event, topic="errors.asked"):
    what: str


class Answered(Event, topic="errors.answered"):
    what: str


async def test_a_handler_decides_what_a_busy_file_of_its_own_means(
    amqp_url: str, tmp_path: Path
) -> None:
    """It asks for a retry, or rejects, from within the error that an outage looks like."""
    service = Service("errors")
    file = sa.create_engine(
        f"sqlite:///{tmp_path}/own.db", connect_args={"timeout": 0}, poolclass=sa.NullPool
    )

    @service.on
    def answer(asked: Asked) -> Answered:
        try:
            with file.begin() as own:
                own.exec_driver_sql("CREATE TABLE IF NOT EXISTS a (b)")
        except sa.exc.OperationalError as busy:
            if asked.what == "again":
                raise Retry("busy", after=timedelta(hours=1)) from None
            if asked.what == "never":
                raise Reject("busy for good") from busy
        return Answered(what=asked.what)

    with file.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        url = f"sqlite:///{tmp_path}/errors.db"
        async with Stage(service, amqp_url, url, tmp_path) as running:
            for what in ("again", "never", "now"):
                await running.publish(Asked(what=what))
            await until(lambda: running.events(Answered), "the others are handled")
            await running.settled()
            [waiting], [letter] = running.rows("due"), running.rows("dead")
            assert (waiting["attempts"], waiting["error"]) == (1, "Retry: busy")
            assert letter["reason"] == "rejected: busy for good"
            assert not [line for line in running.logs if "database away" in line["event"]]


async def test_an_internal_error_is_of_the_statement_that_raises_it(
    amqp_url: str, tmp_path: Path, postgres_url: str, create_databases: Callable[..., None]
) -> None:
    """Extensions of PostgreSQL raise it for input that they cannot read."""
    service = Service("errors")

    @service.on
    def answer(asked: Asked, db: Connection) -> Answered:
        if asked.what == "odd":
            db.exec_driver_sql("DO $$ BEGIN RAISE SQLSTATE 'XX000'; END $$")
        return Answered(what=asked.what)

    create_databases("errors")
    async with Stage(service, amqp_url, postgres_url, tmp_path, attempts=2) as running:
        await running.publish(Asked(what="odd"))
        await running.publish(Asked(what="plain"))
        await until(lambda: running.events(Answered), "the other is handled")
        await until(lambda: running.rows("dead"), "the odd one is parked")
        [letter] = running.rows("dead")
        assert letter["reason"].startswith("failed 2 times, last with InternalError")


async def test_a_letter_whose_answer_was_lost_is_one_letter(
    amqp_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service("errors")

    @service.on
    def answer(asked: Asked) -> Answered:
        return Answered(what=asked.what)

    lost = lose_each_answer(monkeypatch)
    async with Stage(service, amqp_url, f"sqlite:///{tmp_path}/errors.db", tmp_path) as running:
        await running.publish_raw(
            b"{}", exchange="errors", routing_key="errors.asked.v1",
            message_id="m-1", type="errors.asked.v1",
        )  # fmt: skip
        await until(lambda: running.events(DeadLettered), "it is announced")
        await running.settled()
        assert len(running.rows("dead")) == 1
        assert [one.message_id for one in running.events(DeadLettered)] == lost


async def test_instances_wait_for_their_turn_longer_than_for_a_row(
    postgres_url: str, create_databases: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gives up goes to the end of the line, and has its leases run out meanwhile."""
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.1)
    create_databases("errors")
    url = postgres_url.replace("{service}", "errors")
    service, clock = Service("errors"), SystemClock()
    first, second = (database.Transactor(service, database.connect(url), clock) for _ in range(2))
    begun, over = threading.Event(), threading.Event()

    def hold(_: Connection, __: float) -> bool:
        begun.set()
        return over.wait(PATIENCE_S)

    waits = sa.text(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() "
        "AND wait_event = 'advisory' AND clock_timestamp() - query_start > interval '0.5 s'"
    )
    engine = database.connect(url)
    with ThreadPoolExecutor() as threads:
        held = threads.submit(first.transact, hold)
        assert begun.wait(PATIENCE_S)
        turn = threads.submit(second.transact, lambda _, now: now)
        try:
            # What others do is looked up once in a transaction.
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
                await until(lambda: db.execute(waits).first(), "the other waits for its turn")
        finally:
            over.set()
        assert held.result()
        assert turn.result()
    for one in (first, second):
        one.disconnect()
    engine.dispose()


def test_who_only_looks_waits_for_nobody(tmp_path: Path) -> None:
    """Also while a handler is slow, `choreo dead list`, `runs` and `doctor` say what is there."""
    settings = Settings(database_url=f"sqlite:///{tmp_path}/{{service}}.db", var=tmp_path)
    service, url = Service("errors"), settings.database_of("errors")
    running = database.Transactor(service, database.connect(url), SystemClock())
    running.transact(running.make_tables)

    def look(_: Connection, now: float) -> None:
        with database.looked_at("errors", settings) as found:
            assert found is not None
            assert found[0].execute(sa.select(tables.owner.c.service)).scalar() == "errors"
            assert found[1] >= now

    running.transact(look)
    running.disconnect()


def test_who_writes_is_told_that_the_database_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
    settings = Settings(database_url=f"sqlite:///{tmp_path}/{{service}}.db", var=tmp_path)
    engine = database.connect(settings.database_of("errors"))
    with engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        with (
            pytest.raises(CannotRunError, match="database is locked; it is busy, try again"),
            database.opened("errors", settings),
        ):
            pass
