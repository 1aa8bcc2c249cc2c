"""The port on a real broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import aiormq
from aiormq.connection import TCPTransportFactory
from pamqp.commands import Basic
from port import QUORUM, Consumer, RefusedError, Seen

WITHIN_S = 60.0
_CODES = {
    aiormq.exceptions.ChannelNotFoundEntity: 404,
    aiormq.exceptions.ChannelPreconditionFailed: 406,
}
#: pamqp adds a `cluster_id`, which AMQP 0-9-1 has no more.
_PROPERTIES = set(Basic.Properties.attributes()) - {"headers", "cluster_id"}


class RabbitMQ:
    """Whoever makes it closes it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connections: list[RabbitMQConnection] = []

    async def connect(self) -> RabbitMQConnection:
        lines = _Lines()
        connection = aiormq.Connection(self.url, transport_factory=lines)
        await connection.connect()
        found = RabbitMQConnection(connection, lines)
        self._connections.append(found)
        return found

    async def until(
        self, condition: Callable[[], Awaitable[object]], what: str, within_s: float = WITHIN_S
    ) -> None:
        end = time.monotonic() + within_s
        while not await condition():
            assert time.monotonic() < end, f"not within {within_s:g} s: {what}"
            await asyncio.sleep(0.005)

    async def later(self, moment: datetime) -> None:
        async def is_later() -> bool:
            return datetime.now(UTC) >= moment

        await self.until(is_later, f"it is {moment}")

    async def close(self) -> None:
        for connection in self._connections:
            with suppress(Exception):  # the test has broken what it wanted to
                await connection.close()


class _Lines(TCPTransportFactory):
    """Keeps hold of the connection's socket."""

    async def create(self, *args: Any, **kwargs: Any) -> Any:
        reader, self.writer = await super().create(*args, **kwargs)
        return reader, self.writer


class RabbitMQConnection:
    def __init__(self, connection: aiormq.Connection, lines: _Lines) -> None:
        self._connection = connection
        self._lines = lines

    async def channel(self) -> RabbitMQChannel:
        channel: Any = await self._connection.channel(on_return_raises=False)
        return RabbitMQChannel(channel)

    async def close(self) -> None:
        await self._connection.close()

    async def drop(self) -> None:
        self._lines.writer.transport.abort()
        with suppress(Exception):
            await self._connection.close()


class RabbitMQChannel:
    def __init__(self, channel: aiormq.Channel) -> None:
        self._channel = channel
        self._returned: set[str] = set()
        self._numbers = 0
        self._consumers: dict[str, Consumer] = {}
        channel.on_return_callbacks.add(self._on_return)
        channel.on_consumer_cancel_callbacks.add(self._on_cancel)

    def _on_return(self, message: Any) -> None:
        self._returned.add(message.header.properties.message_id)

    def _on_cancel(self, frame: Any) -> None:
        self._consumers[frame.consumer_tag].is_cancelled = True

    async def declare_exchange(
        self, name: str, kind: str = "topic", *, passive: bool = False
    ) -> None:
        async with self._refusals():
            await self._channel.exchange_declare(
                name, exchange_type=kind, passive=passive, durable=True
            )

    async def declare_queue(
        self, name: str, arguments: Mapping[str, Any] = QUORUM, *, passive: bool = False
    ) -> tuple[int, int]:
        async with self._refusals():
            found = await self._channel.queue_declare(
                name, passive=passive, durable=True, arguments=None if passive else dict(arguments)
            )
            return found.message_count or 0, found.consumer_count or 0

    async def delete_queue(self, name: str) -> None:
        async with self._refusals():
            await self._channel.queue_delete(name)

    async def bind(self, queue: str, exchange: str, key: str) -> None:
        async with self._refusals():
            await self._channel.queue_bind(queue, exchange, key)

    async def publish(
        self,
        body: str,
        key: str,
        exchange: str = "",
        *,
        mandatory: bool = False,
        headers: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> list[str]:
        self._numbers += 1
        given = {"message_id": f"m{self._numbers}", "delivery_mode": 2, **(properties or {})}
        native = Basic.Properties(**given, headers=dict(headers) if headers else None)
        async with self._refusals():
            await self._channel.basic_publish(
                body.encode(), exchange=exchange, routing_key=key, mandatory=mandatory,
                properties=native,
            )  # fmt: skip
        # aiormq answers when the confirm has come: what was returned was returned before.
        return ["returned", "confirmed"] if given["message_id"] in self._returned else ["confirmed"]

    async def qos(self, prefetch: int) -> None:
        async with self._refusals():
            await self._channel.basic_qos(prefetch_count=prefetch)

    async def consume(self, queue: str, offset: int | str | datetime | None = None) -> Consumer:
        consumer = Consumer()

        async def on_message(message: Any) -> None:
            consumer.received.append(_seen(message))

        arguments: Any = {} if offset is None else {"x-stream-offset": offset}
        async with self._refusals():
            found = await self._channel.basic_consume(queue, on_message, arguments=arguments)
        consumer.tag = str(found.consumer_tag)
        self._consumers[consumer.tag] = consumer
        return consumer

    async def cancel(self, consumer: Consumer) -> None:
        async with self._refusals():
            await self._channel.basic_cancel(consumer.tag)

    async def ack(self, tag: int, *, multiple: bool = False) -> None:
        async with self._refusals():
            await self._channel.basic_ack(tag, multiple=multiple)
            await self._answer()

    async def nack(self, tag: int, *, multiple: bool = False, requeue: bool = True) -> None:
        async with self._refusals():
            await self._channel.basic_nack(tag, multiple=multiple, requeue=requeue)
            await self._answer()

    async def close(self) -> None:
        await self._channel.close()

    async def _answer(self) -> None:
        """Wait until the broker has come to something that it answers."""
        await self._channel.exchange_declare("amq.topic", passive=True)

    @asynccontextmanager
    async def _refusals(self) -> AsyncIterator[None]:
        try:
            yield
        except (aiormq.AMQPError, aiormq.exceptions.ChannelInvalidStateError) as error:
            closing = self._channel.closing
            why = closing.exception() if closing.done() and not closing.cancelled() else error
            raise RefusedError(_CODES.get(type(why), 0)) from error  # type: ignore[arg-type]


def _seen(message: Any) -> Seen:
    properties = message.header.properties
    return Seen(
        body=message.body.decode(),
        redelivered=bool(message.delivery.redelivered),
        tag=message.delivery.delivery_tag,
        exchange=message.delivery.exchange,
        routing_key=message.delivery.routing_key,
        headers=properties.headers or {},
        properties={
            name: value for name in _PROPERTIES if (value := getattr(properties, name)) is not None
        },
    )
