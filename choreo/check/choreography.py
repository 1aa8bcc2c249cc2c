"""What is checked: the services, flows and contracts of a project, and who reacts to what."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from choreo import discovery
from choreo.conducting import Part
from choreo.conductor import Conductor
from choreo.flow import Flow
from choreo.service import Handler, Service, Step
from choreo.settings import Settings
from choreo.signature import MessageType


@dataclass(frozen=True)
class Choreography:
    """Services, flows and contracts that belong together."""

    services: Sequence[Service]
    flows: Sequence[Flow]
    #: Those that the contracts package declares.
    contracts: Sequence[MessageType]
    #: How long services remember a flow.
    memory: timedelta = timedelta(days=30)

    @classmethod
    def of(cls, settings: Settings) -> Choreography:
        """That of a project; raises CannotRunError if a module of it cannot be imported."""
        flows = discovery.flows(settings)
        services = sorted(discovery.services(settings), key=lambda one: one.name)
        # Behind the services: importing them may have entered more of the package.
        own = discovery.contracts(settings)
        return cls(services, flows, own, timedelta(days=settings.retention_days))

    @cached_property
    def handlers(self) -> Sequence[Handler[..., Any]]:
        """Every handler of every service."""
        return [one for service in self.services for one in service.handlers.values()]

    @cached_property
    def conductors(self) -> Sequence[Conductor]:
        """Every conductor of every service."""
        return [one for service in self.services for one in service.conductors.values()]

    @cached_property
    def hearers(self) -> dict[MessageType, list[Handler[..., Any]]]:
        """Who does something with a message."""
        found: dict[MessageType, list[Handler[..., Any]]] = {}
        for service in self.services:
            for kind, routes in service.routes().items():
                found.setdefault(kind, []).extend(route.handler for route in routes)
        return found

    @cached_property
    def publishers(self) -> dict[MessageType, list[Handler[..., Any]]]:
        """Who may publish a message."""
        found: dict[MessageType, list[Handler[..., Any]]] = {}
        for handler in self.handlers:
            for kind in handler.signature.publishes:
                found.setdefault(kind, []).append(handler)
        return found

    @cached_property
    def plain_undos(self) -> dict[Step[..., Any], set[Step[..., Any]]]:
        """Steps that a conductor has undone by a plain step of their service, by step.

        The conductor's table says which command takes back which; the service heeds it by a step
        of its own, so nothing keeps the undone step from running after it.
        """
        found: dict[Step[..., Any], set[Step[..., Any]]] = {}
        parts = (part for one in self.conductors for stage in one.stages for part in stage)
        for part in parts:
            for step in self._takers(part):
                undo = step.taken_back_by
                sent = set(part.undo.publishes) if part.undo else set[MessageType]()
                sent -= set(undo.signature.consumes if undo else ())
                for other in step.service.steps:
                    if other is not step and sent.intersection(other.signature.consumes):
                        found.setdefault(step, set()).add(other)
        return found

    def _takers(self, part: Part) -> Iterable[Step[..., Any]]:
        """The steps that do what a conductor asks for."""
        asked = set(part.make.publishes) if part.waits else set()
        for service in self.services:
            for step in service.steps:
                if asked.intersection(step.signature.consumes):
                    yield step


def where(kind: MessageType) -> str:
    """Where a contract stands, as `file:line`, or as near as can be told."""
    try:
        _, line = inspect.getsourcelines(kind)
        return f"{inspect.getsourcefile(kind)}:{line}"
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}"


def name(handler: Handler[..., Any]) -> str:
    """What people call a handler."""
    return f"{handler.service.name}.{handler.name}"


def wire(kind: MessageType) -> str:
    """What a message is called on the wire."""
    return kind.__address__.wire_type
