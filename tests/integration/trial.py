"""One service on a line that can be broken, under a load that goes on, and its reckoning.

The load and the reckoning reach the broker directly: no fault of the line touches them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aio_pika
import aiormq
from stage import Stage, until
from theatre import Booked, Greeted, Held, Theatre
from yarl import URL

from choreo.contract import encode
from choreo.envelope import read
from choreo.rabbitmq.journal import past

#: Nothing is given up because a machine stands still; tests of just that are given less.
PATIENCE: dict[str, Any] = {"heartbeat_s": 60, "publish_timeout_s": 60.0}
_LOST = (aiormq.AMQPError, aiormq.exceptions.ChannelInvalidStateError, OSError, TimeoutError)


class Trial(Stage):
    """The theatre on a line, with a load of bookings."""

    def __init__(self, broker_url: str, line_url: str, var: Path, **given: Any) -> None:
        self.ready = var / "ready"
        self.theatre = Theatre()
        self._file = var / "theatre.db"
        super().__init__(
            self.theatre.service, broker_url, f"sqlite:///{self._file}", var,
            ready_file=self.ready, **{**PATIENCE, **given},
        )  # fmt: skip
        self.settings = self.settings.model_copy(update={"amqp_url": line_url})
        #: The seats whose bookings the broker has confirmed.
        self.booked: list[str] = []
        #: Whether it was ready, each time that it changed.
        self.readiness: list[bool] = []
        self._loading = False
        #: Whether a booking was sent that the broker has not confirmed: it may be held as well.
        self._in_doubt = False
        self._load: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for task in (self._watching, self._load):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        with suppress(*_LOST):  # its own connection may have been the broker's victim, too
            await super().__aexit__(kind, error, at)

    def load(self) -> None:
        """Book seats from now on, one after the other."""
        self._loading = True
        self._load = asyncio.create_task(self._book())

    async def pause(self) -> None:
        """End the load; what is booked by then, is booked."""
        self._loading = False
        if self._load is not None:
            await self._load

    @contextmanager
    def locked_database(self) -> Iterator[None]:
        """Nothing can be handled meanwhile, and so nothing is acked."""
        with closing(sqlite3.connect(self._file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")

    async def more(self, seats: int = 30) -> None:
        """Wait until so many more seats are booked and held."""
        wanted = len(self.booked) + seats
        await self.until(lambda: len(self.held()) >= wanted, f"{seats} more are held")

    def held(self) -> list[str]:
        """The seats that were held, each as often as it was."""
        return [row["seat"] for row in self.rows(self.theatre.seats)]

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait with the patience that recovery from a fault may need."""
        if self._running is not None and self._running.done():
            self._running.result()
        await until(condition, what)

    async def reckoning(self) -> None:
        """End the load, let all come to rest, and count: everything once, nothing left."""
        await self.pause()
        await self.until(lambda: len(set(self.held())) >= len(self.booked), "all are held")
        await self.until(lambda: not self.rows("outbox") and self._greeted(), "all is published")
        assert Counter(self.held()) == Counter(self.booked)
        assert self.rows("due") == self.rows("dead") == []
        await self.stop()
        assert not self.ready.exists()
        await self._reckon_broker()

    async def _reckon_broker(self) -> None:
        """What is not acked would be in the queue again by now."""
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(self.service.name, passive=True)
            assert queue.declaration_result.message_count == 0
        found: dict[str, list[str]] = {
            Held.__address__.wire_type: [],
            Greeted.__address__.wire_type: [],
        }
        seen: set[str] = set()
        async with past(self.url) as events:
            async for piece in events:
                for _, delivery in piece:
                    envelope = read(delivery, 0.0)
                    if envelope.type in found and envelope.id not in seen:
                        seen.add(envelope.id)
                        found[envelope.type].append(envelope.flow)
        for wire_type, flows in found.items():
            sent, kept = Counter(self.booked), Counter(flows)
            lost, doubled = ([*map(self.booked.index, one)] for one in (sent - kept, kept - sent))
            assert (lost, doubled) == ([], []), (
                f"{wire_type} in the journal, of {len(self.booked)}: lost {lost}, doubled {doubled}"
            )

    def _greeted(self) -> bool:
        """Whether the second step of every booking was taken."""
        handled = Counter(row["handler"] for row in self.rows("inbox"))
        return handled["greet"] == len(self.booked)

    async def _book(self) -> None:
        while self._loading or self._in_doubt:
            connection = aio_pika.Connection(URL(self.url))
            with suppress(*_LOST):
                await connection.connect(timeout=5)
                channel = await connection.channel()
                exchange = await channel.get_exchange("stage", ensure=False)
                while self._loading or self._in_doubt:
                    seat = str(len(self.booked))
                    self._in_doubt = True
                    async with asyncio.timeout(5):
                        await exchange.publish(_booking(seat), Booked.__address__.wire_type)
                    self.booked.append(seat)
                    self._in_doubt = False
                    await asyncio.sleep(0.02)
            with suppress(*_LOST):
                await connection.close()
            await asyncio.sleep(0.05)

    async def _watch(self) -> None:
        while True:
            if not self.readiness or self.ready.exists() != self.readiness[-1]:
                self.readiness.append(self.ready.exists())
            await asyncio.sleep(0.01)


def _booking(seat: str) -> aio_pika.Message:
    """As any client would write it; the seat is the message's id, and so the flow's."""
    return aio_pika.Message(
        encode(Booked(trip=seat, seat=seat)),
        message_id=seat,
        type=Booked.__address__.wire_type,
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
