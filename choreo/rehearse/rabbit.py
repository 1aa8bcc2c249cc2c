"""RabbitMQ as a state machine: does what it is told, and nothing by itself.

It has what choreo uses of a broker: topic exchanges, quorum queues, streams, confirms, returns.
The tests in tests/conformance hold it against the real one (4.3, where versions differ).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn

from choreo.rehearse.rabbit_queues import (
    Consumer,
    Delivered,
    Entry,
    Message,
    Queue,
    QuorumQueue,
    Stream,
)
from choreo.rehearse.rabbit_routing import Routing, matches

__all__ = [
    "Channel",
    "ChannelClosedError",
    "Connection",
    "Consumer",
    "Delivered",
    "Message",
    "QuorumQueue",
    "Rabbit",
    "Stream",
    "matches",
]

#: AMQP's reply codes.
NOT_FOUND, PRECONDITION_FAILED, CLOSED = 404, 406, 504
_KINDS: dict[object, type[Queue]] = {"quorum": QuorumQueue, "stream": Stream}


class ChannelClosedError(Exception):
    """The broker objects to a command and has closed its channel, or that was closed before."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        #: AMQP's reply code.
        self.code = code


class Rabbit:
    """A broker with one virtual host; a caller decides which delivery happens next.

    `now` is its time in seconds since 1970: a stream can be read from a point in time on.
    """

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        self.now = now
        self.is_running = True
        self.routing = Routing()
        self._connections: dict[Connection, None] = {}

    @property
    def queues(self) -> Mapping[str, Queue]:
        """Every queue and stream, by name, in the order in which they were declared."""
        return self.routing.queues

    @property
    def is_settled(self) -> bool:
        """Whether no message waits in a quorum queue, or was handed over and is not acked."""
        quorum = (one for one in self.queues.values() if isinstance(one, QuorumQueue))
        return not any(queue.count or queue.unacked for queue in quorum)

    def connect(self) -> Connection:
        """Open a connection; raises ConnectionRefusedError while the broker is stopped."""
        if not self.is_running:
            raise ConnectionRefusedError("the broker is stopped")
        connection = Connection(self)
        self._connections[connection] = None
        return connection

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.pop(connection, None)

    def ready(self) -> list[Consumer]:
        """The consumers that a message can be handed to; of a queue, whose turn it is first."""
        return [
            consumer
            for queue in self.queues.values()
            for consumer in queue.consumers
            if consumer.next is not None
        ]

    def run(self) -> None:
        """Hand over in order all that can be, as a broker does by itself."""
        while ready := self.ready():
            ready[0].deliver()

    def stop(self) -> None:
        """Stop: connections are lost; what is declared and what is stored stay."""
        self.is_running = False
        for connection in list(self._connections):
            connection.drop("the broker was stopped")

    def start(self) -> None:
        """Start again."""
        self.is_running = True

    def delete_queue(self, name: str) -> None:
        """Delete a queue with what is in it; its consumers are told."""
        for consumer in list(self.routing.remove_queue(name).consumers):
            consumer.cancel()
            consumer.on_cancel()

    def duplicate(self, queue: str, at: int = 0) -> None:
        """Append the message at this place once more.

        So it is when a confirm was lost and the message published again.
        """
        found = self._quorum(queue)
        found.append(found.waiting[at], self.now())

    def hold(self, queue: str) -> Connection | None:
        """Have a stranger take the first message; None if there is none.

        Once its connection is dropped the message comes back, redelivered: what was handed over
        in between has overtaken it.
        """
        if not self._quorum(queue).count:
            return None
        connection = self.connect()
        channel = connection.channel()
        channel.qos(1)
        channel.consume(queue, lambda _: None).deliver()
        return connection

    def _quorum(self, name: str) -> QuorumQueue:
        queue = self.queues[name]
        if not isinstance(queue, QuorumQueue):
            raise TypeError(f"{name} is no quorum queue")
        return queue


class Connection:
    """A client's connection."""

    def __init__(self, rabbit: Rabbit) -> None:
        self.rabbit = rabbit
        self.is_closed = False
        #: Told why it was lost; not when the client closes it.
        self.on_lost: Callable[[str], None] = lambda _: None
        self._channels: list[Channel] = []

    def channel(self) -> Channel:
        """Open a channel."""
        channel = Channel(self.rabbit)
        self._channels.append(channel)
        return channel

    def drop(self, why: str = "the connection was lost") -> None:
        """Lose it."""
        if not self.is_closed:
            self.close()
            self.on_lost(why)

    def close(self) -> None:
        """Close it and its channels."""
        self.is_closed = True
        self.rabbit.forget(self)
        for channel in self._channels:
            channel.close()


class Channel:
    """A channel. What the broker objects to closes it, and raises ChannelClosedError."""

    def __init__(self, rabbit: Rabbit) -> None:
        self.is_closed = False
        self._rabbit = rabbit
        self._routing = rabbit.routing
        self._prefetch = 0
        self._last_tag = 0
        self._consumers: list[Consumer] = []
        #: By delivery tag, and these grow.
        self._unacked: dict[int, tuple[Consumer, Entry]] = {}

    def declare_exchange(self, name: str, kind: str = "topic", *, passive: bool = False) -> None:
        """Declare a durable exchange, "topic" or "direct"; passive: see that it is there."""
        self._must_be_open()
        known = self._routing.exchanges.get(name)
        if known is None and passive:
            self._object(NOT_FOUND, f"no exchange '{name}'")
        if known is None:
            self._routing.add_exchange(name, kind)
        elif known != kind and not passive:
            self._object(
                PRECONDITION_FAILED,
                f"inequivalent arg 'type' for exchange '{name}': received '{kind}' but current "
                f"is '{known}'",
            )

    def declare_queue(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, passive: bool = False
    ) -> tuple[int, int]:
        """Declare a durable queue; passive: see that it is there.

        Gives how many messages wait and how many consumers there are. Raises KeyError if it is
        to be neither a quorum queue nor a stream.
        """
        self._must_be_open()
        arguments = arguments or {}
        queue = self._routing.queues.get(name)
        if queue is None and passive:
            self._object(NOT_FOUND, f"no queue '{name}'")
        if queue is None:
            queue = _KINDS[arguments.get("x-queue-type")](name, arguments)
            self._routing.add_queue(queue)
        elif queue.arguments != arguments and not passive:
            self._object(
                PRECONDITION_FAILED,
                f"inequivalent args for queue '{name}': received {dict(arguments)} but current "
                f"are {dict(queue.arguments)}",
            )
        return queue.count, len(queue.consumers) + len(queue.leaving)

    def bind(self, queue: str, exchange: str, key: str) -> None:
        """Bind a queue to an exchange by a key or a topic pattern."""
        self._must_be_open()
        self._queue(queue)
        self._must_know(exchange)
        self._routing.bind(queue, exchange, key)

    def delete_queue(self, name: str) -> None:
        """Delete a queue, if it is there."""
        self._must_be_open()
        if name in self._routing.queues:
            self._rabbit.delete_queue(name)

    def publish(self, message: Message, *, mandatory: bool = False) -> bool:
        """Store a message in every queue that it reaches, and confirm it.

        False: it is mandatory and reaches none, so it is returned before it is confirmed.
        """
        self._must_be_open()
        if message.exchange:
            self._must_know(message.exchange)
        queues = self._routing.route(message.exchange, message.routing_key)
        for queue in queues:
            queue.append(message, self._rabbit.now())
        return bool(queues) or not mandatory

    def qos(self, prefetch: int) -> None:
        """How many unacked messages each consumer may have that begins after this; 0: any."""
        self._must_be_open()
        self._prefetch = prefetch

    def consume(
        self,
        queue: str,
        on_message: Callable[[Delivered], None],
        *,
        offset: int | str | datetime | None = None,
        on_cancel: Callable[[], None] = lambda: None,
    ) -> Consumer:
        """Consume a queue; a stream from a number, a time, "first", "last" or "next" on."""
        self._must_be_open()
        found = self._queue(queue)
        if isinstance(found, Stream) and not self._prefetch:
            self._object(PRECONDITION_FAILED, f"consumer prefetch count is not set for '{queue}'")

        def hand_over(entry: Entry) -> None:
            self._last_tag += 1
            self._unacked[self._last_tag] = consumer, entry
            on_message(Delivered(entry.message, entry.headers, entry.acquired > 0, self._last_tag))

        consumer = Consumer(found, self._prefetch, found.start(offset), hand_over, on_cancel)
        self._consumers.append(consumer)
        return consumer

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """Have a delivery forgotten; multiple: and all before it, or with 0 every one."""
        for consumer, _ in self._taken(tag, multiple=multiple):
            consumer.forget()

    def nack(self, tag: int, *, multiple: bool = False, requeue: bool = True) -> None:
        """Give a delivery back, or have it dropped."""
        for consumer, entry in self._taken(tag, multiple=multiple):
            if requeue:
                consumer.give_back(entry, lost=False)
            else:
                consumer.forget()

    def close(self) -> None:
        """Close it: its consumers end, and what is not acked comes back."""
        if self.is_closed:
            return
        self.is_closed = True
        for consumer in self._consumers:
            consumer.cancel()
        unacked, self._unacked = self._unacked, {}
        for consumer, entry in unacked.values():
            consumer.give_back(entry, lost=True)

    def _taken(self, tag: int, *, multiple: bool) -> list[tuple[Consumer, Entry]]:
        """The deliveries that a settlement is about, in the order of their tags."""
        self._must_be_open()
        unacked = self._unacked
        if tag not in unacked and not (multiple and tag == 0):
            self._object(PRECONDITION_FAILED, f"unknown delivery tag {tag}")
        tags = [one for one in unacked if one <= tag or tag == 0] if multiple else [tag]
        return [unacked.pop(one) for one in tags]

    def _queue(self, name: str) -> Queue:
        queue = self._routing.queues.get(name)
        return self._object(NOT_FOUND, f"no queue '{name}'") if queue is None else queue

    def _must_know(self, exchange: str) -> None:
        if exchange not in self._routing.exchanges:
            self._object(NOT_FOUND, f"no exchange '{exchange}'")

    def _must_be_open(self) -> None:
        if self.is_closed:
            raise ChannelClosedError(CLOSED, "the channel is closed")

    def _object(self, code: int, text: str) -> NoReturn:
        self.close()
        kind = "NOT_FOUND" if code == NOT_FOUND else "PRECONDITION_FAILED"
        raise ChannelClosedError(code, f"{kind} - {text}")
