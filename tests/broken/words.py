"""The few messages that the small choreographies are made of, and how one is put together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import reduce
from operator import or_
from typing import Any, NoReturn

from choreo import Command, Event, Flow, Service
from choreo.check import Choreography
from choreo.contract import Message


class Go(Command, topic="broken.go", subject="job"):
    job: str


class GoElsewhere(Command, topic="broken.go_elsewhere", subject="job"):
    job: str


class Work(Command, topic="broken.work", subject="job"):
    job: str


class Unwork(Command, topic="broken.unwork", subject="job"):
    job: str


class Worked(Event, topic="broken.worked", subject="job"):
    job: str


class Refused(Event, topic="broken.refused", subject="job"):
    job: str


class Packed(Event, topic="broken.packed", subject="job"):
    job: str


class Unworked(Event, topic="broken.unworked", subject="job"):
    job: str


class Told(Event, topic="broken.told", subject="job"):
    job: str


class ToldMore(Event, topic="broken.told", version=2, subject="job"):
    job: str


class Done(Event, topic="broken.done", subject="job"):
    job: str


class Failed(Event, topic="broken.failed", subject="job"):
    job: str


class Expired(Event, topic="broken.expired", subject="job"):
    job: str


def unsaid() -> NoReturn:
    """What a handler does that is never run."""
    raise NotImplementedError


def put_together(
    name: str,
    *services: Service,
    ends: Mapping[str, type[Event]],
    fails: Collection[str] = (),
    starts: type[Message] = Go,
    also: Mapping[type[Message], Mapping[str, type[Event]]] | None = None,
    unwatched: Collection[type[Message]] = (),
    undeclared: Collection[type[Message]] = (),
) -> Choreography:
    """A choreography whose every event somebody watches, and whose every contract is declared.

    `also`: other flows, by what starts them.
    """
    published = {kind for service in services for kind in service.published}
    events = {kind for kind in published if issubclass(kind, Event)} - set(unwatched)
    flows = [Flow(name, starts=starts, ends=ends, fails=fails)]
    for number, (start, found) in enumerate((also or {}).items(), 2):
        flows.append(Flow(f"{name}_{number}", starts=start, ends=found))
    heard = {kind for service in services for kind in service.routes()}
    contracts = (published | heard | {starts}) - set(undeclared)
    return Choreography([*services, _watcher(events)], flows, list(contracts))


def _watcher(events: Collection[Any]) -> Service:
    service = Service("watcher")

    def watch(event: Any) -> None:
        unsaid()

    watch.__annotations__ = {"event": reduce(or_, sorted(events, key=str)), "return": None}
    service.on(final="what was seen was seen")(watch)
    return service
