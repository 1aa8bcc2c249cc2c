"""The choreography as a Mermaid flowchart: services as boxes, events as arrows, undo dashed."""

from __future__ import annotations

from collections.abc import Iterator
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
    contract = drawn["contracts"][wire_type]
    return f"{wire_type}>{str(contract['class']).rpartition('.')[2]}]"
