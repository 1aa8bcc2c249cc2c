"""The choreography in Mermaid: as a flowchart, and what a conductor does as a sequence diagram."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Json = dict[str, Any]


def flowchart(drawn: Json) -> str:
    """The picture of what `choreo.map.draw` found, in Mermaid's language (mermaid.js.org).

    All handlers of a conductor are one box with six corners.
    """
    lines = [*_boxes(drawn), *dict.fromkeys(_says(drawn)), *dict.fromkeys(_hears(drawn))]
    return "\n".join(["flowchart LR", *(f"  {line}" for line in lines)])


def _boxes(drawn: Json) -> Iterator[str]:
    for service, what in drawn["services"].items():
        yield f"subgraph {service}"
        handlers = what["handlers"].items()
        yield from dict.fromkeys(f"  {_shape(service, *one)}" for one in handlers)
        yield "end"


def _shape(service: str, name: str, handler: Json) -> str:
    box = _box(service, name, handler)
    # A rounded box calls the outside world.
    left, right = ("([", "])") if handler["calls_outside"] else ("[", "]")
    if "conductor" in handler:
        left, right = "{{", "}}"
    return f"{box}{left}{box.partition('.')[2]}{right}"


def _says(drawn: Json) -> Iterator[str]:
    for service, name, handler in _handlers(drawn):
        for wire_type in handler["publishes"]:
            yield f"{_box(service, name, handler)} --> {_message(drawn, wire_type)}"


def _hears(drawn: Json) -> Iterator[str]:
    for service, name, handler in _handlers(drawn):
        arrow = "-.->" if handler["kind"] == "undo" else "-->"
        for wire_type in () if handler["kind"] == "deadline" else handler["consumes"]:
            yield f"{_message(drawn, wire_type)} {arrow} {_box(service, name, handler)}"


def _handlers(drawn: Json) -> Iterator[tuple[str, str, Json]]:
    for service, what in drawn["services"].items():
        for name, handler in what["handlers"].items():
            yield service, name, handler


def _box(service: str, name: str, handler: Json) -> str:
    return f"{service}.{handler.get('conductor', name)}"


def _message(drawn: Json, wire_type: str) -> str:
    return f"{wire_type}>{_name(drawn, wire_type)}]"


def sequences(drawn: Json) -> str:
    """What each conductor does, step by step, in Mermaid's language; "" if there is none."""
    return "\n".join(
        "\n".join(["sequenceDiagram", *(f"  {line}" for line in _sequence(drawn, service, table))])
        for service, what in drawn["services"].items()
        for table in what.get("conductors", {}).values()
    )


def _sequence(drawn: Json, service: str, table: Json) -> Iterator[str]:
    yield f"participant {service}"
    yield f"Note over {service}: {_name(drawn, table['starts'])}"
    for stage in table["stages"]:
        parts = [list(_asked(drawn, service, part)) for part in stage]
        if len(parts) == 1:
            yield from parts[0]
            continue
        for number, lines in enumerate(parts):
            yield "and side by side" if number else "par side by side"
            yield from (f"  {line}" for line in lines)
        yield "end"
    yield from _told(drawn, service, table["ends"])
    undone = [part for stage in reversed(table["stages"]) for part in stage if "undo" in part]
    if undone or table["fails"]:
        yield "opt a step was refused, or not answered in time: newest first"
        for part in undone:
            back = {"sends": part["undo"], "each": part["each"], "good": part["undone"], "bad": []}
            yield from (f"  {line}" for line in _asked(drawn, service, back))
        yield from (f"  {line}" for line in _told(drawn, service, table["fails"]))
        yield "end"


def _asked(drawn: Json, service: str, part: Json) -> Iterator[str]:
    """What a step sends and is answered; `each` marks several side by side."""
    if not part["good"]:
        yield from _told(drawn, service, part["sends"])
        return
    answers = " or ".join(_name(drawn, kind) for kind in (*part["good"], *part["bad"]))
    for kind in part["sends"]:
        for other in _heard_by(drawn, kind, service):
            yield f"{service}->>{other}: {'each ' if part['each'] else ''}{_name(drawn, kind)}"
            yield f"{other}-->>{service}: {answers}"


def _told(drawn: Json, service: str, kinds: Iterable[str]) -> Iterator[str]:
    for kind in kinds:
        for other in _heard_by(drawn, kind, service):
            yield f"{service}-){other}: {_name(drawn, kind)}"


def _heard_by(drawn: Json, wire_type: str, service: str) -> list[str]:
    """Who hears a message of a service; where nobody else does, it tells itself."""
    heard = [one for one in drawn["contracts"][wire_type]["heard_by"] if one in drawn["services"]]
    return [one for one in heard if one != service] or [service]


def _name(drawn: Json, wire_type: str) -> str:
    return str(drawn["contracts"][wire_type]["class"]).rpartition(".")[2]
