"""What a measurement finds: queues filled beforehand and an empty database, removed afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import aio_pika
import aiormq
import psycopg
from aio_pika.abc import AbstractChannel
from pamqp.common import FieldTable
from psycopg import sql

from benchmark import hop
from benchmark.variants import Variant
from choreo.envelope import Envelope, timestamp, traceparent
from choreo.errors import CannotRunError
from choreo.node import end_with_parent
from choreo.rabbitmq.declare import DELIVERY_LIMIT

QUORUM: FieldTable = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
LONGEST_S = 300


class Stage:
    """A broker and perhaps a PostgreSQL, for one measurement after the other."""

    def __init__(
        self, channel: AbstractChannel, amqp_url: str, postgres_url: str | None, folder: Path
    ) -> None:
        self._channel = channel
        self._amqp_url = amqp_url
        self._postgres_url = postgres_url
        self._folder = folder

    async def measure(self, variant: Variant, messages: int, *, journal: bool) -> float:
        """How many messages a second a variant makes, in a process of its own."""
        async with self._database(variant) as database_url, self._queues(journal=journal):
            await self._fill(messages, with_envelope=variant.is_ours)
            job = hop.Job(self._amqp_url, messages, str(self._folder), database_url)
            if variant.instances > 1:
                return await self._measure_together(variant, job)
            seconds = await _run(variant, job)
            await self._check(messages)
        return messages / seconds

    async def _measure_together(self, variant: Variant, job: hop.Job) -> float:
        """What several processes make of one queue, from the first message that is out."""
        told = replace(job, messages=2 * job.messages)  # none of them can know when all is out
        tasks = [asyncio.create_task(_run(variant, told)) for _ in range(variant.instances)]
        try:
            starting, count = await self._until_out(1, tasks)
            ending, _ = await self._until_out(job.messages, tasks)
            await self._check(job.messages)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return (job.messages - count) / (ending - starting)

    async def _until_out(
        self, messages: int, tasks: Sequence[asyncio.Task[float]]
    ) -> tuple[float, int]:
        """Wait until so many are out; gives when, and how many are."""
        while True:
            out = await self._channel.declare_queue(hop.OUT, passive=True)
            if (count := out.declaration_result.message_count or 0) >= messages:
                return time.perf_counter(), count
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)

    @asynccontextmanager
    async def _queues(self, *, journal: bool) -> AsyncIterator[None]:
        await self._remove()
        channel = self._channel
        exchange = await channel.declare_exchange(hop.NAME, "topic", durable=True)
        for name, routing_key in ((hop.NAME, hop.PLACED), (hop.OUT, hop.RESERVED)):
            queue = await channel.declare_queue(name, durable=True, arguments=dict(QUORUM))
            await queue.bind(exchange, routing_key)
        if journal:
            stream = await channel.declare_queue(
                hop.JOURNAL, durable=True, arguments={"x-queue-type": "stream"}
            )
            await stream.bind(exchange, "#")
        try:
            yield
        finally:
            await self._remove()

    async def _remove(self) -> None:
        for name in (hop.NAME, hop.OUT, hop.JOURNAL):
            await self._channel.queue_delete(name)
        await self._channel.exchange_delete(hop.NAME)

    async def _fill(self, messages: int, *, with_envelope: bool) -> None:
        exchange = await self._channel.get_exchange(hop.NAME, ensure=False)
        for start in range(0, messages, 1000):
            each = (
                exchange.publish(_placed(with_envelope=with_envelope), hop.PLACED)
                for _ in range(start, min(start + 1000, messages))
            )
            await asyncio.gather(*each)

    async def _check(self, messages: int) -> None:
        """Nobody is fast by losing messages, or by saying them twice."""
        until = time.monotonic() + 10
        while True:
            out = await self._channel.declare_queue(hop.OUT, passive=True)
            came = out.declaration_result.message_count
            if came == messages:
                return
            if time.monotonic() > until:
                raise CannotRunError(f"{messages} messages went in, and {came} came out")
            await asyncio.sleep(0.05)

    @asynccontextmanager
    async def _database(self, variant: Variant) -> AsyncIterator[str | None]:
        if variant.on_postgres and self._postgres_url:
            address = self._postgres_url.partition("://")[2].rpartition("/")[0]
            _administer(self._postgres_url, "DROP DATABASE IF EXISTS {} WITH (FORCE)")
            _administer(self._postgres_url, "CREATE DATABASE {}")
            try:
                yield f"{variant.database}://{address}/{hop.NAME}"
            finally:
                _administer(self._postgres_url, "DROP DATABASE IF EXISTS {} WITH (FORCE)")
        elif variant.database:
            file = self._folder / f"{hop.NAME}.db"
            yield f"{variant.database}:///{file}"
            for leftover in self._folder.glob(f"{hop.NAME}.*"):
                leftover.unlink()
        else:
            yield None


def _administer(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(sql.Identifier(hop.NAME)))


async def _run(variant: Variant, job: hop.Job) -> float:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", variant.module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=end_with_parent,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LONGEST_S):
            said, complained = await process.communicate(json.dumps(asdict(job)).encode())
    except TimeoutError:
        raise CannotRunError(f"{variant.title}: not done within {LONGEST_S} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise CannotRunError(f"{variant.title} failed:\n{complained.decode().strip()}")
    seconds: float = json.loads(said)["seconds"]
    return seconds


def _placed(*, with_envelope: bool) -> aio_pika.Message:
    sku = f"SKU-{random.randrange(hop.SKUS)}"  # noqa: S311 - no secret
    line = hop.Line(sku=sku, quantity=2, unit_price="19.99")
    order = hop.Placed(
        order_id=uuid.uuid4().hex, customer_id="c-1", lines=[line] * 3, total="119.94"
    )
    message = aio_pika.Message(
        order.model_dump_json().encode(),
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=str(uuid.uuid4()),
    )
    if with_envelope:
        _wrap(message, order.order_id)
    return message


def _wrap(message: aio_pika.Message, subject: str) -> None:
    """Add all that choreo's own publishers add."""
    now = datetime.now(UTC)
    identifier = str(message.message_id)
    envelope = Envelope(
        id=identifier,
        type=hop.PLACED,
        source=f"/{hop.NAME}_orders/place",
        time=timestamp(now.timestamp()),
        flow=identifier,
        subject=subject,
        traceparent=traceparent(identifier, identifier),
    )
    message.correlation_id = envelope.flow
    message.type = envelope.type
    message.app_id = envelope.service
    message.timestamp = now
    message.headers = dict(envelope.headers())


@asynccontextmanager
async def stage(amqp_url: str, postgres_url: str | None, folder: Path) -> AsyncIterator[Stage]:
    """Connect to the broker; raises CannotRunError if another bench is using it."""
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        try:
            await channel.declare_queue(f"{hop.NAME}.lock", exclusive=True)
        except aiormq.exceptions.ChannelLockedResource:
            raise CannotRunError("another bench is running on this broker: wait for it") from None
        yield Stage(channel, amqp_url, postgres_url, folder)
