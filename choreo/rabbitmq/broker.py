"""The broker seam on RabbitMQ: consumes on one connection, publishes on another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiormq
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from structlog.typing import FilteringBoundLogger

from choreo.errors import CannotRunError
from choreo.failpoint import reach
from choreo.rabbitmq.acks import Acks
from choreo.rabbitmq.again import write_again
from choreo.rabbitmq.declare import declare
from choreo.rabbitmq.link import CONNECT_TIMEOUT_S, Link, as_lost, explain
from choreo.rabbitmq.messages import Confirm, confirmed, delivery_of, refusals, write
from choreo.seams import Delivery, Outgoing
from choreo.settings import Settings
from choreo.topology import Topology

CANCEL_TIMEOUT_S = 5
#: So long the journal, a stream, is waited for: it is back some seconds later than its node.
JOURNAL_BACK_S, ASK_AGAIN_S = 30.0, 0.2
#: What the client raises when a connection or channel is lost, or was lost before.
_LOST = (aiormq.AMQPError, aiormq.exceptions.ChannelInvalidStateError, ConnectionError)


class RabbitMQ:
    """See `choreo.seams.Broker`; consumes on one connection and publishes on another.

    A blocked connection (an alarm of the broker) then holds up publishing alone.
    """

    def __init__(self, url: str, settings: Settings, name: str, log: FilteringBoundLogger) -> None:
        self._url = url
        self._settings = settings
        self._log = log
        self._publishing = Link(url, settings, f"{name} publishing", log, self._nothing)
        self._consuming = Link(url, settings, f"{name} consuming", log, self._consume)
        self._acks: Acks | None = None
        #: When the broker last confirmed something, on the loop's clock.
        self._confirmed_at = 0.0
        #: Ids of messages that the broker did not take the last time.
        self._failed: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._consumer_tag: str | None = None
        self._what: tuple[Topology, str, int, Callable[[Delivery], None]] | None = None
        self._on_hearing: Callable[[int | None], None] = lambda _: None
        self._on_consuming: Callable[[bool], None] = lambda _: None
        self._consuming.on_change = self._changed

    async def open(self) -> None:
        """Connect for publishing alone; raises CannotRunError if that fails."""
        await self._publishing.start()

    async def consume(
        self,
        topology: Topology,
        queue: str,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        on_hearing: Callable[[int | None], None],
    ) -> None:
        """Declare the topology and consume, reconnecting for as long as the process lives."""
        self._on_hearing = on_hearing
        self._what = topology, queue, prefetch, on_delivery
        await self._consuming.start()

    async def cancel(self) -> None:
        """Stop receiving; what was received can still be settled."""
        self._what = None
        self._consuming.tell(False)
        if self._acks is not None and self._consumer_tag is not None:
            try:
                with as_lost():
                    channel = self._acks.channel
                    await channel.basic_cancel(self._consumer_tag, timeout=CANCEL_TIMEOUT_S)
            except (*_LOST, TimeoutError) as error:
                # A connection that is lost delivers nothing either.
                self._log.debug("not cancelled", error=repr(error))

    def on_consuming(self, tell: Callable[[bool], None]) -> None:
        """Have told when deliveries begin to arrive and when they cannot: what readiness means."""
        self._on_consuming = tell

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Ack what came on the channel that is open now; the rest is handed over again."""
        acks = self._acks
        current = [one.tag for one in deliveries if one.channel is acks]
        if acks is not None and current:
            reach("before_ack")
            task = asyncio.create_task(self._ack(acks.channel, acks.settle(current)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def publish(self, messages: Sequence[Outgoing]) -> dict[str, str]:
        """Publish and wait for the confirms; gives why any were not confirmed, by message id."""
        channel: Channel | None = None
        confirms: dict[str, Confirm] = {}
        reason = ""
        began = asyncio.get_running_loop().time()
        try:
            with as_lost():
                async with (
                    asyncio.timeout(self._settings.publish_timeout_s),
                    self._way_of(messages) as channel,
                ):
                    confirms = await write(channel, messages)
                    reach("published")
                    await confirmed(channel, confirms)
                    self._confirmed_at = asyncio.get_running_loop().time()
        except TimeoutError:
            reason = f"no confirm within {self._settings.publish_timeout_s:g} s"
            # Where others were confirmed meanwhile it is a queue that is ill, and not the node.
            if channel is not None and self._confirmed_at < began:
                self._publishing.suspect(channel, reason)
        except _LOST as error:
            reason = str(error) or type(error).__name__
        if reason and channel is not None:
            # What is under way must not meet its own repetition on one channel.
            self._publishing.reset(channel, reason)
        failures = refusals(messages, confirms, reason)
        self._failed.difference_update(confirms)
        self._failed.update(failures)
        return failures

    @asynccontextmanager
    async def _way_of(self, messages: Sequence[Outgoing]) -> AsyncGenerator[Channel, None]:
        """The channel for all, in their order; what failed before goes on one of its own.

        It may be what the broker closes the channel for, and with it all that is under way.
        """
        if self._failed.isdisjoint(one.envelope.id for one in messages):
            yield await self._publishing.channel()
        else:
            async with self._publishing.channel_apart() as channel:
                yield channel

    async def send_again(self, queue: str, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Publish deliveries as they came, to one queue alone; gives those that cannot be.

        Raises CannotRunError if one was not confirmed; others may have arrived then.
        """
        try:
            with as_lost():
                async with asyncio.timeout(self._settings.publish_timeout_s):
                    return await write_again(await self._publishing.channel(), queue, deliveries)
        except (*_LOST, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise CannotRunError(
                f"{queue} did not get all of it ({reason}): start again"
            ) from error

    async def declare(self, topology: Topology) -> None:
        """Declare exchanges, queues and bindings, the journal first.

        Raises CannotRunError if something is there in another form, or may not be made.
        """
        try:
            with as_lost():
                await self._declare(topology)
        except (*_LOST, TimeoutError) as error:
            raise CannotRunError(explain(error, self._url)) from error

    async def _declare(self, topology: Topology) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + JOURNAL_BACK_S
        while True:
            try:
                # The refusal closes the channel that asks.
                async with (
                    asyncio.timeout(CONNECT_TIMEOUT_S),
                    self._publishing.channel_apart() as channel,
                ):
                    return await declare(channel, topology, self._settings)
            except aiormq.exceptions.ChannelNotFoundEntity:
                # All else is made when it is not there: it is the journal that is not back yet.
                if loop.time() > until:
                    raise
            await asyncio.sleep(ASK_AGAIN_S)

    async def missing(self, queues: Collection[str]) -> set[str]:
        """Which of these queues are not there."""
        with as_lost():
            return await self._missing(queues)

    async def _missing(self, queues: Collection[str]) -> set[str]:
        found: set[str] = set()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            for queue in queues:
                # What is not there closes the channel that asks.
                async with self._publishing.channel_apart() as channel:
                    try:
                        await channel.queue_declare(queue, passive=True)
                    except aiormq.exceptions.ChannelNotFoundEntity:
                        found.add(queue)
        return found

    async def close(self) -> None:
        """Send the last acks and close both connections."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._consuming.close()
        await self._publishing.close()

    def _changed(self, consuming: bool) -> None:
        if not consuming:
            self._on_hearing(None)
        self._on_consuming(consuming)

    async def _nothing(self, channel: Channel) -> None:
        pass

    async def _consume(self, channel: Channel) -> None:
        what = self._what
        if what is None:
            return
        topology, queue, prefetch, on_delivery = what
        await declare(channel, topology, self._settings)
        waiting = await channel.queue_declare(queue, passive=True)
        self._on_hearing(waiting.message_count or 0)
        await channel.basic_qos(prefetch_count=prefetch)
        acks = self._acks = Acks(channel)

        def arrived(message: DeliveredMessage) -> None:
            delivery = delivery_of(message, acks)
            acks.received(delivery.tag)
            on_delivery(delivery)

        consumer: Any = arrived
        tag = self._consumer_tag = (await channel.basic_consume(queue, consumer)).consumer_tag
        if tag is not None and self._what is not what:
            await channel.basic_cancel(tag)  # that was asked for when there was no tag yet

    async def _ack(self, channel: Channel, acks: Sequence[tuple[int, bool]]) -> None:
        """Ack on the channel that delivered: on another the same numbers mean other messages."""
        try:
            for tag, multiple in acks:
                await channel.basic_ack(tag, multiple=multiple, wait=False)
            reach("acked")
        except _LOST as error:
            # The broker hands it over again, and the inbox recognises it.
            self._log.debug("ack lost", error=repr(error))


@asynccontextmanager
async def connected(
    url: str, settings: Settings, name: str, log: FilteringBoundLogger
) -> AsyncGenerator[RabbitMQ, None]:
    """A broker to publish to, for a command that runs once; raises CannotRunError if none is."""
    broker = RabbitMQ(url, settings, name, log)
    try:
        await broker.open()
        yield broker
    finally:
        await broker.close()
