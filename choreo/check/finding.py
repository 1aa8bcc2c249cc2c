"""What a check says: which rule is broken, where, and the shortest run that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Rule(StrEnum):
    """What a sound choreography keeps to."""

    UNHEARD = "unheard"
    UNPUBLISHED = "unpublished"
    UNPUBLISHED_VERSION = "unpublished-version"
    UNDECLARED = "undeclared"
    TWO_OWNERS = "two-owners"
    NO_UNDO = "no-undo"
    FALLIBLE_UNDO = "fallible-undo"
    ENDLESS_CYCLE = "endless-cycle"
    NO_END = "no-end"
    UNREACHED_END = "unreached-end"
    TWO_ENDS = "two-ends"
    TWO_DECIDERS = "two-deciders"
    NO_DEADLINE = "no-deadline"
    UNDECLARED_FAILURE = "undeclared-failure"
    LEFT_UNDONE = "left-undone"
    OVERTAKEN = "overtaken"
    PIVOT = "pivot"


@dataclass(frozen=True, slots=True)
class Happening:
    """One step of a run: a message starts it, one is delivered, time is up, or a call is lost."""

    #: "start", "deliver", "deadline" or "lost": an outside call that is never answered.
    do: str
    #: The wire type of the message, or of that which armed the deadline.
    type: str
    #: Its subject: 0 is the flow's own, 1 and 2 those of several side by side, -1 none.
    about: int
    #: `service.handler` that takes it, also those that were derived for a conductor.
    to: str = ""
    #: In which role: step, undo, unless (it keeps a step from running), arm and until (of a
    #: deadline), conduct, deadline.
    role: str = ""
    #: The wire types of what the handler published then.
    outcome: tuple[str, ...] = ()
    #: Why nothing came of it, where that is not the handler's choice.
    note: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault, and how it comes about."""

    rule: Rule
    what: str
    #: What to do about it.
    do: str
    #: `file:line`
    place: str
    #: None where the signatures alone show it.
    flow: str | None = None
    trace: Sequence[Happening] = ()


@dataclass(frozen=True, slots=True)
class Explored:
    """What was seen of one flow."""

    flow: str
    states: int
    transitions: int
    #: The words for the ends that some run came to.
    ends: Sequence[str]
    seconds: float
    #: Whether every run was followed; if not, there were too many.
    is_whole: bool = True
    #: `service.handler` of each that ran.
    reached: frozenset[str] = field(default=frozenset(), repr=False)


@dataclass(frozen=True, slots=True)
class Report:
    """All that a check found."""

    findings: Sequence[Finding]
    explored: Sequence[Explored]
    #: Handlers that no flow comes to, if all flows were checked, and wholly.
    never_reached: Sequence[str]

    @property
    def too_large(self) -> list[str]:
        """The flows of which not every run was followed."""
        return [one.flow for one in self.explored if not one.is_whole]
