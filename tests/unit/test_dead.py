"""Dead letters: what is left when one is dropped, what is owed to it, and which are alike."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool

from choreo import Event, Reject, Service, failure, outgoing, plan
from choreo.cli.dead import Letter
from choreo.contract import Message, encode
from choreo.dead import drop, is_owed, send_back
from choreo.envelope import Envelope, read, timestamp
from choreo.identity import Ids
from choreo.record import delivery_of
from choreo.seams import Delivery
from choreo.settings import Settings
from choreo.store import tables
from choreo.store.memory import Memory
from choreo.transaction import Tools, Transaction
from choreo.work import Call, Finished, Item, ItemFailedError, judge, revive

NOW = 1_800_000_000.0
Row = dict[str, Any]


class Begun(Event, topic="dead.begun", subject="id"):
    id: str


class Stored(Event, topic="dead.stored", subject="id"):
    id: str


class Booked(Event, topic="dead.booked", subject="id"):
    id: str


class Ordered(Event, topic="dead.ordered", subject="id"):
    id: str


class Over(Event, topic="dead.over", subject="id"):
    id: str


class AllOver(Event, topic="dead.all_over"):
    """The whole flow is given up: no subject."""


class Desk:
    """A service with one of everything that can fail, and its memory."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        #: The handlers that fail, and those that have run.
        self.broken: set[str] = set()
        self.ran: list[str] = []
        self.service = Service("desk")
        self._declare()
        self.ids = Ids(self, random.Random(7))
        self.plan = plan.make(self.service)
        self.tools = Tools(self.plan, Settings(attempts=1), self.ids, random.Random(7), "me")

    def now(self) -> float:
        return NOW

    def _runs(self, name: str) -> None:
        if name in self.broken:
            raise Reject(f"{name} cannot")
        self.ran.append(name)

    def _declare(self) -> None:
        service = self.service

        @service.on
        def store(begun: Begun) -> Stored:
            self._runs("store")
            return Stored(id=begun.id)

        @store.undo
        def remove(cause: Over | AllOver, stored: Stored) -> None:
            self._runs("remove")

        @service.on
        async def book(begun: Begun) -> Booked:
            self._runs("book")
            return Booked(id=begun.id)

        @book.undo
        async def cancel(cause: Over | AllOver, booked: Booked) -> None:
            self._runs("cancel")

        @service.on(final="what is told is told")
        async def tell(begun: Begun) -> None:
            self._runs("tell")

        @service.deadline(Ordered, within=timedelta(seconds=1), until=Over)
        def late(ordered: Ordered) -> None:
            self._runs("late")

    def hears(self, message: Message, cause: Envelope | None = None) -> Delivery:
        """Take a message, and make the calls that come of it; gives it as it came."""
        delivery = delivery_of(
            outgoing.make(
                message,
                encode(message),
                identifier=self.ids.next(),
                time=timestamp(NOW),
                source="/test/test",
                cause=cause,
            )
        )
        self.takes(delivery)
        return delivery

    def takes(self, delivery: Delivery) -> None:
        for item in judge(self.plan, delivery, NOW, 1000):
            self._work(item)

    def goes_on(self, after_s: float = 0) -> None:
        """Do what is due after so long."""
        with self.engine.begin() as db:
            memory = Memory(db)
            rows = memory.due(NOW + after_s, 10, (), 0, deadlines_until=math.inf)
            for row in rows:
                row["owner"] = "me"
            memory.hand_out(rows)
        for item in revive(self.plan, rows, NOW):
            self._work(item)

    def _work(self, item: Item) -> None:
        try:
            with self.engine.begin() as db:
                calls = Transaction(self.tools, db, NOW).run([item]).calls
        except ItemFailedError as failed:
            error = cast("Exception", failed.__cause__)
            with self.engine.begin() as db:
                failure.record(Transaction(self.tools, db, NOW), item, error)
            return
        for call in calls:
            self._work(self._made(call))

    def _made(self, call: Call) -> Finished:
        finished = Finished(call)
        try:
            for messages, _ in call.runs:
                with pytest.raises(StopIteration) as ended:
                    call.handler.fn(*messages).send(None)
                finished.results += call.handler.signature.results(ended.value.value)
        except Reject as error:
            finished.error = error
        return finished

    def rows(self, table: sa.Table) -> list[Row]:
        with self.engine.begin() as db:
            return [dict(row) for row in db.execute(sa.select(table)).mappings()]

    def letter(self, handler: str) -> Row:
        [found] = [row for row in self.rows(tables.dead) if row["handler"] == handler]
        return found

    def owed(self) -> list[str]:
        """The undos that wait for something else."""
        return [row["handler"] for row in self.rows(tables.due) if row["at"] is None]

    def is_owed(self, handler: str) -> bool:
        letter = self.letter(handler)
        with self.engine.begin() as db:
            return is_owed(db, letter, self.service)

    def drops(self, handler: str) -> None:
        letter = self.letter(handler)
        with self.engine.begin() as db:
            drop(db, letter, self.service)
        assert letter not in self.rows(tables.dead)

    def sends_back(self, handler: str) -> None:
        letter = self.letter(handler)
        with self.engine.begin() as db:
            send_back(db, letter, NOW)
        self.goes_on()


@pytest.fixture
def desk() -> Iterator[Desk]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    # A transaction begins where it says so, not with the first change.
    sa.event.listen(engine, "connect", lambda made, _: setattr(made, "isolation_level", None))
    sa.event.listen(engine, "begin", lambda db: db.exec_driver_sql("BEGIN"))
    tables.metadata.create_all(engine)
    yield Desk(engine)
    engine.dispose()


def envelope(delivery: Delivery) -> Envelope:
    return read(delivery, NOW)


def test_what_is_dropped_is_not_taken_again(desk: Desk) -> None:
    desk.broken = {"store"}
    begun = desk.hears(Begun(id="a"))
    desk.drops("store")
    desk.broken = set()
    desk.takes(begun)
    assert desk.ran == ["book", "tell"]
    assert desk.rows(tables.dead) == []


@pytest.mark.parametrize("cause", [Over(id="a"), AllOver()])
@pytest.mark.parametrize("dropped_first", [True, False])
def test_nothing_is_owed_to_a_step_that_was_rolled_back(
    desk: Desk, cause: Message, dropped_first: bool
) -> None:
    desk.broken = {"store"}
    begun = desk.hears(Begun(id="a"))
    if dropped_first:
        desk.drops("store")
    desk.hears(cause, envelope(begun))
    if not dropped_first:
        assert desk.owed() == ["remove"]
        assert not desk.is_owed("store")
        desk.drops("store")
    assert desk.ran == ["book", "tell", "cancel"]
    assert desk.rows(tables.due) == []


@pytest.mark.parametrize("dropped_first", [True, False])
def test_what_is_owed_to_a_call_stays_owed(desk: Desk, dropped_first: bool) -> None:
    desk.broken = {"book"}
    begun = desk.hears(Begun(id="a"))
    assert not desk.is_owed("book")
    if dropped_first:
        desk.drops("book")
    desk.hears(Over(id="a"), envelope(begun))
    if not dropped_first:
        assert desk.is_owed("book")
        desk.drops("book")
    assert desk.owed() == ["cancel"]


def test_a_call_that_is_sent_back_instead_is_undone(desk: Desk) -> None:
    desk.broken = {"book"}
    begun = desk.hears(Begun(id="a"))
    desk.hears(Over(id="a"), envelope(begun))
    desk.broken = set()
    desk.sends_back("book")
    desk.goes_on()
    assert desk.ran == ["store", "tell", "remove", "book", "cancel"]
    assert desk.owed() == []


@pytest.mark.parametrize("undo", ["remove", "cancel"])
@pytest.mark.parametrize("cause", [Over(id="a"), AllOver()])
def test_an_undo_that_failed_stays_owed_until_another_cause(
    desk: Desk, undo: str, cause: Message
) -> None:
    begun = desk.hears(Begun(id="a"))
    desk.broken = {undo}
    desk.hears(cause, envelope(begun))
    assert desk.is_owed(undo)
    desk.drops(undo)
    assert desk.owed() == [undo]
    desk.broken = set()
    desk.hears(AllOver(), envelope(begun))
    desk.goes_on()
    assert desk.ran.count(undo) == 1
    assert desk.owed() == []


def test_an_undo_about_one_is_not_owed_to_another(desk: Desk) -> None:
    begun = desk.hears(Begun(id="a"))
    desk.hears(Begun(id="b"), envelope(begun))
    desk.broken = {"remove"}
    desk.hears(Over(id="a"), envelope(begun))
    first = desk.letter("remove")
    with desk.engine.begin() as db:
        assert is_owed(db, first, desk.service)
        assert not is_owed(db, {**first, "subject": "b"}, desk.service)
        assert not is_owed(db, {**first, "flow": "another"}, desk.service)


def test_a_call_about_one_is_not_owed_to_another(desk: Desk) -> None:
    begun = desk.hears(Begun(id="a"))
    desk.broken = {"book"}
    desk.hears(Begun(id="b"), envelope(begun))
    desk.hears(Begun(id="c"), envelope(begun))
    desk.hears(Over(id="b"), envelope(begun))
    letters = desk.rows(tables.dead)
    with desk.engine.begin() as db:
        owed = [one["subject"] for one in letters if is_owed(db, one, desk.service)]
    assert owed == ["b"]


def test_what_another_cause_has_undone_is_not_owed(desk: Desk) -> None:
    begun = desk.hears(Begun(id="a"))
    desk.broken = {"remove", "cancel"}
    desk.hears(Over(id="a"), envelope(begun))
    desk.broken = {"cancel"}
    desk.hears(AllOver(), envelope(begun))
    assert not desk.is_owed("remove")
    assert desk.is_owed("cancel")


def test_nothing_is_owed_to_what_is_never_undone(desk: Desk) -> None:
    desk.broken = {"tell", "late", "book"}
    begun = desk.hears(Begun(id="a"))
    desk.hears(Over(id="a"), envelope(begun))
    assert desk.is_owed("book")
    assert not desk.is_owed("tell")  # although something is owed to its message
    desk.drops("tell")
    desk.hears(Ordered(id="b"), envelope(begun))
    desk.goes_on(after_s=2)
    assert not desk.is_owed("late")
    desk.drops("late")
    desk.broken = set()
    desk.goes_on(after_s=100)
    assert "late" not in desk.ran


def test_what_no_handler_was_reached_with(desk: Desk) -> None:
    begun = desk.hears(Stored(id="a"))
    assert begun.wire_type == "dead.stored.v1"
    assert not desk.is_owed("")
    desk.drops("")


def error(reason: str, **more: Any) -> str:
    row = {"subject": "boom", "flow": "f", "message_id": None, "reason": reason, **more}
    return Letter(Service("desk"), row).error


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("failed once, last with KeyError: 3", "failed 8 times, last with KeyError: 17"),
        ("failed once, last with KeyError: 'a b'", "failed once, last with KeyError: 'c'"),
        ("rejected: there is no trip t-1", "rejected: there is no trip t-2"),
        ("no answer from 01a1f81d-ebf3", "no answer from 01a1f9e2-0000"),
    ],
)
def test_letters_of_one_error_are_alike(one: str, other: str) -> None:
    assert error(one) == error(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("rejected: no such trip", "rejected: no such order"),
        ("failed once, last with KeyError: 3", "failed once, last with ValueError: 3"),
        ("it can't be read, it isn't JSON", "it can't be taken, it isn't JSON"),
        ("OperationalError: (sqlite3.Error) x", "OperationalError: (sqlite3.Warning) x"),
    ],
)
def test_letters_of_two_errors_are_not_alike(one: str, other: str) -> None:
    assert error(one) != error(other)


def test_what_a_letter_is_about_is_no_part_of_its_error() -> None:
    assert error("rejected: boom is gone, boomerang not") == "rejected: * is gone, boomerang not"
    assert error("rejected: x+y is gone", subject="x+y") == "rejected: * is gone"
    assert error("failed to", flow="f") == "failed to"
    assert error("rejected", subject=None) == "rejected"
