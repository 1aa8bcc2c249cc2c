"""FastStream with our guarantees: inbox and outbox in one SQLAlchemy transaction per message."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import Any

import sqlalchemy as sa
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue
from faststream.rabbit.annotations import RabbitMessage
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmark import hop
from benchmark.peers.faststream_bare import count_acks

PREFETCH = 100
CONNECTIONS = 20
QUEUE = RabbitQueue(hop.NAME, durable=True, declare=False)
EXCHANGE = RabbitExchange(hop.NAME, type=ExchangeType.TOPIC, durable=True, declare=False)

tables = sa.MetaData()
inbox = sa.Table("inbox", tables, sa.Column("id", sa.String, primary_key=True))
outbox = sa.Table(
    "outbox",
    tables,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("routing_key", sa.String, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
STORE = outbox.insert()
FORGET = outbox.delete().where(outbox.c.id == sa.bindparam("k_id"))


async def run(job: hop.Job, watch: hop.Stopwatch) -> None:
    """Consume, handle in a transaction, publish with confirm, forget, ack."""
    engine = await _database(job.database_url or "")
    is_sqlite = engine.dialect.name == "sqlite"
    # SQLite takes one writer: waiting here is cheaper than being told that it is busy.
    turn: Any = asyncio.Lock() if is_sqlite else contextlib.nullcontext()
    claim = (sqlite if is_sqlite else postgresql).insert(inbox).on_conflict_do_nothing()
    broker = RabbitBroker(
        job.amqp_url, default_channel=Channel(prefetch_count=PREFETCH), logger=None
    )

    @broker.subscriber(QUEUE)
    async def reserve(order: hop.Placed, message: RabbitMessage) -> None:
        async with turn, engine.begin() as db:
            claimed = await db.execute(claim, {"id": message.message_id})
            if not claimed.rowcount:
                return
            line = order.lines[0]
            await db.execute(hop.TAKE, {"k_sku": line.sku, "n": line.quantity})
            hold = {"order_id": order.order_id, "sku": line.sku, "quantity": line.quantity}
            await db.execute(hop.HOLD, hold)
            body = hop.Reserved(order_id=order.order_id).model_dump_json().encode()
            announced = str(uuid.uuid4())
            await db.execute(STORE, {"id": announced, "routing_key": hop.RESERVED, "body": body})
        await broker.publish(
            body,
            exchange=EXCHANGE,
            routing_key=hop.RESERVED,
            persist=True,
            message_id=announced,
        )
        async with turn, engine.begin() as db:
            await db.execute(FORGET, {"k_id": announced})

    count_acks(watch)
    await broker.connect()
    watch.start()
    await broker.start()
    await watch.done.wait()
    await broker.stop()
    await engine.dispose()


async def _database(url: str) -> AsyncEngine:
    if url.startswith("sqlite"):
        engine = create_async_engine(url, pool_size=1, max_overflow=0)
        sa.event.listen(engine.sync_engine, "connect", _as_safe_as_ours)
    else:
        engine = create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0)
    async with engine.begin() as db:
        await db.run_sync(tables.create_all)
        await db.run_sync(hop.tables.create_all)
        await db.execute(hop.stock.insert(), hop.FULL_STOCK)
    return engine


def _as_safe_as_ours(connection: Any, _: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


if __name__ == "__main__":
    hop.measure(run)
