"""The port on the model."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from port import QUORUM, Consumer, RefusedError, Seen

from choreo.rehearse import rabbit
from choreo.rehearse.rabbit import ChannelClosedError, Delivered, Message


class Model:
    def __init__(self) -> None:
        self._now = time.time()
        self.rabbit = rabbit.Rabbit(lambda: self._now)

    async def connect(self) -> ModelConnection:
        return ModelConnection(self.rabbit.connect())

    async def until(self, condition: Callable[[], Awaitable[object]], what: str) -> None:
        self.rabbit.run()
        assert await condition(), what

    async def later(self, moment: datetime) -> None:
        self._now = max(self._now, moment.timestamp())


class ModelConnection:
    def __init__(self, connection: rabbit.Connection) -> None:
        self._connection = connection

    async def channel(self) -> ModelChannel:
        return ModelChannel(self._connection.channel())

    async def close(self) -> None:
        self._connection.close()

    async def drop(self) -> None:
        self._connection.drop()


class ModelChannel:
    def __init__(self, channel: rabbit.Channel) -> None:
        self._channel = channel
        self._consumers: dict[str, rabbit.Consumer] = {}

    async def declare_exchange(
        self, name: str, kind: str = "topic", *, passive: bool = False
    ) -> None:
        _do(self._channel.declare_exchange, name, kind, passive=passive)

    async def declare_queue(
        self, name: str, arguments: Mapping[str, Any] = QUORUM, *, passive: bool = False
    ) -> tuple[int, int]:
        found: tuple[int, int] = _do(self._channel.declare_queue, name, arguments, passive=passive)
        return found

    async def delete_queue(self, name: str) -> None:
        _do(self._channel.delete_queue, name)

    async def bind(self, queue: str, exchange: str, key: str) -> None:
        _do(self._channel.bind, queue, exchange, key)

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
        given = properties or {}
        native = {name: value for name, value in given.items() if name not in _OWN}
        own = {ours: given[name] for name, ours in _OWN.items() if name in given}
        message = Message(
            exchange, key, body.encode(), **own, headers=headers or {}, properties=native
        )
        is_taken = _do(self._channel.publish, message, mandatory=mandatory)
        return ["confirmed"] if is_taken else ["returned", "confirmed"]

    async def qos(self, prefetch: int) -> None:
        _do(self._channel.qos, prefetch)

    async def consume(self, queue: str, offset: int | str | datetime | None = None) -> Consumer:
        consumer = Consumer()

        def cancelled() -> None:
            consumer.is_cancelled = True

        found = _do(
            self._channel.consume,
            queue,
            lambda delivered: consumer.received.append(_seen(delivered)),
            offset=offset,
            on_cancel=cancelled,
        )
        consumer.tag = str(id(found))
        self._consumers[consumer.tag] = found
        return consumer

    async def cancel(self, consumer: Consumer) -> None:
        self._consumers[consumer.tag].cancel()

    async def ack(self, tag: int, *, multiple: bool = False) -> None:
        _do(self._channel.ack, tag, multiple=multiple)

    async def nack(self, tag: int, *, multiple: bool = False, requeue: bool = True) -> None:
        _do(self._channel.nack, tag, multiple=multiple, requeue=requeue)

    async def close(self) -> None:
        self._channel.close()


#: What a message of the model has beside its properties.
_OWN = {name: name for name in ("message_id", "correlation_id", "app_id")} | {
    "message_type": "wire_type"
}


def _seen(delivered: Delivered) -> Seen:
    message = delivered.message
    own = {name: getattr(message, ours) for name, ours in _OWN.items()}
    return Seen(
        body=message.body.decode(),
        redelivered=delivered.redelivered,
        tag=delivered.tag,
        exchange=message.exchange,
        routing_key=message.routing_key,
        headers=delivered.headers,
        properties={name: value for name, value in own.items() if value is not None}
        | dict(message.properties),
    )


def _do(command: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return command(*args, **kwargs)
    except ChannelClosedError as error:
        raise RefusedError(error.code) from error
