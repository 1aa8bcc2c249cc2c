"""The choreography as the signatures tell it: who says what, and who hears it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from choreo import discovery
from choreo.conducting import Part
from choreo.conductor import Conductor
from choreo.contract import Command, contracts
from choreo.errors import CannotRunError
from choreo.service import Deadline, Handler, Service, Step
from choreo.settings import Settings
from choreo.signature import MessageType

Json = dict[str, Any]
_SIDES = ("published_by", "heard_by")


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


def reach(drawn: Json, message: str, *, without: Collection[str] = ()) -> Json:
    """The part of the choreography that one message sets off, as far as anybody reacts.

    `message`: a wire type, a topic or the name of a class. `without`: services that only watch.
    A handler of a conductor takes part only where a run of it begins; an undo only where its step
    does. Raises CannotRunError if there is no such message, or no such service.
    """
    if unknown := set(without) - set(drawn["services"]):
        raise CannotRunError(f"no service {', '.join(sorted(unknown))}")
    handlers = {
        (service, name): handler
        for service, one in drawn["services"].items()
        for name, handler in one["handlers"].items()
        if service not in without
    }
    sent, active = {_find(drawn, message)}, set[tuple[str, str]]()
    while True:
        begun = {
            key
            for key, handler in handlers.items()
            if sent.intersection(handler["consumes"]) and _may_act(key, handler, active)
        }
        if begun <= active:
            break
        active |= begun
        sent.update(kind for key in begun for kind in handlers[key]["publishes"])
    services: Json = {}
    for service, name in (key for key in handlers if key in active):
        handler = dict(handlers[service, name])
        handler["consumes"] = [kind for kind in handler["consumes"] if kind in sent]
        found = services.setdefault(service, {"queue": service, "handlers": {}})
        found["handlers"][name] = handler
        if (conductor := handler.get("conductor")) is not None:
            table = drawn["services"][service]["conductors"][conductor]
            found.setdefault("conductors", {})[conductor] = table
    kinds = sent.union(*(_in_table(table) for one in services.values() for table in _tables(one)))
    contracts = {
        kind: one | {side: [name for name in one[side] if name in services] for side in _SIDES}
        for kind, one in drawn["contracts"].items()
        if kind in kinds
    }
    return {"contracts": contracts, "services": services}


def _tables(service: Json) -> Iterable[Json]:
    found: Iterable[Json] = service.get("conductors", {}).values()
    return found


def _in_table(table: Json) -> set[str]:
    """Every message that a conductor's table speaks of."""
    found = {table["starts"], *table["ends"], *table["fails"]}
    for part in (part for stage in table["stages"] for part in stage):
        found.update(*(part.get(name, ()) for name in ("sends", "good", "bad", "undo", "undone")))
    return found


def _may_act(key: tuple[str, str], handler: Json, active: Collection[tuple[str, str]]) -> bool:
    service, name = key
    if "conductor" in handler and name != (begins := f"begin_{handler['conductor']}"):
        return (service, begins) in active
    return "undoes" not in handler or (service, handler["undoes"]) in active


def _find(drawn: Json, message: str) -> str:
    for wire_type, contract in drawn["contracts"].items():
        names = (wire_type, contract["topic"], contract["class"].rpartition(".")[2])
        if message in names:
            return str(wire_type)
    meant = get_close_matches(message, [one["topic"] for one in drawn["contracts"].values()], 1)
    hint = f"; did you mean {meant[0]!r}?" if meant else ""
    raise CannotRunError(f"no message {message!r}{hint}")


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
    found: Json = {
        "queue": service.name,
        "handlers": {
            handler.name: _handler(service, handler, root) for handler in service.handlers.values()
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
