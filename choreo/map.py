"""The choreography as the signatures tell it: who says what, and who hears it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from choreo import discovery
from choreo.contract import Command, contracts
from choreo.service import Deadline, Handler, Service, Step
from choreo.settings import Settings
from choreo.signature import MessageType

Json = dict[str, Any]


def draw(settings: Settings) -> Json:
    """The whole choreography, in a stable order; no broker and no database is asked.

    `contracts` says of each wire type where it travels, what it carries, which services publish
    it and which queues hear it; `services` says what each handler does with it.
    """
    discovery.contracts(settings)
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
        "services": {service.name: _service(service, root) for service in services},
    }


def _kinds(settings: Settings, services: Iterable[Service]) -> set[MessageType]:
    """The project's contracts, and any other that its services speak of."""
    inside = f"{settings.contracts}."
    kinds = {kind for kind in contracts().values() if f"{kind.__module__}.".startswith(inside)}
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


def _service(service: Service, root: Path) -> Json:
    return {
        "queue": service.name,
        "handlers": {
            handler.name: _handler(service, handler, root) for handler in service.handlers.values()
        },
    }


def _handler(service: Service, handler: Handler[..., Any], root: Path) -> Json:
    """What a handler does; what does not apply to it is left out."""
    signature = handler.signature
    found: Json = {
        "kind": handler.kind,
        "summary": handler.summary,
        "place": _place(handler, root),
        "calls_outside": handler.is_async,
        "consumes": _wire_types(signature.consumes),
        "publishes": _wire_types(signature.publishes),
    }
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


def _place(handler: Handler[..., Any], root: Path) -> str:
    """The handler's file, relative to the project; a line would make every edit a change."""
    file = Path(inspect.unwrap(handler.fn).__code__.co_filename).resolve()
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


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
