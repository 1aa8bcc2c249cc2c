"""The choreography in Mermaid: as a flowchart, and what a conductor does as a sequence diagram."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from choreo.errors import CannotRunError
from choreo.map.drawn import Json, handlers
from choreo.map.table import name_of

#: What begins or ends something where it stands first: in flowcharts, in sequence diagrams.
_MEANT_OTHERWISE = (
    "call", "class", "click", "default", "end", "flowchart", "graph", "href", "interpolate",
    "style", "subgraph",
    "activate", "actor", "alt", "and", "autonumber", "box", "break", "create", "critical",
    "deactivate", "destroy", "details", "else", "link", "links", "loop", "note", "off", "opt",
    "option", "over", "par", "par_over", "participant", "properties", "rect", "title",
)  # fmt: skip


def flowchart(drawn: Json) -> str:
    """The picture of what `choreo.map.draw` found, in Mermaid's language (mermaid.js.org).

    All handlers of a conductor are one box with six corners.
    """
    lines = [*_boxes(drawn), *dict.fromkeys(_says(drawn)), *dict.fromkeys(_hears(drawn))]
    return "\n".join(["flowchart LR", *(f"  {line}" for line in lines)])


def _boxes(drawn: Json) -> Iterator[str]:
    for service, what in drawn["services"].items():
        yield f"subgraph {_word(service)}"
        yield from dict.fromkeys(f"  {_shape(service, *one)}" for one in what["handlers"].items())
        yield "end"


def _shape(service: str, name: str, handler: Json) -> str:
    box = _box(service, name, handler)
    # A rounded box calls the outside world.
    left, right = ("([", "])") if handler["calls_outside"] else ("[", "]")
    if "conductor" in handler:
        left, right = "{{", "}}"
    return f"{box}{left}{_word(box.partition('.')[2])}{right}"


def _says(drawn: Json) -> Iterator[str]:
    for service, name, handler in handlers(drawn):
        for wire_type in handler["publishes"]:
            yield f"{_box(service, name, handler)} --> {_message(drawn, wire_type)}"


def _hears(drawn: Json) -> Iterator[str]:
    for service, name, handler in handlers(drawn):
        arrow = "-.->" if handler["kind"] == "undo" else "-->"
        for wire_type in () if handler["kind"] == "deadline" else handler["consumes"]:
            yield f"{_message(drawn, wire_type)} {arrow} {_box(service, name, handler)}"


def _box(service: str, name: str, handler: Json) -> str:
    return f"{_word(service)}.{handler.get('conductor', name)}"


def _message(drawn: Json, wire_type: str) -> str:
    context, _, rest = wire_type.partition(".")
    return f"{_word(context)}.{rest}>{name_of(drawn, wire_type)}]"


def _word(name: str) -> str:
    """A name, in a way that does not begin or end anything in Mermaid's language."""
    return f"{name}_" if name in _MEANT_OTHERWISE else name


def sequences(drawn: Json) -> str:
    """What each conductor does, step by step, in Mermaid's language.

    Raises CannotRunError if there is none.
    """
    found = "\n".join(
        "\n".join(["sequenceDiagram", *(f"  {line}" for line in _sequence(drawn, service, table))])
        for service, what in drawn["services"].items()
        for table in what.get("conductors", {}).values()
    )
    if not found:
        raise CannotRunError(
            "no conductor takes part, and --sequence draws what conductors do; --mermaid draws all"
        )
    return found


def _sequence(drawn: Json, service: str, table: Json) -> Iterator[str]:
    yield f"participant {_word(service)}"
    yield f"Note over {_word(service)}: {name_of(drawn, table['starts'])}"
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
    answers = " or ".join(name_of(drawn, kind) for kind in (*part["good"], *part["bad"]))
    for kind in part["sends"]:
        for other in _heard_by(drawn, kind, service):
            each = "each " if part["each"] else ""
            yield f"{_word(service)}->>{_word(other)}: {each}{name_of(drawn, kind)}"
            yield f"{_word(other)}-->>{_word(service)}: {answers}"


def _told(drawn: Json, service: str, kinds: Iterable[str]) -> Iterator[str]:
    for kind in kinds:
        for other in _heard_by(drawn, kind, service):
            yield f"{_word(service)}-){_word(other)}: {name_of(drawn, kind)}"


def _heard_by(drawn: Json, wire_type: str, service: str) -> list[str]:
    """Who hears a message of a service; where nobody else does, it tells itself."""
    heard = [one for one in drawn["contracts"][wire_type]["heard_by"] if one in drawn["services"]]
    return [one for one in heard if one != service] or [service]
