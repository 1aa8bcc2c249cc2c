"""The broker seam on a simulated RabbitMQ: a rehearsal decides which message moves next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from choreo.errors import CannotRunError
from choreo.failpoint import reach
from choreo.rabbitmq.acks import Acks
from choreo.rabbitmq.declare import QUEUE_ARGUMENTS, journal_arguments
from choreo.rabbitmq.link import CANCELLED, CONNECT_TIMEOUT_S
from choreo.rehearse.rabbit import (
    Channel,
    ChannelClosedError,
    Connection,
    Consumer,
    Delivered,
    Message,
    Rabbit,
)
from choreo.rehearse.rabbit_line import Batch, Line, delivery_of, message_of
from choreo.seams import Delivery, Outgoing
from choreo.settings import Settings
from choreo.topology import JOURNAL, Topology


class Step(NamedTuple):
    """Something that can happen next between a service and the broker."""

    #: A delivery reaches the service; a message that it published reaches the broker; the
    #: broker's confirms reach the service; a connection that was lost opens again.
    kind: Literal["deliver", "arrive", "confirm", "reconnect"]
    broker: SimulatedBroker
    #: What is delivered or arrives.
    message: Message | None
    #: Makes it happen. After that, or a fault, the steps are others.
    take: Callable[[], None]


def declare(channel: Channel, topology: Topology, settings: Settings) -> None:
    """Declare what is missing, as `choreo.rabbitmq.declare` does."""
    channel.declare_queue(JOURNAL, journal_arguments(settings))
    for exchange in topology.event_exchanges:
        channel.declare_exchange(exchange)
        channel.bind(JOURNAL, exchange, "#")
    for exchange in topology.command_exchanges:
        channel.declare_exchange(exchange)
    for queue in topology.queues:
        channel.declare_queue(queue, QUEUE_ARGUMENTS)
    for binding in topology.bindings:
        channel.bind(binding.queue, binding.exchange, binding.routing_key)


class SimulatedBroker:
    """See `choreo.seams.Broker`: for one instance of a service.

    Like the real one it consumes on one connection and publishes on another. Nothing moves
    before a step of it is taken.
    """

    def __init__(
        self, rabbit: Rabbit, name: str, settings: Settings, now: Callable[[], float]
    ) -> None:
        """`name` is the instance's, for whoever looks on; `now` stamps what it publishes."""
        self.name = name
        self._rabbit = rabbit
        self._settings = settings
        self._now = now
        self._consuming = Line(rabbit, self._consume, self._deaf)
        self._publishing = Line(rabbit, lambda: None, self._end_all)
        self._acks: Acks | None = None
        self._consumer: Consumer | None = None
        self._what: tuple[Topology, str, int, Callable[[Delivery], None]] | None = None
        self._on_hearing: Callable[[int | None], None] = lambda _: None
        #: What is published and not confirmed, in order.
        self._under_way: list[Batch] = []
        #: Ids of messages that the broker did not take the last time.
        self._failed: set[str] = set()

    # What a service does with it.

    async def open(self) -> None:
        """Connect for publishing alone; raises CannotRunError if that fails."""
        self._open(self._publishing)

    async def consume(
        self,
        topology: Topology,
        queue: str,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        on_hearing: Callable[[int | None], None],
    ) -> None:
        """Declare the topology and consume, for as long as the process lives."""
        self._on_hearing = on_hearing
        self._what = topology, queue, prefetch, on_delivery
        self._open(self._consuming)

    async def cancel(self) -> None:
        """Stop receiving; what was received can still be settled."""
        self._what = None
        self._on_hearing(None)
        if self._consumer is not None:
            self._consumer.cancel()

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Ack what came on the channel that is open now; the rest is handed over again."""
        acks = self._acks
        current = [one.tag for one in deliveries if one.channel is acks]
        if acks is not None and current:
            reach("before_ack")
            channel: Any = acks.channel
            for tag, multiple in acks.settle(current):
                if not channel.is_closed:
                    channel.ack(tag, multiple=multiple)
            reach("acked")

    async def publish(self, messages: Sequence[Outgoing]) -> dict[str, str]:
        """Publish and wait for the confirms; gives why any were not confirmed, by message id."""
        now, batch, reason = self._now(), None, ""
        written = [(message_of(one, now), one.mandatory) for one in messages]
        try:
            async with asyncio.timeout(self._settings.publish_timeout_s):
                batch = self._write(*await self._publishing.ready(), written)
                reach("published")
                reason = await batch.done
        except TimeoutError:
            reason = f"no confirm within {self._settings.publish_timeout_s:g} s"
            self._publishing.drop(reason)
        ids = [one.envelope.id for one in messages]
        failures = dict.fromkeys(ids[batch.confirmed if batch else 0 :], reason) if reason else {}
        if batch is not None:
            failures |= batch.returned
            self._failed.difference_update(ids)
        self._failed.update(failures)
        return failures

    async def missing(self, queues: Collection[str]) -> set[str]:
        """Which of these queues are not there; raises TimeoutError if the broker is away."""
        if self._publishing.channel is None:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._publishing.ready()
        known = self._rabbit.queues
        return {queue for queue in queues if queue not in known}

    async def close(self) -> None:
        """Close both connections; what is not acked is handed over again."""
        self._consuming.close()
        self._on_hearing(None)
        self._publishing.close()
        self._end_all("the connection was closed")

    # What a rehearsal does with it.

    def steps(self) -> list[Step]:
        """What can happen next, in the order in which it would if nobody chose."""
        found: list[Step] = []
        self.add_steps(found)
        return found

    def add_steps(self, found: list[Step]) -> None:
        """Add what can happen next, in this order."""
        consumer = self._consumer
        if consumer is not None and (message := consumer.next) is not None:
            found.append(Step("deliver", self, message, consumer.deliver))
        if self._under_way:
            self._add_moves(found)
        if (self._consuming.is_lost or self._publishing.is_lost) and self._rabbit.is_running:
            lost = (line for line in (self._consuming, self._publishing) if line.is_lost)
            found += (Step("reconnect", self, None, line.open) for line in lost)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing that it published is under way."""
        return not self._under_way

    def lose_consuming(self) -> None:
        """Lose the connection that it consumes on: what is not acked is handed over again."""
        self._consuming.drop("the connection was lost")

    def lose_publishing(self, arriving: int = 0) -> None:
        """Lose the connection that it publishes on, and with it what is not confirmed.

        The first of the messages that were written still arrive: so many.
        """
        self._let_arrive(arriving)
        self._publishing.drop("the connection was lost")

    def lose_both(self) -> None:
        """Lose both connections, with all that is not acked or confirmed."""
        self.lose_consuming()
        self.lose_publishing()

    def crash(self, arriving: int = 0) -> None:
        """Its process is gone, and this with it; of what it wrote so many messages still arrive."""
        self._let_arrive(arriving)
        self._under_way.clear()
        self._consuming.close()
        self._publishing.close()

    def _add_moves(self, found: list[Step]) -> None:
        """What is published moves on: what a channel got first arrives first."""
        busy: set[Channel] = set()
        for batch in self._under_way:
            if batch.confirmed < batch.arrived:
                found.append(Step("confirm", self, None, partial(self._confirm, batch)))
            if batch.arrived < len(batch.messages) and batch.channel not in busy:
                busy.add(batch.channel)
                message, _ = batch.messages[batch.arrived]
                found.append(Step("arrive", self, message, partial(self._arrive, batch)))

    def _let_arrive(self, many: int) -> None:
        for _ in range(many):
            arrivals = [step for step in self.steps() if step.kind == "arrive"]
            if arrivals:
                arrivals[0].take()

    def _open(self, line: Line) -> None:
        try:
            line.open()
        except (ConnectionRefusedError, ChannelClosedError) as error:
            raise CannotRunError(f"no RabbitMQ for {self.name} ({error})") from error

    def _consume(self) -> None:
        channel = self._consuming.channel
        if self._what is None or channel is None:
            return
        topology, queue, prefetch, on_delivery = self._what
        declare(channel, topology, self._settings)
        self._on_hearing(channel.declare_queue(queue, passive=True)[0])
        channel.qos(prefetch)
        behind: Any = channel
        acks = self._acks = Acks(behind)

        def arrived(delivered: Delivered) -> None:
            acks.received(delivered.tag)
            on_delivery(delivery_of(delivered, acks))

        cancelled = partial(self._consuming.drop, CANCELLED)
        self._consumer = channel.consume(queue, arrived, on_cancel=cancelled)

    def _deaf(self, _why: str) -> None:
        self._on_hearing(None)

    def _write(
        self, connection: Connection, channel: Channel, messages: Sequence[tuple[Message, bool]]
    ) -> Batch:
        """Send messages on their way; what failed before goes on a channel of its own.

        It may be what the broker closes the channel for, and with it all that is under way.
        """
        if not self._failed.isdisjoint(message.message_id for message, _ in messages):
            channel = connection.channel()
        batch = Batch(messages, channel, asyncio.get_running_loop().create_future())
        self._under_way.append(batch)
        return batch

    def _arrive(self, batch: Batch) -> None:
        message, mandatory = batch.messages[batch.arrived]
        batch.arrived += 1
        try:
            is_routed = batch.channel.publish(message, mandatory=mandatory)
        except ChannelClosedError as error:
            if batch.channel is self._publishing.channel:
                self._publishing.drop(str(error))
            else:
                self._end(batch, str(error))
            return
        if not is_routed and message.message_id is not None:
            batch.returned[message.message_id] = (
                f"no queue hears {message.routing_key} on {message.exchange}: is its service there?"
            )

    def _confirm(self, batch: Batch) -> None:
        batch.confirmed = batch.arrived
        if batch.confirmed == len(batch.messages):
            self._end(batch, "")

    def _end(self, batch: Batch, why: str) -> None:
        self._under_way.remove(batch)
        if batch.channel is not self._publishing.channel:
            batch.channel.close()
        batch.end(why)

    def _end_all(self, why: str) -> None:
        batches, self._under_way = self._under_way, []
        for batch in batches:
            batch.end(why)
