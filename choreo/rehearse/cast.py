"""Who plays a part in a flow: which handlers may run, and which services matter to its end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from choreo.flow import Flow
from choreo.service import Handler, Service
from choreo.signature import MessageType


class Cast:
    """What some flows may set off among the services of a project."""

    def __init__(self, services: Sequence[Service], flows: Iterable[Flow]) -> None:
        self._services = services
        self._flows = list(flows)
        #: The messages that there may be.
        self.said: set[MessageType] = {flow.starts for flow in self._flows}
        self._running: list[Handler[..., Any]] = []
        waiting = [handler for service in services for handler in service.handlers.values()]
        while found := [one for one in waiting if _may_run(one, self.said)]:
            for one in found:
                waiting.remove(one)
                self.said.update(one.signature.publishes)
            self._running += found

    @property
    def handlers(self) -> set[str]:
        """The handlers that may run, as `service.handler`."""
        return {f"{one.service.name}.{one.name}" for one in self._running}

    @property
    def can_undo(self) -> bool:
        """Whether something may be taken back."""
        return any(one.kind == "undo" for one in self._running)

    def hears(self, service: Service) -> bool:
        """Whether anything may come to a service."""
        return not self.said.isdisjoint(service.routes())

    def who_matters(self) -> set[str]:
        """The names of the services without which a flow may not begin, or end otherwise.

        What all others do is noticed by nobody but others of that kind.
        """
        starts = {flow.starts for flow in self._flows}
        wanted: set[MessageType] = {end for flow in self._flows for end in flow.ends.values()}
        says = {
            one.name: {
                message
                for handler in self._running
                if handler.service is one
                for message in handler.signature.publishes
            }
            for one in self._services
        }
        found: set[str] = set()
        while more := [
            one
            for one in self._services
            if one.name not in found
            and not (wanted.isdisjoint(says[one.name]) and starts.isdisjoint(one.routes()))
        ]:
            found.update(one.name for one in more)
            wanted.update(kind for one in more for kind in one.routes())
        return found


def _may_run(handler: Handler[..., Any], said: AbstractSet[MessageType]) -> bool:
    """Whether something calls it; and for an undo, whether there may be something to undo."""
    outcomes = handler.signature.outcomes
    return not said.isdisjoint(handler.signature.consumes) and (
        not outcomes or not said.isdisjoint(outcomes)
    )
