"""The hop that everybody runs: consume `Placed`, publish `Reserved`, and how long N of them take.

A measurement is a process of its own: it reads its `Job` from standard input, and writes the
seconds from the moment before it consumes until the last message is out to standard output.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
import uvloop
from pydantic import BaseModel

#: The exchange, the queue that is consumed, and the beginning of all other names.
NAME = "choreo_bench"
OUT = f"{NAME}.out"
JOURNAL = f"{NAME}.journal"
PLACED, RESERVED = f"{NAME}.placed.v1", f"{NAME}.reserved.v1"
SKUS = 100

#: What the two statements of business SQL work on.
tables = sa.MetaData()
stock = sa.Table(
    "stock",
    tables,
    sa.Column("sku", sa.String, primary_key=True),
    sa.Column("quantity", sa.Integer, nullable=False),
)
holds = sa.Table(
    "holds",
    tables,
    sa.Column("order_id", sa.String, primary_key=True),
    sa.Column("sku", sa.String, nullable=False),
    sa.Column("quantity", sa.Integer, nullable=False),
)
FULL_STOCK = [{"sku": f"SKU-{number}", "quantity": 10**9} for number in range(SKUS)]
TAKE = (
    sa.update(stock)
    .where(stock.c.sku == sa.bindparam("k_sku"), stock.c.quantity >= sa.bindparam("n"))
    .values(quantity=stock.c.quantity - sa.bindparam("n"))
)
HOLD = holds.insert()


class Line(BaseModel):
    """One line of an order."""

    sku: str
    quantity: int
    unit_price: str


class Placed(BaseModel):
    """What comes in."""

    order_id: str
    customer_id: str
    lines: list[Line]
    total: str


class Reserved(BaseModel):
    """What goes out."""

    order_id: str


@dataclass(frozen=True)
class Job:
    """What a measurement is told."""

    amqp_url: str
    messages: int
    #: Where files may lie.
    folder: str
    #: None for who needs no database.
    database_url: str | None = None

    @property
    def path(self) -> Path:
        """Where files may lie."""
        return Path(self.folder)


class Stopwatch:
    """Measures from `start` until so many messages were counted."""

    def __init__(self, messages: int) -> None:
        self._left = messages
        self._started = 0.0
        self.seconds = 0.0
        self.done = asyncio.Event()

    def start(self) -> None:
        """Start."""
        self._started = time.perf_counter()

    def count(self, messages: int = 1) -> None:
        """So many more are out; the last one stops it."""
        self._left -= messages
        if self._left <= 0 and not self.done.is_set():
            self.seconds = time.perf_counter() - self._started
            self.done.set()


def measure(variant: Callable[[Job, Stopwatch], Awaitable[None]]) -> None:
    """Run a variant as this process."""
    job = Job(**json.load(sys.stdin))
    watch = Stopwatch(job.messages)

    async def run() -> None:
        await variant(job, watch)

    uvloop.run(run())
    print(json.dumps({"seconds": watch.seconds}))
