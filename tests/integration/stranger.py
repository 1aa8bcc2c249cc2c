"""A client that writes its frames by hand: what AMQP has room for, and no library would send."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aio_pika
import aiormq
import pamqp.frame
from aiormq.abc import ChannelFrame
from pamqp.commands import Basic
from pamqp.constants import FRAME_BODY, FRAME_END_CHAR, FRAME_HEADER
from processes import PATIENCE_S

#: In the order of the wire; the first has the highest flag.
NAMES = ("content_type", "content_encoding", "headers", "delivery_mode", "priority",
         "correlation_id", "reply_to", "expiration", "message_id", "timestamp", "message_type",
         "user_id", "app_id")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Raw:
    """A message as it stands on the wire."""

    exchange: str
    routing_key: str
    body: bytes
    #: Native properties by name, each encoded.
    properties: Mapping[str, bytes] = field(default_factory=dict)
    #: Names, and values with their type before them.
    headers: Sequence[tuple[bytes, bytes]] = ()


def short(raw: bytes) -> bytes:
    """A short string, of any bytes."""
    return struct.pack(">B", len(raw)) + raw


def long(raw: bytes) -> bytes:
    """A long string, of any bytes; a table and an array begin alike."""
    return struct.pack(">I", len(raw)) + raw


def table(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A table, in which a name may come twice."""
    return long(b"".join(short(name) + value for name, value in fields))


class Stranger:
    """Publishes raw messages on a connection of its own."""

    def __init__(self, channel: aiormq.Channel) -> None:
        self._channel = channel

    async def publish(self, messages: Sequence[Raw]) -> None:
        """Publish them in this order, and wait until the broker has all."""
        channel, confirms = self._channel, []
        for _ in messages:
            channel.delivery_tag += 1
            confirm: asyncio.Future[Any] = channel.create_future()
            confirms.append(confirm)
            channel.confirmations[channel.delivery_tag] = confirm
        frames = b"".join(part for one in messages for part in self._frames(one))
        await channel.write_queue.put(ChannelFrame(frames, should_close=False))
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*confirms)

    def _frames(self, message: Raw) -> Iterable[bytes]:
        number, largest = self._channel.number, self._channel.max_content_size
        publish = Basic.Publish(exchange=message.exchange, routing_key=message.routing_key)
        yield pamqp.frame.marshal(publish, number)
        known = {**message.properties, "headers": table(message.headers)}
        flags = sum(1 << 15 - at for at, name in enumerate(NAMES) if name in known)
        header = struct.pack(">HHQH", Basic.frame_id, 0, len(message.body), flags)
        values = b"".join(known[name] for name in NAMES if name in known)
        yield _frame(FRAME_HEADER, number, header + values)
        for at in range(0, len(message.body), largest):
            yield _frame(FRAME_BODY, number, message.body[at : at + largest])


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + FRAME_END_CHAR


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Stranger]:
    """Connect a stranger."""
    async with await aio_pika.connect(url) as connection:
        opened = await connection.channel()
        channel = await opened.get_underlay_channel()
        assert isinstance(channel, aiormq.Channel)
        yield Stranger(channel)
