"""What a service does with each message, worked out once at its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from choreo import topology
from choreo.errors import DefinitionError
from choreo.service import Deadline, Route, Service, Step
from choreo.signature import Context, MessageType
from choreo.topology import Topology


@dataclass(frozen=True, slots=True)
class Plan:
    """A service's signatures, indexed for the delivery lifecycle."""

    service: Service
    #: Wire type to contract and what is done with it.
    routes: dict[str, tuple[MessageType, tuple[Route, ...]]]
    #: Undo name to its step.
    step_of: dict[str, Step[..., Any]]
    #: Own events that arm or end a deadline in the transaction that returns them.
    arms: dict[MessageType, tuple[Deadline[..., Any], ...]]
    ends: dict[MessageType, tuple[Deadline[..., Any], ...]]
    #: Names of handlers that a tombstone may stop.
    stoppable: frozenset[str]
    #: Topics that are heard, with the versions that are known.
    versions: dict[str, tuple[int, ...]]
    #: What it declares at the broker.
    topology: Topology


def make(service: Service) -> Plan:
    """Index a service; raises DefinitionError if it wants an adapter that nobody declares."""
    for handler in service.handlers.values():
        for name, kind in handler.signature.wants.items():
            if handler.is_async and kind is not Context and kind not in service.adapters:
                raise DefinitionError(
                    f"{handler.place}: {handler.name}: parameter {name!r}: {service.name} declares "
                    f"no adapter {kind.__name__} (@service.adapter)"
                )
    heard = service.routes()
    own = set(service.published)
    versions: dict[str, tuple[int, ...]] = {}
    for kind in heard:
        address = kind.__address__
        versions[address.topic] = tuple(sorted((*versions.get(address.topic, ()), address.version)))
    arms: dict[MessageType, tuple[Deadline[..., Any], ...]] = {}
    ends: dict[MessageType, tuple[Deadline[..., Any], ...]] = {}
    for deadline in service.deadlines:
        for kind in own.intersection(deadline.signature.consumes):
            arms[kind] = (*arms.get(kind, ()), deadline)
        for kind in () if deadline.conductor else own.intersection(deadline.until):
            ends[kind] = (*ends.get(kind, ()), deadline)
    stoppable: set[str] = {one.name for one in service.deadlines if not one.conductor}
    stoppable.update(one.name for one in service.steps if one.taken_back_by or one.unless)
    return Plan(
        service=service,
        routes={kind.__address__.wire_type: (kind, routes) for kind, routes in heard.items()},
        step_of={
            one.taken_back_by.name: one for one in service.steps if one.taken_back_by is not None
        },
        arms=arms,
        ends=ends,
        stoppable=frozenset(stoppable),
        versions=versions,
        topology=topology.of([service]),
    )
