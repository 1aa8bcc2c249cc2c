"""What a rehearsal is made of, each by itself: its loop, its decisions, its quick way to SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import rehearsed
import sqlalchemy as sa

from choreo.rehearse.loop import Actor, KilledError, Loop
from choreo.rehearse.quick import Filled, QuickConnection
from choreo.rehearse.schedule import Decision, Schedule
from choreo.rehearse.testing import Rehearse, rehearsal  # noqa: F401 - a fixture
from choreo.store.database import in_memory

# Its parts.


def test_time_jumps_to_the_next_timer_and_order_is_chosen() -> None:
    chosen: list[int] = []
    loop = Loop(lambda many: chosen.append(many) or many - 1, pytest.fail, rehearsed.unexpected)  # type: ignore[func-returns-value]
    said: list[tuple[str, float]] = []

    async def work(name: str, after: float) -> None:
        await asyncio.sleep(after)
        said.append((name, loop.time()))

    with loop.running():
        for name, after in (("a", 3600), ("b", 1), ("c", 3600)):
            loop.spawn(Actor(name), work(name, after))
        loop.drain()
        while loop.advance():
            loop.drain()
    assert said == [("b", 1), ("a", 3600), ("c", 3600)]
    assert chosen[:2] == [3, 2]


def test_who_is_killed_does_nothing_more_not_even_clean_up() -> None:
    loop = Loop(lambda _: 0, pytest.fail, rehearsed.unexpected)
    one, said = Actor("one"), list[str]()

    async def waits() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            said.append("cleaned up")

    async def dies() -> None:
        one.is_alive = False
        raise KilledError

    with loop.running():
        loop.spawn(one, waits())
        loop.spawn(one, dies())
        loop.drain()
        assert not loop.advance()
        assert said == []
    one.close()


def connected(quick: bool) -> sa.Connection:
    """A database of its own, by the quick way or the usual one."""
    engine = in_memory()
    if quick:
        engine._connection_cls = partial(QuickConnection, filled=Filled())  # type: ignore[assignment]
    return engine.connect()


def test_given_decisions_are_the_only_ones() -> None:
    schedule = Schedule(1, [Decision("crash", "a at acked", 2, 3)])
    assert [schedule.decide("crash", "a at acked", 1.0, 5) for _ in range(3)] == [0, 3, 0]
    assert schedule.taken == [Decision("crash", "a at acked", 2, 3)]
    schedule.is_calm = True
    assert schedule.decide("crash", "a at acked", 1.0) == 0


@pytest.mark.parametrize("name", ["things", "choreo_things"])
def test_a_statement_is_run_quickly_as_it_is_run_usually(name: str) -> None:
    tables = sa.MetaData()
    things = sa.Table(
        name, tables,
        sa.Column("id", sa.Integer, primary_key=True), sa.Column("is_good", sa.Boolean),
        sa.Column("facts", sa.JSON), sa.Column("many", sa.Integer, default=7),
    )  # fmt: skip
    some = sa.select(things).where(things.c.id.in_(sa.bindparam("ids", expanding=True)))
    enter, change = sa.insert(things), sa.update(things).values(many=things.c.many + 1)
    drop = sa.delete(things).where(things.c.id == sa.bindparam("which")).returning(things.c.facts)

    def said(quick: bool) -> list[Any]:
        found: list[Any] = []
        with connected(quick) as db:
            tables.create_all(db)
            for number in range(4):
                row = {"id": number, "is_good": number % 2 == 0, "facts": {"n": [number]}}
                found.append(tuple(db.execute(enter, row).inserted_primary_key or ()))
                found.append(db.execute(change).rowcount)
                found += [tuple(one) for one in db.execute(some, {"ids": [0, number]})]
                found += [dict(one) for one in db.execute(some, {"ids": []}).mappings()]
                found.append(db.execute(some, {"ids": [number]}).one()._mapping[things.c.facts])
                with pytest.raises(sa.exc.IntegrityError):
                    db.execute(enter, row)
            found += [db.scalar(drop, {"which": one}) for one in range(5)]
        return found

    assert said(quick=True) == said(quick=False)


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
    sa.Column("name", Loud), sa.Column("many", sa.Integer),
)  # fmt: skip
ENTER, ALL = sa.insert(things), sa.select(things).order_by(things.c.id)
STATE = sa.update(things).where(things.c.id == sa.bindparam("which"))
NAMED = sa.select(things.c.id).where(things.c.name.in_(sa.bindparam("names", expanding=True)))
ticks = iter(range(1000))
TICK = sa.select(things.c.id + sa.bindparam("tick", callable_=lambda: next(ticks)))


@pytest.mark.parametrize(
    "ask",
    [
        lambda db: db.execute(STATE, {"which": 1, "facts": None}),
        lambda db: db.execute(STATE, {"which": 1, "name": None}),
        lambda db: db.execute(ENTER, {"name": "b"}).lastrowid,
        lambda db: db.execute(ENTER, {"name": "b"}).inserted_primary_key.id,
        lambda db: db.execute(ENTER, [{"id": 8, "name": "b"}, {"id": 9}]),
        lambda db: db.execute(ENTER, [{"id": 8, "many": 1}, {"id": 8, "many": 2}]),
        lambda db: db.execute(ENTER, []),
        lambda db: db.execute(ENTER, ({"id": 8}, {"id": 9})),
        lambda db: db.execute(STATE, [{"which": 1, "many": 4}, {"which": 9, "many": 5}]).rowcount,
        lambda db: db.execute(ALL).rowcount,
        lambda db: db.scalars(NAMED, {"names": ["a", "b"]}).all(),
        lambda db: db.scalars(NAMED, {"names": {"a"}}).all(),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Empty parameter sequence")
def test_what_is_not_plain_is_the_same_when_it_is_run_again(ask: Callable[[Any], Any]) -> None:
    """From the third time on a statement is known."""

    def said(quick: bool) -> list[Any]:
        found: list[Any] = []
        with connected(quick) as db:
            tables.create_all(db)
            for _ in range(4):
                db.execute(sa.delete(things))
                db.execute(sa.insert(things), {"id": 1, "name": "a", "facts": {}, "many": 3})
                try:
                    answer = ask(db)
                except sa.exc.SQLAlchemyError as error:
                    answer = type(error)
                found.append(answer if isinstance(answer, int | list | type) else None)
                found += [tuple(row) for row in db.exec_driver_sql("SELECT * FROM things")]
        return found

    assert said(quick=True) == said(quick=False)


def test_what_is_worked_out_anew_each_time_stays_so() -> None:
    engine = in_memory()
    engine._connection_cls = partial(QuickConnection, filled=Filled())  # type: ignore[assignment]
    with engine.connect() as db:
        tables.create_all(db)
        db.execute(ENTER, {"id": 1})
        assert len({db.scalar(TICK) for _ in range(5)}) == 5
