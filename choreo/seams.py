"""The four narrow places where the delivery lifecycle touches the world.

Production plugs in aio-pika, a database thread, the system's clock and randomness; a rehearsal
plugs in simulated ones. Nothing else in choreo knows which.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from choreo.envelope import Envelope
from choreo.topology import Topology

T = TypeVar("T")


class Origin(Protocol):
    """The channel that a delivery came on."""

    @property
    def closed(self) -> bool:
        """Whether it is gone: what came on it, and is not acked, comes again."""


@dataclass(slots=True, eq=False)
class Delivery:
    """A message as the broker handed it over, before anybody judged it."""

    body: bytes
    message_id: str | None
    wire_type: str | None
    correlation_id: str | None
    app_id: str | None
    headers: Mapping[str, Any]
    #: Every other native property, kept for dead letters.
    properties: Mapping[str, Any]
    exchange: str
    routing_key: str
    redelivered: bool
    #: What the broker needs to recognise it when it is settled.
    tag: int
    channel: Origin | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message that is committed to the outbox and on its way."""

    exchange: str
    routing_key: str
    envelope: Envelope
    body: bytes
    #: Whether it must reach a queue (commands): the journal takes every event anyway.
    mandatory: bool = False


class Broker(Protocol):
    """Where messages come from and go to."""

    async def open(self) -> None:
        """Connect for publishing; raises CannotRunError if the broker cannot be reached."""

    async def consume(
        self,
        topology: Topology,
        queue: str,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        on_hearing: Callable[[int | None], None],
    ) -> None:
        """Declare the topology and consume, for as long as the process lives.

        `on_hearing` is told how many messages wait whenever deliveries begin to arrive, and None
        when they cannot arrive any more.
        Returns once deliveries arrive for the first time; reconnects by itself afterwards.
        Raises CannotRunError if the broker cannot be reached at all.
        """

    async def cancel(self) -> None:
        """Stop receiving; what was received can still be settled."""

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Tell the broker that it may forget them; lost connections are no error."""

    async def publish(self, messages: Sequence[Outgoing]) -> dict[str, str]:
        """Publish and wait for the confirms.

        Returns why each message that was not confirmed was not, by message id.
        """

    async def missing(self, queues: Collection[str]) -> set[str]:
        """Which of these queues are not there; raises what the broker says if it cannot tell."""

    async def close(self) -> None:
        """Close what is open."""


class Database(Protocol):
    """Where a service keeps its state; everything runs in one thread, one piece at a time."""

    #: Whether other instances of the service may use it at the same time.
    is_shared: bool

    async def open(self) -> None:
        """Have the tables there, and run the service's setups; raises CannotRunError if not."""

    async def run(self, work: Callable[[Connection, float], T]) -> T:
        """Run the work in one transaction that holds the service's lock, and commit it.

        The work is given the connection and the database's time, in seconds since 1970.
        Raises OutageError if the database, not the work, failed; the commit may then have
        happened or not.
        """

    async def close(self) -> None:
        """Close the connection."""


class Clock(Protocol):
    """What time it is."""

    def now(self) -> float:
        """Seconds since 1970, UTC."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since 1970, UTC."""
        return time.time()
