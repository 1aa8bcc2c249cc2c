"""The broker seam on RabbitMQ, and the only place that knows aio-pika."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection
from aiormq import Channel
from aiormq.abc import ChannelFrame, DeliveredMessage
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from structlog.typing import FilteringBoundLogger

from choreo.errors import CannotRunError
from choreo.seams import Delivery, Outgoing
from choreo.settings import Settings
from choreo.topology import JOURNAL, Topology

Confirm = asyncio.Future[Any]

#: A broker's own limit would also drop innocent messages that were merely prefetched when a
#: connection was lost; attempts are counted in the database.
DELIVERY_LIMIT = 1_000_000_000
CONNECT_TIMEOUT_S = 10
RECONNECT_FIRST_S, RECONNECT_LONGEST_S = 0.1, 5.0

_NATIVE = ("content_type", "content_encoding", "delivery_mode", "priority", "reply_to",
           "expiration", "timestamp", "user_id")  # fmt: skip


class Link:
    """One connection with one channel, opened again whenever it is lost."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        name: str,
        log: FilteringBoundLogger,
        prepare: Callable[[Channel], Awaitable[None]],
    ) -> None:
        self._url = url
        self._settings = settings
        self._name = name
        self._log = log.bind(connection=name)
        self._prepare = prepare
        self._channel: Channel | None = None
        self._connection: AbstractConnection | None = None
        #: Told True when the channel is ready, and False when it is lost.
        self.on_change: Callable[[bool], None] = lambda _: None
        self._opened = asyncio.Event()
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open it for the first time; raises CannotRunError if that fails."""
        try:
            await self._open()
        except Exception as error:
            await self._drop()
            raise CannotRunError(explain(error, self._url)) from error
        self._task = asyncio.create_task(self._keep())

    @property
    def is_open(self) -> bool:
        """Whether the channel is ready right now."""
        return self._opened.is_set()

    async def channel(self) -> Channel:
        """The channel, once it is open and the broker does not block it."""
        while True:
            await self._opened.wait()
            channel, connection = self._channel, self._connection
            if channel is not None and connection is not None and connection.transport is not None:
                await connection.transport.connection.ready()
                return channel

    def reset(self) -> None:
        """Give the channel up and open another."""
        self._lost.set()

    async def close(self) -> None:
        """Close it for good."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._drop()

    async def _open(self) -> None:
        self._lost.clear()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            self._connection = await aio_pika.connect(
                self._url,
                client_properties={"connection_name": self._name},
                heartbeat=self._settings.heartbeat_s,
            )
            channel = await self._connection.channel(on_return_raises=True)
            underlay = await channel.get_underlay_channel()
            if not isinstance(underlay, Channel):
                raise TypeError(f"{underlay!r} is no aiormq channel")
            self._channel = underlay
            # aio-pika holds its channels weakly: keep it beside what lies under it.
            self._kept = channel
            self._channel.closing.add_done_callback(lambda _: self._lost.set())
            self._channel.on_consumer_cancel_callbacks.add(lambda _: self._lost.set())
            await self._prepare(self._channel)
        self._opened.set()
        self.on_change(True)

    async def _keep(self) -> None:
        wait_s = RECONNECT_FIRST_S
        while True:
            await self._lost.wait()
            self._log.warning("connection lost, opening it again")
            await self._drop()
            while not self._opened.is_set():
                try:
                    await self._open()
                except Exception as error:  # noqa: BLE001 - whatever it is, there is only trying again
                    await self._drop()
                    reason = explain(error, self._url)
                    self._log.error("cannot connect, trying again", error=reason, after_s=wait_s)
                    await asyncio.sleep(wait_s)
                    wait_s = min(wait_s * 2, RECONNECT_LONGEST_S)
            wait_s = RECONNECT_FIRST_S
            self._log.info("connected again")

    async def _drop(self) -> None:
        self._opened.clear()
        self.on_change(False)
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            try:
                async with asyncio.timeout(2):
                    await connection.close()
            except Exception as error:  # noqa: BLE001 - it is being given up whatever it says
                self._log.debug("while closing", error=repr(error))


class Acks:
    """Which deliveries of one channel may be acked together.

    A multiple ack reaches only up to the lowest delivery that is not settled yet.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._open: deque[int] = deque()
        self._settled: set[int] = set()
        self._acked: set[int] = set()

    def received(self, tag: int) -> None:
        """A delivery came; tags grow."""
        self._open.append(tag)

    def settle(self, tags: Sequence[int]) -> list[tuple[int, bool]]:
        """The acks to send, as tag and `multiple`."""
        self._settled.update(tags)
        reach = 0
        while self._open and self._open[0] in self._settled:
            tag = self._open.popleft()
            self._settled.discard(tag)
            if tag in self._acked:
                self._acked.discard(tag)
            else:
                reach = tag
        single = [tag for tag in tags if tag in self._settled and tag not in self._acked]
        self._acked.update(single)
        return [(reach, True)] * bool(reach) + [(tag, False) for tag in single]


class RabbitMQ:
    """See `choreo.seams.Broker`; consumes on one connection and publishes on another.

    A blocked connection (an alarm of the broker) then holds up publishing alone.
    """

    def __init__(self, url: str, settings: Settings, name: str, log: FilteringBoundLogger) -> None:
        self._settings = settings
        self._log = log
        self._publishing = Link(url, settings, f"{name} publishing", log, self._nothing)
        self._consuming = Link(url, settings, f"{name} consuming", log, self._consume)
        self._acks: Acks | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._consumer_tag: str | None = None
        self._what: tuple[Topology, str, int, Callable[[Delivery], None]] | None = None

    async def open(self) -> None:
        """Connect for publishing alone; raises CannotRunError if that fails."""
        await self._publishing.start()

    async def consume(
        self,
        topology: Topology,
        queue: str,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
    ) -> None:
        """Declare the topology and consume, reconnecting for as long as the process lives."""
        self._what = topology, queue, prefetch, on_delivery
        await self._consuming.start()

    async def cancel(self) -> None:
        """Stop receiving; what was received can still be settled."""
        self._consuming.on_change(False)
        if self._consuming.is_open and self._consumer_tag is not None:
            channel = await self._consuming.channel()
            self._what = None
            await channel.basic_cancel(self._consumer_tag)

    def on_consuming(self, tell: Callable[[bool], None]) -> None:
        """Have told when deliveries begin to arrive and when they cannot: what readiness means."""
        self._consuming.on_change = tell

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Ack what came on the channel that is open now; the rest is handed over again."""
        acks = self._acks
        current = [one.tag for one in deliveries if one.channel is acks]
        if acks is not None and current:
            task = asyncio.create_task(self._ack(acks.channel, acks.settle(current)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def publish(self, messages: Sequence[Outgoing]) -> dict[str, str]:
        """Publish and wait for the confirms; gives why any were not confirmed, by message id."""
        try:
            async with asyncio.timeout(self._settings.publish_timeout_s):
                channel = await self._publishing.channel()
                confirms = await _write(channel, messages)
                await asyncio.wait(confirms.values())
        except TimeoutError:
            reason = f"no confirm within {self._settings.publish_timeout_s:g} s"
        except (aiormq.AMQPError, ConnectionError) as error:
            reason = str(error) or type(error).__name__
        else:
            return {
                one.envelope.id: _refusal(one, confirms[one.envelope.id])
                for one in messages
                if _is_refused(confirms[one.envelope.id])
            }
        # What is under way must not meet its own repetition on one channel.
        self._publishing.reset()
        return dict.fromkeys((one.envelope.id for one in messages), reason)

    async def declare(self, topology: Topology) -> None:
        """Declare exchanges, queues and bindings, the journal first."""
        await declare(await self._publishing.channel(), topology, self._settings)

    async def close(self) -> None:
        """Send the last acks and close both connections."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._consuming.close()
        await self._publishing.close()

    async def _nothing(self, channel: Channel) -> None:
        pass

    async def _consume(self, channel: Channel) -> None:
        if self._what is None:
            return
        topology, queue, prefetch, on_delivery = self._what
        await declare(channel, topology, self._settings)
        await channel.basic_qos(prefetch_count=prefetch)
        acks = self._acks = Acks(channel)

        def arrived(message: DeliveredMessage) -> None:
            delivery = _delivery(message, acks)
            acks.received(delivery.tag)
            on_delivery(delivery)

        consumer: Any = arrived
        self._consumer_tag = (await channel.basic_consume(queue, consumer)).consumer_tag

    async def _ack(self, channel: Channel, acks: Sequence[tuple[int, bool]]) -> None:
        """Ack on the channel that delivered: on another the same numbers mean other messages."""
        try:
            for tag, multiple in acks:
                await channel.basic_ack(tag, multiple=multiple, wait=False)
        except (aiormq.AMQPError, ConnectionError) as error:
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


@asynccontextmanager
async def journal(
    url: str, *, offset: str = "next"
) -> AsyncGenerator[AsyncIterator[Delivery], None]:
    """Read the journal as it grows; `offset`: "next" for what comes, "first" for all it keeps.

    Attached when the block is entered, so nothing that is published inside it is missed. The
    iterator ends when the connection is lost. Raises CannotRunError if there is no broker or
    no journal yet.
    """
    arrived: asyncio.Queue[Delivery | None] = asyncio.Queue()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            connection = await aio_pika.connect(url)
    except Exception as error:
        raise CannotRunError(explain(error, url)) from error
    async with connection:
        opened = await connection.channel()
        channel = await opened.get_underlay_channel()

        async def on_message(message: DeliveredMessage) -> None:
            delivery = _delivery(message, None)
            arrived.put_nowait(delivery)
            await channel.basic_ack(delivery.tag)

        channel.closing.add_done_callback(lambda _: arrived.put_nowait(None))
        await channel.basic_qos(prefetch_count=500)
        try:
            await channel.basic_consume(JOURNAL, on_message, arguments={"x-stream-offset": offset})
        except aiormq.exceptions.ChannelNotFoundEntity as error:
            raise CannotRunError(
                "the broker has no journal yet: run 'choreo declare', or start a service"
            ) from error

        async def read() -> AsyncGenerator[Delivery, None]:
            while (delivery := await arrived.get()) is not None:
                yield delivery

        yield read()


async def declare(channel: Channel, topology: Topology, settings: Settings) -> None:
    """Declare what is missing; raises what RabbitMQ says if something is there in another form."""
    await channel.queue_declare(
        JOURNAL,
        durable=True,
        arguments={
            "x-queue-type": "stream",
            "x-max-age": settings.journal_max_age,
            "x-max-length-bytes": settings.journal_max_bytes,
        },
    )
    for exchange in topology.event_exchanges:
        await channel.exchange_declare(exchange, exchange_type="topic", durable=True)
        await channel.queue_bind(JOURNAL, exchange, "#")
    for exchange in topology.command_exchanges:
        await channel.exchange_declare(exchange, exchange_type="topic", durable=True)
    for queue in topology.queues:
        await channel.queue_declare(
            queue,
            durable=True,
            arguments={"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT},
        )
    for binding in topology.bindings:
        await channel.queue_bind(binding.queue, binding.exchange, binding.routing_key)


def explain(error: BaseException, url: str) -> str:
    """A failed connection in one line, with what to do."""
    from yarl import URL  # noqa: PLC0415 - only to leave the password out

    try:
        parsed = URL(url)
        shown = str(parsed.with_password(None) if parsed.password else parsed)
    except ValueError:
        shown = "CHOREO_AMQP_URL"
    text = str(error).strip() or type(error).__name__
    match error:
        case (
            aiormq.exceptions.AuthenticationError()
            | aiormq.exceptions.ProbableAuthenticationError()
        ):
            return (
                f"RabbitMQ at {shown} refuses the login: check user and password in CHOREO_AMQP_URL"
            )
        case TimeoutError():
            return f"RabbitMQ at {shown} does not answer within {CONNECT_TIMEOUT_S} s"
        case OSError() | aiormq.AMQPConnectionError():
            return f"no RabbitMQ at {shown} ({text}): start it, or correct CHOREO_AMQP_URL"
        case ValueError() | KeyError():
            return f"CHOREO_AMQP_URL {shown!r} is no AMQP URL (amqp://user:password@host:5672/)"
        case _:
            return f"RabbitMQ at {shown}: {text}"


async def _write(channel: Channel, messages: Sequence[Outgoing]) -> dict[str, Confirm]:
    """Write messages at once; gives for each the future of its confirm, by message id.

    `Channel.basic_publish` is one task, one lock and one system call a message: at full load
    that is a third of the process's time. This is the same for many.
    """
    confirms: dict[str, Confirm] = {}
    now = datetime.now(UTC)
    async with channel.lock:
        frames: list[Any] = []
        for message in messages:
            properties = _properties(message, now)
            channel.delivery_tag += 1
            confirm: Confirm = channel.create_future()
            channel.confirmations[channel.delivery_tag] = confirm
            channel.message_id_delivery_tag[message.envelope.id] = channel.delivery_tag
            confirms[message.envelope.id] = confirm
            frames.append(
                Basic.Publish(
                    exchange=message.exchange,
                    routing_key=message.routing_key,
                    mandatory=message.mandatory,
                )
            )
            frames.append(ContentHeader(body_size=len(message.body), properties=properties))
            size = channel.max_content_size
            frames.extend(
                ContentBody(message.body[at : at + size])
                for at in range(0, len(message.body), size)
            )
        await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames))

    def forget(identifier: str, _: Confirm) -> None:
        channel.message_id_delivery_tag.pop(identifier, None)

    for identifier, confirm in confirms.items():
        confirm.add_done_callback(partial(forget, identifier))
    return confirms


def _properties(message: Outgoing, now: datetime) -> Basic.Properties:
    envelope = message.envelope
    return Basic.Properties(
        content_type="application/json",
        delivery_mode=2,
        message_id=envelope.id,
        correlation_id=envelope.flow,
        message_type=envelope.type,
        app_id=envelope.service,
        timestamp=now,
        headers=dict(envelope.headers()),
    )


def _is_refused(confirm: Confirm) -> bool:
    return confirm.cancelled() or confirm.exception() is not None


def _refusal(message: Outgoing, confirm: Confirm) -> str:
    error = None if confirm.cancelled() else confirm.exception()
    if isinstance(error, aiormq.exceptions.PublishError):
        return f"no queue hears {message.routing_key} on {message.exchange}: is its service there?"
    return "the connection was lost" if error is None else str(error) or type(error).__name__


def _delivery(message: DeliveredMessage, acks: Acks | None) -> Delivery:
    frame: Any = message.delivery
    properties = message.header.properties
    return Delivery(
        body=message.body,
        message_id=properties.message_id,
        wire_type=properties.message_type,
        correlation_id=properties.correlation_id,
        app_id=properties.app_id,
        headers=properties.headers or {},
        properties={
            name: value for name in _NATIVE if (value := getattr(properties, name)) is not None
        },
        exchange=frame.exchange,
        routing_key=frame.routing_key,
        redelivered=bool(frame.redelivered),
        tag=frame.delivery_tag,
        channel=acks,
    )
