"""Hears everything that passes: events from the journal, and commands through a tap of its own."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import aio_pika
import aiormq
from aiormq.abc import DeliveredMessage
from processes import PATIENCE_S
from starts import END_NAMES

from choreo import rabbitmq
from choreo.contract import Message, decode
from choreo.envelope import Envelope, read
from choreo.rabbitmq.link import as_lost
from choreo.rabbitmq.messages import delivery_of
from choreo.seams import Delivery, Outgoing

#: A queue of the test's that hears every command. It must outlast the end of a broker, and of
#: a node of one.
TAP = "system.tap"
MARK = "system.mark.v1"
M = TypeVar("M", bound=Message)


class Record:
    """What was heard, each message once."""

    def __init__(self, url: str) -> None:
        """Hear nothing yet."""
        self.url = url
        #: Events and commands by their ids, in the order of their arrival here.
        self.heard: dict[str, tuple[Envelope, Delivery]] = {}
        #: The events among them.
        self.journal: dict[str, tuple[Envelope, Delivery]] = {}
        #: How many messages each service has published.
        self.announced: Counter[str] = Counter()
        #: How each flow ended; one that ended twice is wrong.
        self.ends: dict[str, list[str]] = defaultdict(list)
        self.marks: set[str] = set()
        self._arrived: list[Envelope] = []
        #: Wakes, again and again, whoever waits for something to arrive.
        self._arrival = asyncio.Event()

    @asynccontextmanager
    async def listening(self, command_exchanges: Sequence[str]) -> AsyncIterator[None]:
        """Listen while the block lasts; the exchanges and the journal must be there."""
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            tap = await channel.declare_queue(
                TAP, durable=True, arguments={"x-queue-type": "quorum"}
            )
            for exchange in command_exchanges:
                await tap.bind(exchange, "#")
        tasks = [
            asyncio.create_task(self._listen(lambda: rabbitmq.journal(self.url, offset="first"))),
            asyncio.create_task(self._listen(lambda: _tapped(self.url))),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def hears(
        self, wanted: Callable[[Envelope], bool], number: int = 1, within_s: float = PATIENCE_S
    ) -> Envelope:
        """Wait until so many messages that are wanted were heard; gives the last of them.

        Goes on at once when it comes.
        """
        at = 0
        try:
            async with asyncio.timeout(within_s):
                while True:
                    for envelope in self._arrived[at:]:
                        at += 1
                        number -= wanted(envelope)
                        if not number:
                            return envelope
                    await self._arrival.wait()
        except TimeoutError:
            raise AssertionError(f"not within {within_s:g} s: {number} more are heard") from None

    def events(self, kind: type[Message] | None = None, *, source: str = "") -> list[Envelope]:
        """The envelopes of the journal, of a contract and of a service or handler."""
        wire_type = kind and kind.__address__.wire_type
        return [
            envelope
            for envelope, _ in self.journal.values()
            if wire_type in (None, envelope.type) and envelope.source.startswith(source)
        ]

    def messages(self, kind: type[M]) -> list[M]:
        """What was heard of a contract, in the form of the contract."""
        wire_type = kind.__address__.wire_type
        return [
            decode(kind, delivery.body)
            for envelope, delivery in self.heard.values()
            if envelope.type == wire_type
        ]

    def copies(self, *kinds: type[Message]) -> list[Outgoing]:
        """What was heard once more, with its own ids and headers."""
        types = {kind.__address__.wire_type for kind in kinds}
        return [
            Outgoing(delivery.exchange, delivery.routing_key, envelope, delivery.body)
            for envelope, delivery in self.heard.values()
            if not kinds or envelope.type in types
        ]

    async def _listen(
        self, attach: Callable[[], AbstractAsyncContextManager[AsyncIterator[Delivery]]]
    ) -> None:
        """Take in what comes, and attach again whenever the connection was lost."""
        while True:
            try:
                with as_lost():
                    async with attach() as deliveries:
                        async for delivery in deliveries:
                            self._take_in(read(delivery, 0.0), delivery)
            except Exception as error:  # noqa: BLE001 - the client raises anything when it is lost
                print(f"attaching again: {error!r}")
                await asyncio.sleep(0.1)

    def _take_in(self, envelope: Envelope, delivery: Delivery) -> None:
        if envelope.type == MARK:
            self.marks.add(envelope.id)
        elif envelope.id not in self.heard:
            self.heard[envelope.id] = envelope, delivery
            self.announced[envelope.service] += 1
            if not delivery.exchange.endswith(".commands"):
                self.journal[envelope.id] = envelope, delivery
                if end := END_NAMES.get(envelope.type):
                    self.ends[envelope.flow].append(end)
            self._arrived.append(envelope)
            self._arrival.set()
            self._arrival.clear()


@asynccontextmanager
async def _tapped(url: str) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Read the tap until the connection is lost."""
    arrived: asyncio.Queue[Delivery | None] = asyncio.Queue()
    # Not aio-pika, which leaves a connection that comes to nothing unclosed.
    async with aiormq.connect(url) as connection:
        channel = await connection.channel()

        async def on_message(message: DeliveredMessage) -> None:
            delivery = delivery_of(message)
            arrived.put_nowait(delivery)
            await channel.basic_ack(delivery.tag)

        channel.closing.add_done_callback(lambda _: arrived.put_nowait(None))
        await channel.basic_consume(TAP, on_message)

        async def read_on() -> AsyncIterator[Delivery]:
            while (delivery := await arrived.get()) is not None:
                yield delivery

        yield read_on()
