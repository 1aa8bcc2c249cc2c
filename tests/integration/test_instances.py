"""Several instances of one service: side by side on PostgreSQL, refused on SQLite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import aio_pika
from audit import audit
from cast import ORDERS
from processes import run
from starts import mixed
from system import System

from contracts.orders import OrderCancelled


async def test_one_of_two_dies_for_good(
    amqp_url: str, postgres_url: str, create_databases: Callable[..., None], tmp_path: Path
) -> None:
    create_databases(*ORDERS)
    # A small prefetch, so that they share what there is.
    async with System(amqp_url, postgres_url, tmp_path, CHOREO_PREFETCH=5) as running:
        await running.start(*ORDERS, "inventory-2", "payments-2")
        async with await aio_pika.connect(amqp_url) as connection:
            channel = await connection.channel()
            for name in ("inventory", "payments"):
                queue = await channel.declare_queue(name, passive=True)
                assert queue.declaration_result.consumer_count == 2
        await running.under_way(mixed, 100)
        await running.kill_for_good("inventory-2")
        await running.kill_for_good("payments")
        await running.ended()
        audit(running)


async def test_deadlines_of_two_instances_run_once(
    amqp_url: str, postgres_url: str, create_databases: Callable[..., None], tmp_path: Path
) -> None:
    create_databases(*ORDERS)
    async with System(amqp_url, postgres_url, tmp_path, ORDERS_DEADLINE_S=1) as running:
        await running.start(*(one for one in ORDERS if one != "inventory"), "orders-2")
        await running.place(*mixed(60))
        await running.hears(lambda one: one.type == OrderCancelled.__address__.wire_type, 10)
        await running.crash("orders")
        await running.start("inventory")
        await running.ended()
        audit(running)
        # On a slow machine inventory is there before some of them are late.
        assert sum(ends == ["cancelled"] for ends in running.ends.values()) >= 10


async def test_a_second_one_on_sqlite_is_refused(amqp_url: str, tmp_path: Path) -> None:
    async with System(amqp_url, f"sqlite:///{tmp_path}/{{service}}.db", tmp_path) as running:
        await running.start("inventory")
        code, said = await run(running.argv("services.inventory"), running.env)
        assert code == 2
        [line] = said.splitlines()
        assert "inventory already runs on" in line
        assert "set CHOREO_DATABASE_URL to PostgreSQL" in line
        assert running.pid("inventory") is not None
