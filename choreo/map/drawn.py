"""Reads from the signatures who says what, who hears it, and how each flow begins and ends."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from choreo import discovery
from choreo.conducting import Part
from choreo.conductor import Conductor
from choreo.contract import Command
from choreo.flow import Flow
from choreo.service import Deadline, Handler, Service, Step
from choreo.settings import Settings
from choreo.signature import MessageType

Json = dict[str, Any]


def draw(settings: Settings, *, lines: bool = False) -> Json:
    """The whole choreography, in a stable order; no broker and no database is asked.

    `contracts` says of each wire type where it travels, what it carries, which services publish
    it and which queues hear it; `services` says what each handler does with it; `flows` says what
    each starts with, and how it may end. `lines`: say of each place its line, too; in a file that
    is kept, it would make every edit a change.
    """
    flows = discovery.flows(settings)
    services = sorted(discovery.services(settings), key=lambda one: one.name)
    package = importlib.import_module(settings.services)
    root = Path(package.__path__[0]).resolve().parents[settings.services.count(".")]
    return {
        "contracts": {
            kind.__address__.wire_type: _contract(kind, services)
            for kind in sorted(
                _kinds(settings, services), key=lambda one: one.__address__.wire_type
            )
        },
        "services": {service.name: _service(service, root, lines) for service in services},
        "flows": {flow.name: _flow(flow) for flow in flows},
    }


def handlers(drawn: Json) -> Iterator[tuple[str, str, Json]]:
    """Every handler of a choreography, with the name of its service and its own."""
    for service, what in drawn["services"].items():
        for name, handler in what["handlers"].items():
            yield service, name, handler


def _kinds(settings: Settings, services: Iterable[Service]) -> set[MessageType]:
    """The project's contracts, and any other that its services speak of."""
    kinds = set(discovery.contracts(settings))
    for service in services:
        kinds.update(service.published, service.routes())
    return kinds


def _contract(kind: MessageType, services: Iterable[Service]) -> Json:
    address = kind.__address__
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "kind": "command" if issubclass(kind, Command) else "event",
        "summary": _first_line(kind),
        "topic": address.topic,
        "version": address.version,
        "exchange": address.exchange,
        "subject": address.subject,
        "fields": _fields(kind),
        "published_by": [one.name for one in services if kind in one.published],
        "heard_by": [one.name for one in services if kind in one.routes()],
    }


def _service(service: Service, root: Path, lines: bool) -> Json:
    found: Json = {
        "queue": service.name,
        "handlers": {
            handler.name: _handler(service, handler, _place(handler, root, lines))
            for handler in service.handlers.values()
        },
    }
    if service.conductors:
        found["conductors"] = {
            name: _conductor(conductor) for name, conductor in service.conductors.items()
        }
    return found


def _conductor(conductor: Conductor) -> Json:
    """The table of a conductor: what it sends stage by stage, and what it may be answered."""
    return {
        "starts": conductor.starts.__address__.wire_type,
        "stages": [[_part(part) for part in stage] for stage in conductor.stages],
        "ends": _wire_types(conductor.ends.publishes),
        "fails": _wire_types(conductor.fails.publishes if conductor.fails else ()),
    }


def _part(part: Part) -> Json:
    found: Json = {
        "step": part.name,
        "sends": _wire_types(part.make.publishes),
        "each": part.make.several,
        "good": _wire_types(part.good),
        "bad": _wire_types(part.bad),
    }
    if part.undo is not None:
        found |= {"undo": _wire_types(part.undo.publishes), "undone": _wire_types(part.undone)}
    return found


def _handler(service: Service, handler: Handler[..., Any], place: str) -> Json:
    """What a handler does; what does not apply to it is left out."""
    signature = handler.signature
    found: Json = {
        "kind": handler.kind,
        "summary": handler.summary,
        "place": place,
        "calls_outside": handler.is_async,
        "consumes": _wire_types(signature.consumes),
        "publishes": _wire_types(signature.publishes),
    }
    if handler.conductor is not None:
        found["conductor"] = handler.conductor
    if handler.kind == "undo":
        undone = next(one for one in service.steps if one.taken_back_by is handler)
        found |= {"undoes": undone.name, "outcomes": _wire_types(signature.outcomes)}
    if isinstance(handler, Step):
        if handler.taken_back_by is not None:
            found["undone_by"] = handler.taken_back_by.name
        if handler.final is not None:
            found["final"] = handler.final
        if handler.unless:
            found["unless"] = _wire_types(handler.unless)
    if isinstance(handler, Deadline):
        found |= {
            "within_s": handler.within.total_seconds(),
            "until": _wire_types(handler.until),
        }
    return found


def _place(handler: Handler[..., Any], root: Path, lines: bool) -> str:
    """Where the handler stands, relative to the project."""
    name, _, line = handler.place.rpartition(":")
    file = Path(name).resolve()
    shown = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
    return f"{shown}:{line}" if lines else shown


def _flow(flow: Flow) -> Json:
    return {
        "starts": flow.starts.__address__.wire_type,
        "ends": {word: kind.__address__.wire_type for word, kind in flow.ends.items()},
        "fails": [word for word in flow.ends if word in flow.fails],
    }


def _wire_types(kinds: Iterable[MessageType]) -> list[str]:
    return [kind.__address__.wire_type for kind in kinds]


def _first_line(kind: MessageType) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]


def _fields(kind: MessageType) -> dict[str, str]:
    """Each field and its type in a word; '?' where it may be left out."""
    schema = kind.model_json_schema()
    needed = schema.get("required", ())
    return {
        name: _type(one) + ("" if name in needed else "?")
        for name, one in schema.get("properties", {}).items()
    }


def _type(schema: Json) -> str:
    """A type of JSON Schema in a word."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " | ".join(_type(one) for one in schema[several])
    if schema.get("type") == "array":
        return f"[{_type(schema.get('items', {}))}]"
    return str(schema.get("format") or schema.get("type") or "any")
