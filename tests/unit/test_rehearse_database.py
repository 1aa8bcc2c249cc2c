"""The rehearsal's database: to a handler it is the one of production, however quick it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import rehearsed
import sqlalchemy as sa
from rehearsed import orders
from sqlalchemy.orm import Session, registry

from choreo.rehearse.campaign import Campaign
from choreo.rehearse.database import MemoryDatabase
from choreo.rehearse.quick import Filled, QuickConnection
from choreo.rehearse.results import Rows
from choreo.seams import SystemClock
from choreo.service import Service
from choreo.store import tables as store
from choreo.store.database import Transactor, connect, in_memory
from choreo.store.statements import STEP


class Loud(sa.TypeDecorator[str]):
    """A text that is written otherwise than it is given."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str:
        return "NOTHING" if value is None else value.upper()


tables = sa.MetaData()
things = sa.Table(
    "things", tables,
    sa.Column("id", sa.Integer, primary_key=True), sa.Column("facts", sa.JSON),
    sa.Column("name", Loud), sa.Column("many", sa.Integer, default=7),
)  # fmt: skip


class Thing:
    """A row of the table, as SQLAlchemy's ORM has it."""

    id: int


registry().map_imperatively(Thing, things)

ENTER, ALL = sa.insert(things), sa.select(things).order_by(things.c.id)
ONE, DROP = ALL.where(things.c.id == sa.bindparam("which")), sa.delete(things)
STATE = sa.update(things).where(things.c.id == sa.bindparam("which"))
NAMED = sa.select(things.c.id).where(things.c.name.in_(sa.bindparam("names", expanding=True)))
TAKEN = sa.delete(things).returning(things.c.facts)
TWO = {"id": 8}, {"id": 9}


def begins_in_part(db: sa.Connection) -> tuple[bool, bool]:
    try:
        with db.begin_nested():
            db.execute(ENTER, {"id": 8})
            db.execute(ENTER, {"id": 1})
    except sa.exc.IntegrityError:
        db.execute(ENTER, {"id": 9})
    return db.in_transaction(), db.in_nested_transaction()


def leaves_a_part_open(db: sa.Connection) -> bool:
    db.begin_nested()
    db.execute(ENTER, {"id": 8})
    return db.in_nested_transaction()


def adds_by_orm(db: sa.Connection) -> list[int]:
    with Session(db) as session:
        thing = Thing()
        thing.id = 8
        session.add(thing)
        session.flush()
        return [one.id for one in session.scalars(sa.select(Thing).order_by(things.c.id))]


def rolls_back_by_orm(db: sa.Connection) -> list[int]:
    with Session(db) as session:
        session.execute(ENTER, {"id": 8})
        session.rollback()
    return list(db.scalars(NAMED, {"names": ["A"]}))


def closes_what_it_asked(db: sa.Connection) -> Any:
    with db.execute(ALL) as result:
        return result.fetchmany(1), result.fetchone(), result.all()


def asks_the_driver(db: sa.Connection) -> bool:
    driver: Any = db.connection.dbapi_connection
    return bool(driver.in_transaction)


def spoils_the_transaction(db: sa.Connection) -> None:
    db.exec_driver_sql("BEGIN IMMEDIATE")


def seen(transact: Callable[..., Any], ask: Callable[[sa.Connection], Any]) -> list[Any]:
    """What a handler sees that asks this in one transaction after the other, and what it leaves."""

    def work(db: sa.Connection, _: float) -> Any:
        db.execute(DROP)
        db.execute(ENTER, {"id": 1, "name": "a", "facts": {"n": [1]}})
        return ask(db)

    def left(db: sa.Connection, _: float) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in db.exec_driver_sql("SELECT * FROM things ORDER BY id")]

    found: list[Any] = []
    for _ in range(4):
        try:
            found.append(transact(work))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is to be the same
            found.append(type(error))
        found.append(transact(left))
    return found


@pytest.mark.parametrize(
    "ask",
    [
        begins_in_part,
        leaves_a_part_open,
        adds_by_orm,
        rolls_back_by_orm,
        closes_what_it_asked,
        asks_the_driver,
        spoils_the_transaction,
        lambda db: (db.in_transaction(), db.get_transaction() is not None),
        lambda db: db.commit(),
        lambda db: next(db.execute(ONE, {"which": 1}), None),
        lambda db: next(db.execute(ONE, {"which": 2}), None),
        lambda db: db.execute(ONE, {"which": 2}).one(),
        lambda db: db.scalar(ONE, {}),
        lambda db: db.scalar(ONE, {"which": 1}),
        lambda db: type(db.execute(ALL)),
        lambda db: type(db.execute(ALL).mappings().one()),
        lambda db: (db.execute(ALL).returns_rows, db.execute(ALL).rowcount),
        lambda db: db.execute(ALL).keys(),
        lambda db: db.execute(ALL, execution_options={"yield_per": 1}).all(),
        lambda db: db.execute(ALL).one()._mapping[things.c.facts],
        lambda db: db.execute(STATE, {"which": 1, "many": 3}).returns_rows,
        lambda db: db.execute(STATE, {"which": 1, "many": 3}).all(),
        lambda db: db.execute(STATE, {"which": 1, "facts": None}).rowcount,
        lambda db: db.execute(STATE, {"which": 1, "name": None}).rowcount,
        lambda db: db.execute(STATE, [{"which": 1, "many": 4}, {"which": 9, "many": 5}]).rowcount,
        lambda db: db.execute(ENTER, {"name": "b"}).lastrowid,
        lambda db: db.execute(ENTER, {"name": "b"}).inserted_primary_key.id,
        lambda db: db.execute(ENTER, TWO).rowcount,
        lambda db: db.execute(ENTER, list(TWO)).rowcount,
        lambda db: db.execute(ENTER, [{"id": 8, "many": 1}, {"id": 8, "many": 2}]),
        lambda db: db.execute(TAKEN).all(),
        lambda db: db.scalars(NAMED, {"names": ["a", "b"]}).all(),
        lambda db: db.scalars(NAMED, {"names": {"a"}}).all(),
        lambda db: db.scalars(NAMED, {"names": []}).all(),
    ],
)  # fmt: skip
def test_a_handler_sees_what_it_sees_in_production(
    ask: Callable[[sa.Connection], Any], tmp_path: Path
) -> None:
    """Also when it asks again: nothing depends on what was asked before."""
    service = Service("any", tables=tables)
    real = Transactor(service, connect(f"sqlite:///{tmp_path}/any.db"), SystemClock())
    real.transact(real.make_tables)
    memory = MemoryDatabase(service, SystemClock())
    assert seen(memory.transact, ask) == seen(real.transact, ask)
    real.disconnect()


def test_a_handler_may_take_back_a_part_of_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails within that part is an outage, as in production, and no attempt."""
    find = sa.select(orders).where(orders.c.of == sa.bindparam("which"), orders.c.state == "open")
    end = sa.update(orders).where(orders.c.of == sa.bindparam("which"))

    def close(db: sa.Connection, of: str, state: str) -> bool:
        if next(db.execute(find, {"which": of}), None) is None:
            return False
        with suppress(sa.exc.IntegrityError), db.begin_nested():
            db.execute(sa.insert(orders), {"of": of, "state": state})
        return db.execute(end, {"which": of, "state": state}).rowcount == 1

    monkeypatch.setattr(rehearsed, "close", close)
    campaign = Campaign(rehearsed.stage())
    for _ in campaign.run(range(1, 101)):
        pass
    assert campaign.failure is None
    assert campaign.summary.faults["statement"]


# The quick way.

own = sa.MetaData()
notes = sa.Table(
    "notes", own,
    sa.Column("id", sa.Integer, primary_key=True), sa.Column("facts", sa.JSON),
    sa.Column("text", Loud), sa.Column("many", sa.Integer, default=7),
)  # fmt: skip
NOTE, NOTES = sa.insert(notes), sa.select(notes).order_by(notes.c.id)
KEY = {"k_message_id": "m", "k_handler": "h"}
CHANGE = sa.update(notes).where(notes.c.id == sa.bindparam("which"))
FORGET = sa.delete(notes).where(notes.c.id == sa.bindparam("which")).returning(notes.c.facts)
AMONG = sa.select(notes.c.id).where(notes.c.id.in_(sa.bindparam("ids", expanding=True)))


@pytest.mark.parametrize(
    "ask",
    [
        lambda db: [tuple(row) for row in db.execute(NOTES)],
        lambda db: [dict(row) for row in db.execute(NOTES).mappings()],
        lambda db: dict(db.execute(NOTES).mappings().one()),
        lambda db: db.execute(NOTES).first().facts,
        lambda db: db.scalar(NOTES),
        lambda db: db.execute(NOTE, {"text": "b"}).rowcount,
        lambda db: db.execute(NOTE, {"id": 1}),
        lambda db: db.execute(NOTE, list(TWO)).rowcount,
        lambda db: db.execute(CHANGE, {"which": 1, "facts": None}).rowcount,
        lambda db: db.execute(CHANGE, {"which": 1, "text": None, "many": 3}).rowcount,
        lambda db: db.execute(CHANGE, {"many": 3}),
        lambda db: db.execute(CHANGE, [{"which": 1, "many": 4}, {"which": 9, "many": 5}]).rowcount,
        lambda db: (db.scalar(FORGET, {"which": 1}), db.scalar(FORGET, {"which": 1})),
        lambda db: db.scalars(AMONG, {"ids": [1, 2]}).all(),
    ],
)  # fmt: skip
def test_a_statement_of_choreos_own_is_run_quickly_as_it_is_run_usually(
    ask: Callable[[sa.Connection], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the third time on a statement is known."""
    monkeypatch.setattr(store, "metadata", own)

    def said(*, quickly: bool) -> list[Any]:
        found: list[Any] = []
        with connected(quickly=quickly) as db:
            own.create_all(db)
            for _ in range(4):
                db.execute(sa.delete(notes))
                db.execute(NOTE, {"id": 1, "text": "a", "facts": {"n": [1]}})
                try:
                    found.append(ask(db))
                except sa.exc.SQLAlchemyError as error:
                    found.append(type(error))
                found += [tuple(row) for row in db.exec_driver_sql("SELECT * FROM notes")]
        return found

    assert said(quickly=True) == said(quickly=False)


def test_what_is_worked_out_anew_each_time_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "metadata", own)
    ticks = iter(range(1000))
    tick = sa.select(notes.c.id + sa.bindparam("tick", callable_=lambda: next(ticks)))
    with connected(quickly=True) as db:
        own.create_all(db)
        db.execute(NOTE, {"id": 1, "many": 1})
        assert len({db.scalar(tick) for _ in range(5)}) == 5


def connected(*, quickly: bool) -> sa.Connection:
    """A database of its own, by the quick way or the usual one."""
    engine = in_memory()
    if quickly:
        engine._connection_cls = partial(QuickConnection, filled=Filled())  # type: ignore[assignment]
    return engine.connect()


def test_choreos_own_statements_are_run_quickly() -> None:
    with connected(quickly=True) as db:
        store.metadata.create_all(db)
        assert isinstance([db.execute(STEP, KEY) for _ in range(3)][-1], Rows)
