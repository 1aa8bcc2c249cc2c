"""One service in the test's own process, on a real broker and database, with hands on both ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aio_pika
import aiormq
import sqlalchemy as sa
from aiormq.abc import ChannelFrame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from structlog.testing import capture_logs

from choreo import Event, Service, process, rabbitmq, topology
from choreo import log as logs
from choreo.contract import Message, encode, subject_of
from choreo.envelope import Envelope, read, timestamp, traceparent
from choreo.identity import Ids
from choreo.seams import Delivery, SystemClock
from choreo.settings import Settings
from choreo.store.database import connect
from choreo.store.tables import dead, due, inbox, outbox, tombstones

TABLES = {
    "inbox": inbox, "outbox": outbox, "due": due, "tombstones": tombstones, "dead": dead,
}  # fmt: skip

#: Long enough for a machine that stands still for a while; what holds is seen at once.
PATIENCE_S = 60.0


async def until(condition: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
    """Wait until the condition holds; fails, naming it, when it does not in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not (found := condition()):
        if loop.time() > end:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(0.01)
    return found


class Stage:
    """Runs the service, publishes to it, and records what it announces."""

    def __init__(self, service: Service, url: str, database_url: str, var: Path, **given: Any):
        self.service = service
        self.url = url
        self.settings = Settings(
            amqp_url=url,
            database_url=database_url,
            var=var,
            **{
                "retry_first_s": 0.05,
                "retry_longest_s": 0.2,
                "lease_s": 2.0,
                "poll_s": 0.1,
                **given,
            },
        )
        #: What the journal has recorded of the service's own events, each once.
        self.deliveries: list[Delivery] = []
        self.ids = Ids(SystemClock(), random.Random())
        self.logs: list[Any] = []
        self._stack = AsyncExitStack()
        self._told: asyncio.Event | None = None
        self._running: asyncio.Task[None] | None = None
        self._engine = connect(self.settings.database_of(service.name))

    async def __aenter__(self) -> Self:
        async with rabbitmq.connected(self.url, self.settings, "stage", logs.logger("stage")) as b:
            await b.declare(topology.of([self.service]))
        self._connection = await aio_pika.connect(self.url)
        self._opened = await self._connection.channel()
        channel = await self._opened.get_underlay_channel()
        assert isinstance(channel, aiormq.Channel)
        self._channel = channel
        events = await self._stack.enter_async_context(rabbitmq.journal(self.url))

        async def record() -> None:
            known: set[str | None] = set()
            async for delivery in events:
                # Published again as no confirm came, it is there twice under one id.
                if delivery.app_id == self.service.name and delivery.message_id not in known:
                    known.add(delivery.message_id)
                    self.deliveries.append(delivery)

        self._recorder = asyncio.create_task(record())
        self.logs = self._stack.enter_context(capture_logs())
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.stop()
        self._recorder.cancel()
        await self._connection.close()
        await self._stack.aclose()
        self._engine.dispose()

    async def start(self) -> None:
        """Start the service and wait until it consumes."""
        seen = len(self.logs)
        self._told = asyncio.Event()
        self._running = asyncio.create_task(process.run(self.service, self.settings, self._told))

        def consuming() -> bool:
            if self._running is not None and self._running.done():
                self._running.result()
            return any(line["event"] == "consuming" for line in self.logs[seen:])

        try:
            await until(consuming, "the service consumes")
        except AssertionError as late:
            late.add_note(f"it said: {self.logs[seen:]}")
            raise

    async def stop(self) -> None:
        """Stop it as SIGTERM would."""
        if self._told is not None and self._running is not None:
            self._told.set()
            await self._running
            self._told = self._running = None

    async def publish(
        self,
        message: Message,
        *,
        id: str | None = None,  # noqa: A002
        flow: str | None = None,
        cause: str | None = None,
    ) -> str:
        """Publish a message of any contract; gives its id. With a flow it has a cause in it."""
        address = type(message).__address__
        identifier = id or self.ids.next()
        envelope = Envelope(
            id=identifier,
            type=address.wire_type,
            source="/stage/test",
            time=timestamp(SystemClock().now()),
            flow=flow or identifier,
            causation=cause or (flow and "the-cause"),
            subject=subject_of(message),
            traceparent=traceparent(flow or identifier, identifier),
        )
        await self.publish_raw(
            encode(message),
            exchange=address.exchange,
            routing_key=address.wire_type,
            message_id=identifier,
            type=address.wire_type,
            correlation_id=envelope.flow,
            headers=dict(envelope.headers()),
        )
        return identifier

    async def publish_raw(
        self, body: bytes, *, exchange: str, routing_key: str, **properties: Any
    ) -> None:
        """Publish any bytes with any properties, as a stranger would."""
        # Frame by frame, as aio-pika would give a message without an id one of its own.
        names = {"type": "message_type"}
        frames: list[Any] = [
            Basic.Publish(exchange=exchange, routing_key=routing_key),
            ContentHeader(
                body_size=len(body),
                properties=Basic.Properties(
                    delivery_mode=2,
                    **{names.get(name, name): value for name, value in properties.items()},
                ),
            ),
            ContentBody(body),
        ]
        channel = self._channel
        channel.delivery_tag += 1
        confirm = channel.confirmations[channel.delivery_tag] = channel.create_future()
        await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames))
        await confirm

    def events(self, kind: type[Event] | None = None) -> list[Delivery]:
        """The service's own events, or those of a contract."""
        wire_type = kind and kind.__address__.wire_type
        return [one for one in self.deliveries if wire_type in (None, one.wire_type)]

    def envelopes(self, kind: type[Event]) -> list[Envelope]:
        """The envelopes of the service's own events of a contract."""
        return [read(one, 0.0) for one in self.events(kind)]

    def rows(self, table: str | sa.Table) -> list[dict[str, Any]]:
        """A table of the service's database."""
        chosen = TABLES[table] if isinstance(table, str) else table
        with self._engine.begin() as db:
            return [dict(row) for row in db.execute(sa.select(chosen)).mappings()]

    def execute(self, work: Callable[[sa.Connection], Any]) -> Any:
        """Run something on the service's database, from outside."""
        with self._engine.begin() as db:
            return work(db)

    def time_is_up(self, handler: str) -> None:
        """Make what waits for its time with this handler due at once."""
        waiting = due.update().where(due.c.handler == handler)
        self.execute(lambda db: db.execute(waiting.values(at=0.0)))

    async def settled(self) -> None:
        """Wait until the service has nothing in hand: all acked, published and forgotten."""
        probe = await self._connection.channel()

        async def messages() -> int:
            queue = await probe.declare_queue(self.service.name, passive=True)
            return queue.declaration_result.message_count or 0

        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE_S
        while await messages() or self.rows("outbox"):
            if loop.time() > end:
                raise AssertionError(
                    f"not settled: {await messages()} messages, {self.rows('outbox')}"
                )
            await asyncio.sleep(0.02)
        await probe.close()
