"""Which exchanges, queues and bindings a service needs, derived from its signatures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from choreo.contract import Command
from choreo.service import Service

#: The stream that keeps every event for a while, in order of arrival.
JOURNAL = "journal"
#: Where choreo itself announces things, dead letters first of all.
CHOREO = "choreo"


@dataclass(frozen=True, slots=True)
class Binding:
    """A queue hears a routing key of an exchange."""

    queue: str
    exchange: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class Topology:
    """Durable topic exchanges, quorum queues and their bindings, and the journal."""

    #: Exchanges whose every message the journal keeps.
    event_exchanges: tuple[str, ...]
    #: Exchanges that only their owner's queue is bound to.
    command_exchanges: tuple[str, ...]
    queues: tuple[str, ...]
    bindings: tuple[Binding, ...]


def of(services: Iterable[Service]) -> Topology:
    """What these services need, for what they hear and for what they say."""
    events: set[str] = {CHOREO}
    commands: set[str] = set()
    queues: list[str] = []
    bindings: list[Binding] = []
    for service in services:
        queues.append(service.name)
        heard = service.routes()
        for kind in (*heard, *service.published):
            exchange = kind.__address__.exchange
            (commands if issubclass(kind, Command) else events).add(exchange)
        for kind in heard:
            address = kind.__address__
            bindings.append(Binding(service.name, address.exchange, address.wire_type))
    return Topology(
        event_exchanges=tuple(sorted(events)),
        command_exchanges=tuple(sorted(commands)),
        queues=tuple(queues),
        bindings=tuple(bindings),
    )
