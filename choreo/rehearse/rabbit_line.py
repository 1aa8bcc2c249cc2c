"""How a service's messages travel: its connections, and what is under way on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from choreo.envelope import LONGEST
from choreo.rehearse.rabbit import Channel, Connection, Delivered, Message, Rabbit
from choreo.seams import Delivery, Origin, Outgoing


def message_of(outgoing: Outgoing, now: float) -> Message:
    """A message of our own as it goes onto the wire; raises ValueError if a name is too long."""
    envelope = outgoing.envelope
    for name in (envelope.id, envelope.type, envelope.flow, envelope.service):
        if len(name.encode()) > LONGEST:
            raise ValueError(f"{name!r} is over {LONGEST} bytes")
    return Message(
        exchange=outgoing.exchange,
        routing_key=outgoing.routing_key,
        body=outgoing.body,
        message_id=envelope.id,
        wire_type=envelope.type,
        correlation_id=envelope.flow,
        app_id=envelope.service,
        headers=envelope.headers(),
        properties={
            "content_type": "application/json",
            "delivery_mode": 2,
            "timestamp": datetime.fromtimestamp(int(now), UTC),
        },
    )


def delivery_of(delivered: Delivered, origin: Origin) -> Delivery:
    """What came off the wire, as `choreo.rabbitmq` hands it over."""
    message = delivered.message
    return Delivery(
        body=message.body,
        message_id=message.message_id,
        wire_type=message.wire_type,
        correlation_id=message.correlation_id,
        app_id=message.app_id,
        headers=delivered.headers,
        properties=message.properties,
        exchange=message.exchange,
        routing_key=message.routing_key,
        redelivered=delivered.redelivered,
        tag=delivered.tag,
        channel=origin,
    )


class Line:
    """One connection with one channel, opened again whenever that is decided."""

    def __init__(
        self, rabbit: Rabbit, prepare: Callable[[], None], on_lost: Callable[[str], None]
    ) -> None:
        self._rabbit = rabbit
        self._prepare = prepare
        self._on_lost = on_lost
        self.connection: Connection | None = None
        self.channel: Channel | None = None
        self._opened = asyncio.Event()
        self.is_lost = False

    async def ready(self) -> tuple[Connection, Channel]:
        """Wait until it is open."""
        while self.connection is None or self.channel is None:
            await self._opened.wait()
        return self.connection, self.channel

    def open(self) -> None:
        """Open it; raises ConnectionRefusedError while the broker is stopped."""
        self.connection = self._rabbit.connect()
        self.connection.on_lost = self._lost
        self.channel = self.connection.channel()
        self._prepare()
        self.is_lost = False
        self._opened.set()

    def drop(self, why: str) -> None:
        """Lose it, if it is open."""
        if self.connection is not None:
            self.connection.drop(why)

    def _lost(self, why: str) -> None:
        self.connection = self.channel = None
        self.is_lost = True
        self._opened.clear()
        self._on_lost(why)

    def close(self) -> None:
        """Close it for good."""
        connection, self.connection, self.channel = self.connection, None, None
        self.is_lost = False
        self._opened.clear()
        if connection is not None:
            connection.close()


@dataclass(slots=True, eq=False)
class Batch:
    """What one call publishes, on its way to the broker and back."""

    messages: Sequence[tuple[Message, bool]]
    channel: Channel
    #: Why it came to an end early; empty if it did not.
    done: asyncio.Future[str]
    #: How many of them, the first ones, have come to the broker, and how many are confirmed.
    arrived: int = 0
    confirmed: int = 0
    #: Why the broker did not take a message, by id.
    returned: dict[str, str] = field(default_factory=dict)

    def end(self, why: str) -> None:
        """Let whoever waits for it go on."""
        if not self.done.done():
            self.done.set_result(why)
