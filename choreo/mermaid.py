"""The choreography as a Mermaid flowchart: services as boxes, events as arrows, undo dashed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def flowchart(drawn: dict[str, Any]) -> str:
    """The picture of what `choreo.map.draw` found, in Mermaid's language (mermaid.js.org)."""
    lines = [*_boxes(drawn), *_says(drawn), *_hears(drawn)]
    return "\n".join(["flowchart LR", *(f"  {line}" for line in lines)])


def _boxes(drawn: dict[str, Any]) -> Iterator[str]:
    for service, what in drawn["services"].items():
        yield f"subgraph {service}"
        for name, handler in what["handlers"].items():
            # A rounded box calls the outside world.
            left, right = ("([", "])") if handler["calls_outside"] else ("[", "]")
            yield f"  {service}.{name}{left}{name}{right}"
        yield "end"


def _says(drawn: dict[str, Any]) -> Iterator[str]:
    for service, what in drawn["services"].items():
        for name, handler in what["handlers"].items():
            for wire_type in handler["publishes"]:
                yield f"{service}.{name} --> {_message(drawn, wire_type)}"


def _hears(drawn: dict[str, Any]) -> Iterator[str]:
    for service, what in drawn["services"].items():
        for name, handler in what["handlers"].items():
            arrow = "-.->" if handler["kind"] == "undo" else "-->"
            for wire_type in () if handler["kind"] == "deadline" else handler["consumes"]:
                yield f"{_message(drawn, wire_type)} {arrow} {service}.{name}"


def _message(drawn: dict[str, Any], wire_type: str) -> str:
    contract = drawn["contracts"][wire_type]
    return f"{wire_type}>{str(contract['class']).rpartition('.')[2]}]"
