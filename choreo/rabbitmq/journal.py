"""Reads the journal: every event of the last days, in order of arrival."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import Any

import aiormq
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from yarl import URL

from choreo.envelope import UNREADABLE
from choreo.errors import CannotRunError
from choreo.rabbitmq.link import CONNECT_TIMEOUT_S, explain, first_of
from choreo.rabbitmq.messages import delivery_of
from choreo.seams import Delivery
from choreo.topology import JOURNAL

#: So many events are under way to a reader, and are handed to it together.
PREFETCH = 500
_ACKED_TOGETHER = 100
#: The most that AMQP can say: the last chunk of the stream is wanted whole.
_ALL_AT_ONCE = 65_535
#: When nothing comes for so long after a point in time, nothing is behind it.
_SILENCE_S = 5.0
_OFFSET = "x-stream-offset"
#: How its header is written, but for the eight bytes of the number.
_OFFSET_WRITTEN = bytes((len(_OFFSET),)) + _OFFSET.encode() + b"l"
_LOST = (aiormq.AMQPError, aiormq.exceptions.ChannelInvalidStateError, ConnectionError)


@asynccontextmanager
async def journal(
    url: str, *, offset: str = "next"
) -> AsyncGenerator[AsyncIterator[Delivery], None]:
    """Read the journal as it grows; `offset`: "next" for what comes, "first" for all it keeps.

    Attached when the block is entered, so nothing that is published inside it is missed. The
    iterator ends when the connection is lost. Raises CannotRunError if there is no broker or
    no journal yet.
    """
    async with _connected(url) as connection:
        reader = await _attach(connection, offset)

        async def read() -> AsyncGenerator[Delivery, None]:
            while events := await reader.take():
                for _, delivery in events:
                    yield delivery

        yield read()


class Past:
    """What the journal held when it was opened, in pieces: each event with its offset."""

    def __init__(self, reader: Reader, last: int, *, may_be_empty: bool) -> None:
        self._reader = reader
        #: The offset of the newest event; -1 if there is none.
        self.last = last
        self._may_be_empty = may_be_empty

    async def __aiter__(self) -> AsyncGenerator[list[tuple[int, Delivery]], None]:
        """Raises CannotRunError if the connection is lost before the end."""
        reached, silence_s = -1, _SILENCE_S if self._may_be_empty else None
        while reached < self.last:
            try:
                events = await asyncio.wait_for(self._reader.more(), silence_s)
            except TimeoutError:
                return
            reached, silence_s = events[-1][0], None
            if wanted := [one for one in events if one[0] <= self.last]:
                yield wanted


@asynccontextmanager
async def past(url: str, *, start: int | datetime = 0) -> AsyncGenerator[Past, None]:
    """Read what the journal keeps now, from an offset or a time on, and no further.

    From a time on there may be some earlier events, too. Raises CannotRunError if there is no
    broker or no journal yet.
    """
    async with _connected(url) as connection:
        last = await _last(connection)
        if isinstance(start, int) and start > last:
            last = -1
        reader = await _attach(connection, start)
        yield Past(reader, last, may_be_empty=isinstance(start, datetime))


class Reader:
    """Consumes the journal: what is not taken holds up the broker, and takes no memory."""

    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel
        self._arrived: asyncio.Queue[DeliveredMessage | None] = asyncio.Queue()
        self._unacked = 0

    async def attach(self, offset: str | int | datetime, prefetch: int = PREFETCH) -> None:
        """Begin to consume; raises CannotRunError if there is no journal, or not yet again."""

        async def on_message(message: DeliveredMessage) -> None:
            self._arrived.put_nowait(message)

        def end(_: object) -> None:
            self._arrived.put_nowait(None)

        channel = self._channel
        channel.closing.add_done_callback(end)
        channel.on_consumer_cancel_callbacks.add(end)
        with _readable():
            await channel.basic_qos(prefetch_count=prefetch)
            await channel.basic_consume(JOURNAL, on_message, arguments={_OFFSET: offset})

    @property
    def is_empty(self) -> bool:
        """Whether nothing has arrived that is not taken."""
        return self._arrived.empty()

    async def take(self) -> list[tuple[int, Delivery]]:
        """Wait for events and take what there is, up to a bound; nothing: the link is lost."""
        taken: list[DeliveredMessage] = []
        while not taken or (len(taken) < PREFETCH and not self._arrived.empty()):
            message = await self._arrived.get()
            if message is None:
                self._arrived.put_nowait(None)
                break
            taken.append(message)
        self._unacked += len(taken)
        if self._unacked >= _ACKED_TOGETHER:
            self._unacked = 0
            frame: Any = taken[-1].delivery
            with suppress(*_LOST):
                await self._channel.basic_ack(frame.delivery_tag, multiple=True, wait=False)
        return [_event(one) for one in taken]

    async def more(self) -> list[tuple[int, Delivery]]:
        """The same, but raises CannotRunError when the link is lost."""
        if events := await self.take():
            return events
        raise CannotRunError(
            "the connection to the broker was lost while the journal was read: start again"
        )


@contextmanager
def _readable() -> Iterator[None]:
    """Say what it means that the journal cannot be read."""
    try:
        yield
    except _LOST as error:
        is_missing = isinstance(error, aiormq.exceptions.ChannelNotFoundEntity)
        if is_missing and "no queue" in str(error):
            raise CannotRunError(
                "the broker has no journal yet: run 'choreo declare', or start a service"
            ) from error
        raise CannotRunError(
            f"the journal cannot be read now ({error}): it is back some seconds later than the "
            "broker is, try again then"
        ) from error


@asynccontextmanager
async def _connected(url: str) -> AsyncGenerator[AbstractConnection, None]:
    try:
        connection = await first_of(url, _connect)
    except ValueError as error:
        raise CannotRunError(explain(error, url)) from error
    try:
        yield connection
    finally:
        await connection.close()


async def _connect(url: URL) -> AbstractConnection:
    connection = aiormq.Connection(url)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connection.connect()
    except BaseException:
        await connection.close()
        raise
    return connection


async def _attach(connection: AbstractConnection, offset: str | int | datetime) -> Reader:
    reader = Reader(await connection.channel())
    await reader.attach(offset)
    return reader


async def _last(connection: AbstractConnection) -> int:
    """The offset of the newest event; -1 if there is none.

    The broker hands its last chunk over in one go: what is asked when the first event of it has
    come is answered behind the last one. How many events it counts is seconds old: where it counts
    none, only silence says that there are none.
    """
    channel = await connection.channel()
    reader = Reader(channel)
    await reader.attach("last", _ALL_AT_ONCE)
    with _readable():
        counted = (await channel.queue_declare(JOURNAL, passive=True)).message_count
        events: list[tuple[int, Delivery]] = []
        wait_s = CONNECT_TIMEOUT_S if counted else _SILENCE_S
        try:
            events = await asyncio.wait_for(reader.more(), wait_s)
            await channel.queue_declare(JOURNAL, passive=True, timeout=CONNECT_TIMEOUT_S)
        except TimeoutError as error:
            if counted or events:
                raise CannotRunError(
                    f"the journal hands nothing over within {CONNECT_TIMEOUT_S} s: try again"
                ) from error
    while not reader.is_empty:
        events = await reader.more()
    await channel.close()
    return events[-1][0] if events else -1


def _event(message: DeliveredMessage) -> tuple[int, Delivery]:
    """An event and its offset, which the broker wrote among its headers."""
    delivery = delivery_of(message)
    headers = dict(delivery.headers)
    offset = headers.pop(_OFFSET, None)
    if not isinstance(offset, int):
        written: bytes = headers[UNREADABLE]
        at = written.rindex(_OFFSET_WRITTEN) + len(_OFFSET_WRITTEN)
        offset = int.from_bytes(written[at : at + 8], "big")
    delivery.headers = headers
    return offset, delivery
