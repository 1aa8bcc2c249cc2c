"""A small choreography to rehearse, well or with a mistake in it: a kitchen that cooks to order.

A waiter takes an order, the kitchen cooks it outside, the cellar takes a bottle from the shelf.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import forked
import pytest
import sqlalchemy as sa

from choreo import Command, Connection, Context, Event, Flow, Service, discovery
from choreo.rehearse import Outside, Story, World, invariant, stand_in, start
from choreo.rehearse.loop import Actor
from choreo.rehearse.project import modules_of, project
from choreo.rehearse.stage import Stage
from choreo.settings import load

ROOT = Path(__file__).parents[2]

BOTTLES = 10


class Order(Command, topic="kitchen.order", subject="table"):
    table: str
    dish: str


class Ordered(Event, topic="kitchen.ordered", subject="table"):
    table: str
    dish: str
    at: float = 0


class Cook(Command, topic="kitchen.cook", subject="table"):
    table: str
    dish: str


class Cooked(Event, topic="kitchen.cooked", subject="table"):
    table: str
    plate: str


class Burnt(Event, topic="kitchen.burnt", subject="table"):
    table: str


class Thrown(Event, topic="kitchen.thrown", subject="table"):
    table: str


class Opened(Event, topic="cellar.opened", subject="table"):
    table: str


class Corked(Event, topic="cellar.corked", subject="table"):
    table: str


class Served(Event, topic="waiter.served", subject="table"):
    table: str


class Sorry(Event, topic="waiter.sorry", subject="table"):
    table: str


dinner = Flow("dinner", starts=Order, ends={"served": Served, "sorry": Sorry})


class Stove:
    """The adapter: it cooks."""

    async def cook(self, *, key: str, dish: str) -> str:
        raise NotImplementedError

    async def throw(self, *, key: str, plate: str) -> None:
        raise NotImplementedError


class BurntError(Exception):
    """It cannot be eaten."""


tables = sa.MetaData()
orders = sa.Table("orders", tables, sa.Column("of", sa.String, primary_key=True),
                  sa.Column("state", sa.String, nullable=False))  # fmt: skip
cellar_tables = sa.MetaData()
shelf = sa.Table("shelf", cellar_tables, sa.Column("bottles", sa.Integer, nullable=False))
_bottles = sa.select(shelf.c.bottles)
_take = sa.update(shelf).values(bottles=shelf.c.bottles + sa.bindparam("change"))
_open = sa.insert(orders)
_close = sa.update(orders).where(orders.c.of == sa.bindparam("which"), orders.c.state == "open")

#: What a process keeps where it should keep nothing.
remembered: dict[str, str] = {}


def services(mistake: str = "") -> list[Service]:
    """The three services; `mistake` names what one of them does wrong."""
    return [_waiter(mistake), _kitchen(mistake), _cellar(mistake)]


def _waiter(mistake: str) -> Service:
    waiter = Service("waiter", tables=tables)

    @waiter.on(final="what is said is said")
    def take(order: Order, db: Connection) -> tuple[Ordered, Cook]:
        db.execute(_open, {"of": order.table, "state": "open"})
        if mistake == "global":
            remembered[order.table] = order.dish
        at = time.time() if mistake == "clock" else 0
        said = Ordered(table=order.table, dish=order.dish, at=at)
        return said, Cook(table=order.table, dish=order.dish)

    @waiter.on(final="it ends once")
    def serve(cooked: Cooked, db: Connection) -> Served | None:
        if mistake == "global" and not remembered.pop(cooked.table):
            return None
        if mistake != "two ends" and not close(db, cooked.table, "served"):
            return None
        return Served(table=cooked.table)

    @waiter.on(final="it ends once")
    def excuse(burnt: Burnt, db: Connection) -> Sorry | None:
        return Sorry(table=burnt.table) if close(db, burnt.table, "sorry") else None

    if mistake != "no deadline":

        @waiter.deadline(Cook, within=timedelta(seconds=60), until=Cooked | Burnt)
        def give_up(wanted: Cook, db: Connection) -> Sorry | None:
            return Sorry(table=wanted.table) if close(db, wanted.table, "sorry") else None

    return waiter


def close(db: Connection, of: str, state: str) -> bool:
    return db.execute(_close.values(state=state), {"which": of}).rowcount > 0


def _kitchen(mistake: str) -> Service:
    kitchen = Service("kitchen")

    @kitchen.adapter
    async def stove() -> AsyncGenerator[Stove]:
        yield Stove()

    @kitchen.on(timeout=timedelta(seconds=10))
    async def cook(wanted: Cook, context: Context, stove: Stove) -> Cooked | Burnt:
        try:
            plate = await stove.cook(key=context.key, dish=wanted.dish)
        except BurntError:
            return Burnt(table=wanted.table)
        return Cooked(table=wanted.table, plate=plate)

    @cook.undo
    async def throw(cause: Sorry, cooked: Cooked, context: Context, stove: Stove) -> Thrown:
        key = cooked.table if mistake == "key" else context.key
        if mistake != "not undone":
            await stove.throw(key=key, plate=cooked.plate)
        return Thrown(table=cooked.table)

    return kitchen


def _cellar(mistake: str) -> Service:
    cellar = Service("cellar", tables=cellar_tables)

    @cellar.setup
    def fill(db: Connection) -> None:
        if db.scalar(_bottles) is None:
            db.execute(sa.insert(shelf), {"bottles": BOTTLES})

    @cellar.on
    def uncork(ordered: Ordered, db: Connection) -> Opened:
        db.execute(_take, {"change": -1})
        return Opened(table=ordered.table)

    @uncork.undo
    def cork(cause: Sorry, opened: Opened, db: Connection) -> Corked:
        if mistake != "half undone":
            db.execute(_take, {"change": 1})
        return Corked(table=opened.table)

    return cellar


def module(**more: Any) -> ModuleType:
    """What a project's module of rehearsals would have in it."""
    made = ModuleType("rehearsed_dinner")
    found = {"eat": eat, "Fire": Fire, "plates": plates, "bottles": bottles, **more}
    for name, one in found.items():
        one.__module__ = made.__name__
        setattr(made, name, one)
    return made


@stand_in(Stove)
class Fire:
    """Cooks, or burns."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        self.plates: dict[str, bool] = {}

    async def cook(self, *, key: str, dish: str) -> str:
        def act() -> str:
            if dish == "soufflé":
                raise BurntError
            plate = f"plate-{len(self.plates)}"
            self.plates[plate] = True
            return plate

        return await self.outside.once(key, ("cook", dish), act)

    async def throw(self, *, key: str, plate: str) -> None:
        await self.outside.once(key, ("throw", plate), lambda: self.plates.pop(plate))


@start("dinner")
def eat(random: Random) -> Story:
    """Come in, and order."""
    dish = random.choice(("soup", "fish", "soufflé"))
    yield Order(table=f"table-{random.randrange(10**6)}", dish=dish)


@invariant
def plates(world: World) -> Iterator[str]:
    """There is a plate for each dinner that was served."""
    served, there = len(list(world.of(Served))), len(world.outside(Fire).plates)
    if served != there:
        yield f"{there} plates for {served} dinners"


@invariant
def bottles(world: World) -> Iterator[str]:
    """A bottle is gone for each dinner that was served."""
    [row] = world.rows("cellar", shelf)
    if row.bottles + len(list(world.of(Served))) != BOTTLES:
        yield f"{row.bottles} bottles are left"


def stage(played: list[Service] | None = None, **more: Any) -> Stage:
    """The stage of a dinner, with these services (None: the three) and more of a module."""
    return Stage(project(played or services(), [dinner], module(**more)), load())


def stage_of_this_project() -> Stage:
    """The stage that `choreo rehearse` would play on here."""
    settings = load()
    found, flows = discovery.services(settings), discovery.flows(settings)
    return Stage(project(found, flows, *modules_of("rehearsals")), settings)


def unexpected(one: Actor, error: SystemExit) -> None:
    """Nobody is to leave."""
    pytest.fail(f"{one.name}: {error!r}")


def run(*arguments: str, cwd: str = str(ROOT), **env: str) -> subprocess.CompletedProcess[str]:
    """Run `choreo rehearse`, by default on this project."""
    return forked.choreo("rehearse", *arguments, cwd=Path(cwd), env={**os.environ, **env})
