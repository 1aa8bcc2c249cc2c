"""Handlers that do what they should not, and messages made to hurt: a letter, and life goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from stage import Stage, until

from choreo import Connection, Context, Event, Reject, Service
from choreo.dead import DeadLettered, send_back
from choreo.store import database
from choreo.store.database import OutageError


class Poked(Event, topic="misuse.poked", subject="what"):
    what: str


class Answered(Event, topic="misuse.answered", subject="what"):
    what: str


class Called(Event, topic="misuse.called", subject="what"):
    what: str


class TakenBack(Event, topic="misuse.taken_back", subject="what"):
    what: str


class Cancelled(Event, topic="misuse.cancelled"):
    pass


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Outside:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.fails = 0
        self.gate = asyncio.Event()
        self.gate.set()


class Clumsy:
    """A service that does what the test tells it to do with each message."""

    def __init__(self) -> None:  # noqa: C901 - its handlers are declared in it
        self.outside = Outside()
        self.acts: dict[str, Callable[[Connection], None]] = {}
        self.undo_fails: list[Exception] = []
        metadata = sa.MetaData()
        self.seen = sa.Table("seen", metadata, sa.Column("what", sa.String, primary_key=True))
        self.service = service = Service("clumsy", tables=metadata)

        @service.adapter
        async def open_outside() -> AsyncGenerator[Outside, None]:
            yield self.outside

        @service.on
        def answer(poked: Poked, db: Connection) -> Answered:
            db.execute(self.seen.insert(), {"what": poked.what})
            if act := self.acts.get(poked.what):
                act(db)
            return Answered(what=poked.what)

        @service.on
        async def call(poked: Poked, outside: Outside, context: Context) -> Called | None:
            if not poked.what.startswith("call"):
                return None
            outside.calls.append(("call", context.key))
            await outside.gate.wait()
            if outside.fails:
                outside.fails -= 1
                raise ConnectionError("the answer was lost")
            if poked.what == "call cancels":
                outside.fails = 0
                if len(outside.calls) == 1:
                    raise asyncio.CancelledError
            return Called(what=poked.what)

        @call.undo
        def take_back(cause: Cancelled, called: Called, db: Connection) -> TakenBack:
            if self.undo_fails:
                raise self.undo_fails.pop(0)
            return TakenBack(what=called.what)


@pytest.fixture
def clumsy() -> Clumsy:
    return Clumsy()


@pytest.fixture
def stage(
    clumsy: Clumsy,
    amqp_url: str,
    database_url: str,
    create_databases: Callable[..., None],
    tmp_path: Path,
) -> Callable[..., Stage]:
    create_databases("clumsy")

    def make(**given: Any) -> Stage:
        return Stage(clumsy.service, amqp_url, database_url, tmp_path, **given)

    return make


StageMaker = Callable[..., Stage]


def swallow(clumsy: Clumsy, db: Connection) -> None:
    with suppress(IntegrityError):
        db.execute(clumsy.seen.insert(), {"what": "swallows"})


async def test_a_handler_may_not_end_its_transaction(stage: StageMaker, clumsy: Clumsy) -> None:
    clumsy.acts = {
        "commits": lambda db: db.commit(),
        "rolls back": lambda db: db.rollback(),
        "closes": lambda db: db.__exit__(None, None, None),
    }
    async with stage(attempts=1) as running:
        for what in (*clumsy.acts, "innocent"):
            await running.publish(Poked(what=what))
        await until(lambda: running.events(Answered), "the innocent is handled")
        await until(lambda: len(running.rows("dead")) == 3, "three letters")
        await running.settled()
        assert {"may not commit" in row["reason"] for row in running.rows("dead")} == {True}
        assert running.rows(clumsy.seen) == [{"what": "innocent"}]


async def test_a_swallowed_database_error_is_blamed_on_who_swallowed_it(
    stage: StageMaker, clumsy: Clumsy, database_url: str
) -> None:
    clumsy.acts = {"swallows": lambda db: swallow(clumsy, db)}
    async with stage(attempts=1) as running:
        await running.publish(Poked(what="swallows"))
        await running.publish(Poked(what="innocent"))
        on_postgres = database_url.startswith("postgres")
        # SQLite undoes the statement alone, so there nothing is broken.
        answered = 1 if on_postgres else 2
        await until(lambda: len(running.events(Answered)) == answered, "answered")
        await running.settled()
        assert ["swallowed" in row["reason"] for row in running.rows("dead")] == [
            True
        ] * on_postgres
        assert {"what": "innocent"} in running.rows(clumsy.seen)


async def test_an_error_without_words_is_a_letter(stage: StageMaker, clumsy: Clumsy) -> None:
    def fail(error: Exception) -> Callable[[Connection], None]:
        def act(_: Connection) -> None:
            raise error

        return act

    clumsy.acts = {
        "unspeakable": fail(UnspeakableError()),
        "surrogate": fail(RuntimeError("\ud800\0")),
    }
    async with stage(attempts=1) as running:
        for what in (*clumsy.acts, "innocent"):
            await running.publish(Poked(what=what))
        await until(lambda: len(running.rows("dead")) == 2, "two letters")
        await until(lambda: running.events(Answered), "the innocent is handled")
        assert all(row["reason"] for row in running.rows("dead"))


async def test_a_wrapped_outage_is_no_attempt(stage: StageMaker, clumsy: Clumsy) -> None:
    away = 2

    def act(_: Connection) -> None:
        nonlocal away
        if away:
            away -= 1
            try:
                raise OutageError("the database is away")
            except OutageError as error:
                raise RuntimeError("stock cannot be counted") from error

    clumsy.acts = {"wrapped": act}
    async with stage(attempts=1) as running:
        await running.publish(Poked(what="wrapped"))
        await until(lambda: running.events(Answered), "answered after all")
        await running.settled()
        assert running.rows("dead") == []


@pytest.mark.parametrize("subject", ["a\0b", "x" * 3000])
async def test_a_subject_that_no_database_takes_is_a_letter(
    stage: StageMaker, clumsy: Clumsy, subject: str
) -> None:
    async with stage() as running:
        body = Poked(what=subject).model_dump_json().encode()
        await running.publish_raw(
            body, exchange="misuse", routing_key="misuse.poked.v1", message_id="m",
            type="misuse.poked.v1",
        )  # fmt: skip
        await running.publish(Poked(what="innocent"))
        await until(lambda: running.events(Answered), "the innocent is handled")
        await until(lambda: running.rows("dead"), "a letter")
        [letter] = running.rows("dead")
        assert letter["reason"].startswith("subject is no text")
        assert bytes(letter["body"]) == body


async def test_a_failure_whose_record_was_committed_unheard_is_recorded_once(
    stage: StageMaker, clumsy: Clumsy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = database.Transactor.transact
    lost = False

    def lose_one(self: database.Transactor, work: Any) -> Any:
        nonlocal lost
        result = run(self, work)
        if not lost and any("failed" in note[1] for note in getattr(result, "notes", ())):
            lost = True
            raise OutageError("the answer was lost")
        return result

    fails = [RuntimeError("once")]

    def act(_: Connection) -> None:
        if fails:
            raise fails.pop()

    clumsy.acts = {"fails": act}
    monkeypatch.setattr(database.Transactor, "transact", lose_one)
    async with stage() as running:
        await running.publish(Poked(what="fails"))
        await until(lambda: running.events(Answered), "answered")
        await running.settled()
        assert lost
        assert running.rows(clumsy.seen) == [{"what": "fails"}]
        assert running.rows("due") == running.rows("dead") == []


async def test_a_call_that_is_cancelled_from_within_is_an_attempt(
    stage: StageMaker, clumsy: Clumsy
) -> None:
    async with stage() as running:
        await running.publish(Poked(what="call cancels"))
        await until(lambda: running.events(Called), "called again")
        await running.settled()
        assert len(clumsy.outside.calls) == 2


async def test_an_undo_given_up_stays_owed_to_a_call_under_way(
    stage: StageMaker, clumsy: Clumsy
) -> None:
    clumsy.undo_fails = [Reject("not today")]
    async with stage() as running:
        await running.publish(Poked(what="call 1"), flow="f")
        await until(lambda: running.events(Called), "the first is done")
        clumsy.outside.gate.clear()
        await running.publish(Poked(what="call 2"), flow="f")
        await until(lambda: len(clumsy.outside.calls) == 2, "the second is under way")
        await running.publish(Cancelled(), flow="f")
        await until(lambda: running.rows("dead"), "the undo was given up")
        clumsy.outside.gate.set()
        await until(lambda: running.events(TakenBack), "the second is taken back")
        await running.settled()
        assert [row["kind"] for row in running.rows("due")] == ["undo"], "the first stays owed"
        [letter] = running.rows("dead")
        running.execute(lambda db: send_back(db, letter, 0.0))
        await until(lambda: len(running.events(TakenBack)) == 2, "both are taken back")
        await running.settled()
        assert running.rows("due") == []


async def test_a_parked_call_that_is_sent_back_comes_to_its_outcome_and_is_undone(
    stage: StageMaker, clumsy: Clumsy
) -> None:
    clumsy.outside.fails = 2
    async with stage(attempts=2) as running:
        await running.publish(Poked(what="call"), id="m", flow="f")
        await until(lambda: running.rows("dead"), "parked: it may have had its effect")
        await running.publish(Cancelled(), flow="f")
        await until(lambda: running.rows("due"), "the undo is owed")
        [letter] = running.rows("dead")
        running.execute(lambda db: send_back(db, letter, 0.0))
        await until(lambda: running.events(TakenBack), "taken back")
        await running.settled()
        assert {key for _, key in clumsy.outside.calls} == {"m"}
        assert running.rows("due") == running.rows("dead") == []


async def test_a_call_that_is_sent_back_just_before_its_flow_dies_is_undone(
    stage: StageMaker, clumsy: Clumsy
) -> None:
    clumsy.outside.fails = 2
    async with stage(attempts=2) as running:
        await running.publish(Poked(what="call"), id="m", flow="f")
        await until(lambda: running.rows("dead"), "parked: it may have had its effect")
        [letter] = running.rows("dead")
        running.execute(lambda db: send_back(db, letter, time.time() + 1))
        await running.publish(Cancelled(), flow="f")
        await until(lambda: running.events(TakenBack), "taken back")
        await running.settled()
        assert {key for _, key in clumsy.outside.calls} == {"m"}
        assert running.rows("due") == running.rows("dead") == []


async def test_a_redelivered_message_of_equal_body_is_a_letter_of_its_own(
    stage: StageMaker, clumsy: Clumsy
) -> None:
    async with stage() as running:
        await running.stop()
        for identifier in ("m1", "m2"):
            await running.publish_raw(
                b"{}", exchange="", routing_key="clumsy", message_id=identifier,
                type="misuse.poked.v1",
            )  # fmt: skip
        channel = await running._connection.channel()
        queue = await channel.get_queue("clumsy", ensure=False)
        for message in [await queue.get(), await queue.get()]:
            await message.nack(requeue=True)
        await channel.close()
        await running.start()
        await until(lambda: len(running.rows("dead")) == 2, "two letters")
        assert {row["message_id"] for row in running.rows("dead")} == {"m1", "m2"}


async def test_a_letter_about_a_letter_is_not_announced(amqp_url: str, tmp_path: Path) -> None:
    service = Service("gloomy")

    @service.on(final="only complains")
    def complain(letter: DeadLettered) -> None:
        raise Reject("not this either")

    url = f"sqlite:///{tmp_path}/gloomy.db"
    async with Stage(service, amqp_url, url, tmp_path) as running:
        await running.publish_raw(
            b"{", exchange="", routing_key="gloomy", message_id="m", type="x.y"
        )
        await until(lambda: len(running.rows("dead")) == 2, "the letter, and the one about it")
        await until(lambda: running.events(DeadLettered), "the letter is announced")
        await running.settled()
        assert len(running.events(DeadLettered)) == 1
