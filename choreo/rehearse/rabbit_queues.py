"""Quorum queues and streams: what they keep, and what they hand to whom."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

#: The broker's own headers: how often a message was handed over before, how often its consumer
#: was lost with it, and where it lies in a stream.
ACQUIRED, DELIVERIES, OFFSET = "x-acquired-count", "x-delivery-count", "x-stream-offset"


@dataclass(slots=True, eq=False)
class Message:
    """A message as it lies in a broker; all its copies are one object that nobody changes."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str | None = None
    wire_type: str | None = None
    correlation_id: str | None = None
    app_id: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    #: Every other native property.
    properties: Mapping[str, Any] = field(default_factory=dict)


class Delivered(NamedTuple):
    """A message as it is handed to a consumer."""

    message: Message
    #: The message's, and the broker's own.
    headers: Mapping[str, Any]
    redelivered: bool
    tag: int


@dataclass(slots=True, eq=False)
class Entry:
    """A message's place in a queue."""

    message: Message
    headers: Mapping[str, Any]
    #: How often it was handed over and came back; how often because its consumer was lost.
    acquired: int = 0
    deliveries: int = 0


class QuorumQueue:
    """Messages in order of arrival; what came back goes first, in the order of its return."""

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        self.name = name
        self.arguments = arguments
        #: Whose turn it is comes first.
        self.consumers: list[Consumer] = []
        #: Those that are cancelled, and have messages still; RabbitMQ counts them with the others.
        self.leaving: set[Consumer] = set()
        #: How many messages are handed over and not acked.
        self.unacked = 0
        self._returned: deque[Entry] = deque()
        self._arrived: deque[Entry] = deque()

    @property
    def count(self) -> int:
        """How many messages wait."""
        return len(self._returned) + len(self._arrived)

    @property
    def waiting(self) -> list[Message]:
        """The messages that wait, in the order in which they will be handed over."""
        return [entry.message for entry in (*self._returned, *self._arrived)]

    def append(self, message: Message, _now: float) -> None:
        """Take a message in."""
        self._arrived.append(Entry(message, message.headers))

    def start(self, offset: object) -> int:
        """Where a consumer begins: always at the first message."""
        if offset is not None:
            raise ValueError(f"a quorum queue has no offset {offset!r}")
        return 0

    def next(self, _position: int) -> Message | None:
        """What would be handed over now."""
        entries = self._returned or self._arrived
        return entries[0].message if entries else None

    def take(self, _position: int) -> Entry:
        """Hand it over."""
        self.unacked += 1
        return (self._returned or self._arrived).popleft()

    def forget(self) -> None:
        """One that was handed over is acked."""
        self.unacked -= 1

    def give_back(self, entry: Entry, *, lost: bool) -> None:
        """One that was handed over comes back; `lost`: because its consumer was lost with it."""
        self.unacked -= 1
        entry.acquired += 1
        entry.deliveries += lost
        counts = {ACQUIRED: entry.acquired}
        if entry.deliveries:
            counts[DELIVERIES] = entry.deliveries
        entry.headers = {**entry.message.headers, **counts}
        self._returned.append(entry)


class Stream:
    """Every message in order of arrival; consumers read it, each from its offset on.

    A real one drops its oldest segments when they are too old or too many bytes, never the one
    that it writes to; a segment has 500 MB, so a rehearsal never fills one.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        self.name = name
        self.arguments = arguments
        self.consumers: list[Consumer] = []
        self.leaving: set[Consumer] = set()
        self.messages: list[Message] = []
        #: When each arrived.
        self._times: list[float] = []

    @property
    def count(self) -> int:
        """How many messages it has."""
        return len(self.messages)

    def append(self, message: Message, now: float) -> None:
        """Take a message in."""
        self.messages.append(message)
        self._times.append(now)

    def start(self, offset: object) -> int:
        """Where a consumer begins; raises ValueError for what is no offset.

        "last" is the last message alone: a real stream hands over the last chunk that it wrote.
        """
        match offset:
            case int():
                return offset
            case datetime():
                return bisect_left(self._times, offset.timestamp())
            case "first":
                return 0
            case "last":
                return max(0, self.count - 1)
            case "next" | None:
                return self.count
        raise ValueError(f"a stream has no offset {offset!r}")

    def next(self, position: int) -> Message | None:
        """What would be handed over now to whom has come to this position."""
        return self.messages[position] if position < len(self.messages) else None

    def take(self, position: int) -> Entry:
        """Hand it over; it stays."""
        message = self.messages[position]
        return Entry(message, {**message.headers, OFFSET: position})

    def forget(self) -> None:
        """An ack makes room for more, no more."""

    def give_back(self, entry: Entry, *, lost: bool) -> None:
        """It is still there, and this consumer is past it."""


Queue = QuorumQueue | Stream


class Consumer:
    """Gets the messages of a queue, at most so many unacked ones at a time."""

    def __init__(
        self,
        queue: Queue,
        prefetch: int,
        position: int,
        on_message: Callable[[Entry], None],
        on_cancel: Callable[[], None],
    ) -> None:
        self.queue = queue
        #: Told when the broker ends it, as the queue is deleted.
        self.on_cancel = on_cancel
        self._prefetch = prefetch
        self._position = position
        self._on_message = on_message
        self._unacked = 0
        self._is_cancelled = False
        queue.consumers.append(self)

    @property
    def next(self) -> Message | None:
        """What it would get now, if anything."""
        if self._is_cancelled or 0 < self._prefetch <= self._unacked:
            return None
        return self.queue.next(self._position)

    def deliver(self) -> None:
        """Hand it the next message; raises IndexError if there is none for it."""
        if self.next is None:
            raise IndexError(f"nothing of {self.queue.name} can be delivered to this consumer")
        entry = self.queue.take(self._position)
        self._position += 1
        self._unacked += 1
        self._to_the_end()
        self._on_message(entry)

    def forget(self) -> None:
        """One of its messages is acked."""
        self.queue.forget()
        self._has_room()

    def give_back(self, entry: Entry, *, lost: bool) -> None:
        """One of its messages comes back."""
        self.queue.give_back(entry, lost=lost)
        self._has_room()

    def cancel(self) -> None:
        """It gets nothing any more; what it has can still be acked."""
        if not self._is_cancelled:
            self._is_cancelled = True
            self.queue.consumers.remove(self)
            if self._unacked:
                self.queue.leaving.add(self)

    def _has_room(self) -> None:
        if self._unacked == self._prefetch and not self._is_cancelled:
            self._to_the_end()  # it queues for its turn again
        self._unacked -= 1
        if not self._unacked:
            self.queue.leaving.discard(self)

    def _to_the_end(self) -> None:
        consumers = self.queue.consumers
        if len(consumers) > 1:
            consumers.remove(self)
            consumers.append(self)
