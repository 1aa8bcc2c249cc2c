"""What the conformance tests ask of a broker, simulated or real: AMQP 0-9-1 as choreo uses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

QUORUM = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000}
STREAM = {"x-queue-type": "stream", "x-max-age": "7D", "x-max-length-bytes": 1_000_000_000}
NOT_FOUND, PRECONDITION_FAILED = 404, 406


class RefusedError(Exception):
    """The broker objected to a command and closed the channel."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Seen:
    """A delivery."""

    body: str
    redelivered: bool
    tag: int
    exchange: str
    routing_key: str
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]


@dataclass(eq=False)
class Consumer:
    """What a consumer has got so far."""

    tag: str = ""
    received: list[Seen] = field(default_factory=list)
    #: Whether the broker has ended it.
    is_cancelled: bool = False

    @property
    def bodies(self) -> list[str]:
        return [one.body for one in self.received]


class Channel(Protocol):
    """Every command raises RefusedError if the broker objects, or has closed the channel."""

    async def declare_exchange(
        self, name: str, kind: str = "topic", *, passive: bool = False
    ) -> None: ...
    async def declare_queue(
        self, name: str, arguments: Mapping[str, Any] = QUORUM, *, passive: bool = False
    ) -> tuple[int, int]:
        """Gives how many messages wait, and how many consumers there are."""
        ...

    async def delete_queue(self, name: str) -> None: ...
    async def bind(self, queue: str, exchange: str, key: str) -> None: ...
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
        """Gives what the broker says of it, in order: "returned", "confirmed"."""
        ...

    async def qos(self, prefetch: int) -> None: ...
    async def consume(self, queue: str, offset: int | str | datetime | None = None) -> Consumer: ...
    async def cancel(self, consumer: Consumer) -> None: ...
    async def ack(self, tag: int, *, multiple: bool = False) -> None: ...
    async def nack(self, tag: int, *, multiple: bool = False, requeue: bool = True) -> None: ...
    async def close(self) -> None: ...


class Connection(Protocol):
    async def channel(self) -> Channel: ...
    async def close(self) -> None: ...
    async def drop(self) -> None:
        """Lose it without a word."""
        ...


class Broker(Protocol):
    async def connect(self) -> Connection: ...
    async def until(self, condition: Callable[[], Awaitable[object]], what: str) -> None:
        """Let it do what it does by itself, until the condition holds; fails when it never does."""
        ...

    async def later(self, moment: datetime) -> None:
        """Let it be this time, at least; within a few seconds."""
        ...


async def channel_of(broker: Broker, *queues: str) -> Channel:
    """A channel on a connection of its own; the queues are there."""
    channel = await (await broker.connect()).channel()
    for queue in queues:
        await channel.declare_queue(queue)
    return channel


async def publish(channel: Channel, queue: str, bodies: Sequence[str] | str) -> None:
    """Publish to one queue."""
    for body in bodies:
        await channel.publish(body, queue)


async def counts(broker: Broker, channel: Channel, queue: str, *counted: int) -> None:
    """So many messages wait in the queue, and it has so many consumers.

    RabbitMQ counts some late, and none at all when it is too busy to ask the queue.
    """
    found: tuple[int, ...] = ()

    async def is_so() -> bool:
        nonlocal found
        found = await channel.declare_queue(queue, passive=True)
        return found == counted

    try:
        await broker.until(is_so, "counted")
    except AssertionError as error:
        raise AssertionError(f"{queue} counts {found}, not {counted}") from error


async def reached(
    broker: Broker,
    channel: Channel,
    consumers: Mapping[Consumer, Sequence[str] | str],
    **waiting: int,
) -> None:
    """Each consumer has got just this, and in each queue so many still wait."""
    state: Any = None

    async def is_so() -> bool:
        nonlocal state
        counts = {queue: (await channel.declare_queue(queue, passive=True))[0] for queue in waiting}
        state = [one.bodies for one in consumers], counts
        return bool(state == ([list(bodies) for bodies in consumers.values()], waiting))

    try:
        await broker.until(is_so, "delivered")
    except AssertionError as error:
        raise AssertionError(f"got {state}") from error
