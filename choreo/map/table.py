"""The choreography as a table: each message, who says it, who reacts, and what takes that back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from choreo.map.cards import duration
from choreo.map.drawn import Json, handlers


@dataclass(frozen=True, slots=True)
class Reaction:
    """What one handler does about a message."""

    #: As `service.handler`.
    handler: str
    #: What undoes it, or why nothing has to; of an undo, what it undoes.
    undo: str
    #: The file, and the line where that was asked for.
    place: str


@dataclass(frozen=True, slots=True)
class Row:
    """One message."""

    name: str
    topic: str
    version: int
    #: Each as `service.handler`; empty: nobody here, it comes from outside.
    published_by: tuple[str, ...]
    #: Empty: nobody reacts.
    reactions: tuple[Reaction, ...]


def rows(drawn: Json) -> Iterator[Row]:
    """A row for each message, in the order of the topics."""
    for kind, contract in drawn["contracts"].items():
        yield Row(
            name_of(drawn, kind),
            contract["topic"],
            contract["version"],
            tuple(
                f"{service}.{name}"
                for service, name, one in handlers(drawn)
                if kind in one["publishes"]
            ),
            tuple(
                Reaction(f"{service}.{name}", undo_of(drawn, one), one["place"])
                for service, name, one in handlers(drawn)
                if kind in one["consumes"]
            ),
        )


def undo_of(drawn: Json, handler: Json) -> str:
    """What takes back what a handler does, in a few words."""
    if "undoes" in handler:
        return f"undoes {handler['undoes']}"
    if "conductor" in handler and handler["kind"] == "step":
        return f"conductor {handler['conductor']}"
    if "within_s" in handler:
        until = " or ".join(name_of(drawn, kind) for kind in handler["until"])
        return f"{duration(handler['within_s'])} without {until}"
    if "undone_by" in handler:
        return str(handler["undone_by"])
    return f"final: {handler['final']}" if "final" in handler else ""


def name_of(drawn: Json, kind: str) -> str:
    """The class of a wire type, without its module."""
    return str(drawn["contracts"][kind]["class"]).rpartition(".")[2]
