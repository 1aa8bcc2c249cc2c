"""Services that leave, join or are down while orders are under way, and nobody else is touched."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import pytest
import sqlalchemy as sa
from cast import ACCOUNTS, ORDERS
from processes import PATIENCE_S, run
from stage import until
from starts import a_registration, an_order, mixed
from system import System, SystemMaker, system_fixture  # noqa: F401 - a fixture

from choreo.store.database import connect
from contracts.accounts import AccountRegistered
from contracts.notifications import EmailSent
from contracts.orders import OrderPlaced
from contracts.rewards import PointsGranted
from contracts.shipping import ShipmentBooked
from services.crm import customers

pytestmark = pytest.mark.long_on_postgres

NEWCOMER = '''
"""Wrapping: a service that nobody knew when the others were started."""

from __future__ import annotations

from sqlalchemy import Column, MetaData, String, Table

from choreo import Connection, Event, Service
from contracts.orders import OrderCancelled, OrderPlaced

tables = MetaData()
parcels = Table("parcels", tables, Column("order_id", String, primary_key=True))
service = Service("wrapping", tables=tables)


class GiftWrapped(Event, topic="wrapping.wrapped", subject="order_id"):
    order_id: str


class GiftUnwrapped(Event, topic="wrapping.unwrapped", subject="order_id"):
    order_id: str


@service.on
def wrap(order: OrderPlaced, db: Connection) -> GiftWrapped:
    db.execute(parcels.insert(), {"order_id": order.order_id})
    return GiftWrapped(order_id=order.order_id)


@wrap.undo
def unwrap(cause: OrderCancelled, wrapped: GiftWrapped, db: Connection) -> GiftUnwrapped:
    db.execute(parcels.delete().where(parcels.c.order_id == wrapped.order_id))
    return GiftUnwrapped(order_id=wrapped.order_id)


if __name__ == "__main__":
    service.run()
'''
MANY = 60


@asynccontextmanager
async def untouched(running: System, *, but: str = "") -> AsyncIterator[None]:
    """No other service is restarted, and none logs an error, while the block lasts."""
    others = [name for name in running.services if name != but]
    before, seen = [running.pid(name) for name in others], len(running.logs)
    yield
    assert [running.pid(name) for name in others] == before
    assert [one.text for one in running.logs[seen:] if one.entry.get("level") == "error"] == []


async def under_way(running: System, prefix: str) -> set[str]:
    """Place many orders; gives their flows once the first have ended, and most have not."""
    flows = await running.place(*mixed(MANY, prefix=prefix))
    await until(lambda: running.ends.keys() & set(flows), "some have ended", PATIENCE_S)
    return set(flows)


async def all_ended(running: System, flows: set[str]) -> None:
    await until(lambda: flows <= running.ends.keys(), "all have ended", PATIENCE_S)
    assert all(len(running.ends[flow]) == 1 for flow in flows)


async def test_a_service_leaves_for_good(system: SystemMaker) -> None:
    async with system() as running:
        await running.start()
        async with untouched(running, but="rewards"):
            flows = await under_way(running, "first-")
            await running.stop("rewards")
            async with await aio_pika.connect(running.url) as connection:
                await (await connection.channel()).queue_delete("rewards")
            await running._mark()
            granted = len(running.events(PointsGranted))
            flows |= set(await running.place(*mixed(MANY, prefix="second-")))
            await all_ended(running, flows)
            [member] = await running.place(an_order("member", member=True))
            await all_ended(running, {member})
            # The two that are left of the three come all the same.
            await until(
                lambda: all(
                    member in {one.flow for one in running.events(kind)}
                    for kind in (EmailSent, ShipmentBooked)
                ),
                "mail and shipment",
            )
        await running._mark()
        assert len(running.events(PointsGranted)) == granted
        for name in ORDERS:
            if name != "rewards":
                assert running.rows(name, "dead") == []


async def test_a_service_that_nobody_knew_joins(
    system: SystemMaker, create_databases: Callable[..., None], tmp_path: Path
) -> None:
    package = tmp_path / "newcomers"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "wrapping.py").write_text(NEWCOMER)
    create_databases("wrapping")
    async with system() as running:
        await running.start()
        env = dict(running.env) | {
            "PYTHONPATH": f"{tmp_path}:{running.env['PYTHONPATH']}", "CHOREO_SERVICES": "newcomers",
        }  # fmt: skip
        async with untouched(running):
            before = await under_way(running, "before-")
            code, said = await run([sys.executable, "-m", "choreo", "declare"], env)
            assert code == 0, said
            # From here it hears all, though its process is not there yet.
            after = await under_way(running, "after-")
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "newcomers.wrapping", env=env
            )
            try:
                await all_ended(running, before | after)
                ended = {flow: end for flow, [end] in running.ends.items()}
                placed = [one for one in running.events(OrderPlaced) if one.flow in after]
                fulfilled = {one.subject for one in placed if ended[one.flow] == "fulfilled"}
                cancelled = {one.subject for one in placed if ended[one.flow] == "cancelled"}
                assert fulfilled
                assert cancelled
                await until(lambda: wrapped(running) == fulfilled, "what lives is wrapped")
            finally:
                process.terminate()
                await process.wait()
        engine = connect(running.settings.database_of("wrapping"))
        with engine.begin() as db:
            kept = list(db.scalars(sa.text("SELECT order_id FROM parcels")))
        engine.dispose()
        assert set(kept) == fulfilled
        await running.settled()


def wrapped(running: System) -> set[str | None]:
    """The orders that are wrapped, and not unwrapped again."""
    said = [one for one, _ in running.journal.values() if one.service == "wrapping"]
    unwrapped = {one.subject for one in said if one.type == "wrapping.unwrapped.v1"}
    return {one.subject for one in said} - unwrapped


async def test_a_service_that_was_down_misses_nothing(system: SystemMaker) -> None:
    """crm comes back after as much as an hour brings, and has processed each event once."""
    many = 500
    async with system(ACCOUNTS) as running:
        await running.start()
        await running.stop("crm")
        await running.place(*(a_registration(number) for number in range(many)))
        await until(
            lambda: len(running.events(EmailSent)) == many, "all have their mail", 4 * PATIENCE_S
        )
        await running.start("crm")
        await running.ended()
        processed = running.rows("crm", customers.processed)
        heard = [*running.events(AccountRegistered), *running.events(EmailSent)]
        assert sorted(one["message_id"] for one in processed) == sorted(one.id for one in heard)
        profiles = running.rows("crm", customers.accounts)
        assert len(profiles) == many
