"""What is proven to be left over from before, and how it is taken away.

A binding is proven stale if choreo made it (its key and exchange are of the form that only a
contract gives), for a queue of this project, and its service handles no such message. A queue is
if choreo made it, every binding of it is to this project's exchanges, neither a service nor the
agreement knows it, it is empty, and nobody consumes from it. All else is a person's to judge.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass

from choreo import process
from choreo.doctor.facts import Facts, Managed
from choreo.errors import CannotRunError
from choreo.management import Json, UnreachableError
from choreo.rabbitmq.declare import DELIVERY_LIMIT
from choreo.rabbitmq.survey import survey
from choreo.topology import JOURNAL, Binding, Topology

#: A wire type, which is the routing key of its message.
_WIRE_TYPE = re.compile(r"([a-z][a-z0-9_]*)(\.[a-z][a-z0-9_]*)+\.v[1-9][0-9]*")
_NOTHING = Topology((), (), (), ())


@dataclass(frozen=True, slots=True)
class Stale:
    """A binding, or a whole queue where there is no routing key."""

    queue: str
    exchange: str = ""
    routing_key: str = ""
    #: What the management API calls the binding.
    properties_key: str = ""

    def __str__(self) -> str:
        if not self.routing_key:
            return f"queue {self.queue}"
        return f"binding {self.exchange} -> {self.routing_key} -> {self.queue}"


def stale(facts: Facts) -> list[Stale]:
    """All that is proven stale; nothing where the management API does not tell."""
    if isinstance(facts.management, str):
        return []
    return [*_bindings(facts, facts.management), *_queues(facts, facts.management)]


def prune(facts: Facts) -> list[Stale]:
    """Delete what is proven stale; gives what was deleted.

    A queue is looked at once more just before. Raises CannotRunError if the broker refuses, or if
    the agreement is not what the signatures say: then this is perhaps not what was deployed.
    """
    if isinstance(facts.management, str):
        raise CannotRunError(f"cannot tell what is stale: {facts.management}")
    if facts.agreement is not None and facts.agreement != facts.signatures:
        raise CannotRunError(
            "the agreement is not what the signatures say, so nothing is proven stale: write it "
            "anew with 'choreo map --json', and prune from what is deployed"
        )
    deleted: list[Stale] = []
    try:
        for one in stale(facts):
            if one.routing_key:
                facts.management.api.unbind(one.queue, one.exchange, one.properties_key)
            elif _is_still_idle(facts, one.queue):
                facts.management.api.delete_queue(one.queue)
            else:
                continue
            deleted.append(one)
    except UnreachableError as error:
        done = ", ".join(map(str, deleted)) or "nothing"
        raise CannotRunError(f"deleted {done}; then: {error}") from error
    return deleted


def bound(managed: Managed) -> set[Binding]:
    """Every binding of a queue to an exchange that has a name."""
    return {
        Binding(one["destination"], one["source"], one["routing_key"])
        for one in managed.bindings
        if one["source"] and one["destination_type"] == "queue"
    }


def wanted_bindings(facts: Facts) -> set[Binding]:
    """Every binding that the signatures ask for, and the journal's."""
    journal = (Binding(JOURNAL, exchange, "#") for exchange in facts.wanted.event_exchanges)
    return {*facts.wanted.bindings, *journal}


def leftovers(facts: Facts) -> list[Json]:
    """Queues that choreo made, that hear this project, and that nothing here knows."""
    if isinstance(facts.management, str):
        return []
    agreed = {queue for one in (facts.agreement or {}).values() for queue in one["heard_by"]}
    exchanges = {*facts.wanted.event_exchanges, *facts.wanted.command_exchanges}
    hearing = {one.queue for one in bound(facts.management) if one.exchange in exchanges}
    return [
        queue
        for queue in facts.management.queues
        if queue["name"] in hearing - facts.names - agreed
        and (queue.get("arguments") or {}).get("x-delivery-limit") == DELIVERY_LIMIT
    ]


def _bindings(facts: Facts, managed: Managed) -> Iterator[Stale]:
    wanted = wanted_bindings(facts)
    for one in managed.bindings:
        found = Binding(one["destination"], one["source"], one["routing_key"])
        if found.queue not in facts.names or found in wanted or one["arguments"]:
            continue
        kind = _WIRE_TYPE.fullmatch(found.routing_key)
        if kind and found.exchange in (kind[1], f"{kind[1]}.commands"):
            yield Stale(found.queue, found.exchange, found.routing_key, one["properties_key"])


def _queues(facts: Facts, managed: Managed) -> Iterator[Stale]:
    exchanges = {*facts.wanted.event_exchanges, *facts.wanted.command_exchanges}
    for queue in leftovers(facts):
        hears = {one.exchange for one in bound(managed) if one.queue == queue["name"]}
        # A figure that is missing is not nought.
        if queue.get("messages") == 0 and queue.get("consumers") == 0 and hears <= exchanges:
            yield Stale(queue["name"])


def _is_still_idle(facts: Facts, queue: str) -> bool:
    """Whether nothing is in it and nobody consumes now: the figures may be some seconds old."""
    settings = facts.settings
    seen = asyncio.run(survey(process.amqp_url(settings), settings, _NOTHING, (queue,)))
    found = seen.queues.get(queue)
    return found is not None and found.waiting == found.consumers == 0
