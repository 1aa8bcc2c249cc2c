"""One moment of a choreography, as brute force has it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from check_brute_runs import Run


@dataclass
class World:
    """One moment."""

    #: Kind, subject, whether it follows from a failure; service and route.
    under_way: list[tuple[Any, int, bool, str, int]] = field(default_factory=list)
    #: Of each step that ran: its name, subject, what it said, whether undone, whether overtaken,
    #: and the deadline by which it was forgotten.
    done: list[list[Any]] = field(default_factory=list)
    graves: set[tuple[str, int]] = field(default_factory=set)
    armed: list[tuple[str, Any, int, bool]] = field(default_factory=list)
    ends: list[tuple[Any, str]] = field(default_factory=list)
    #: Kind and subject of all that was announced.
    said: set[tuple[Any, int]] = field(default_factory=set)
    #: Whether a deadline was up that is longer than services remember.
    is_late: bool = False
    runs: list[Run] = field(default_factory=list)
    #: How often each handler of a cycle ran.
    turns: Counter[str] = field(default_factory=Counter)

    def key(self) -> Any:
        """Equal for equal moments."""
        return (
            frozenset(Counter(self.under_way).items()),
            frozenset(Counter((*one[:2], tuple(one[2]), *one[3:]) for one in self.done).items()),
            frozenset(self.graves),
            frozenset(Counter(self.armed).items()),
            tuple(self.ends),
            frozenset(self.said),
            self.is_late,
            frozenset(self.runs),
            frozenset(self.turns.items()),
        )

    def is_buried(self, name: str, about: int) -> bool:
        """Whether it must not run."""
        return (name, -1) in self.graves or (name, about) in self.graves


def reaches(name: str, about: int, armed: tuple[str, Any, int, bool]) -> bool:
    return armed[0] == name and about in (-1, armed[2])


def copied(world: World) -> World:
    return World(
        list(world.under_way),
        [list(one) for one in world.done],
        set(world.graves),
        list(world.armed),
        list(world.ends),
        set(world.said),
        world.is_late,
        list(world.runs),
        world.turns.copy(),
    )
