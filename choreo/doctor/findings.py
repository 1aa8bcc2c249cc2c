"""What a check is, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from choreo.doctor.facts import Facts


class State(StrEnum):
    """How it stands with what a check looks at."""

    OK = "ok"
    WRONG = "wrong"
    #: It cannot be told from here.
    UNKNOWN = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    state: State
    what: str
    #: What to do about it; "" where all is well.
    do: str = ""
    #: The queue or service that it is about; "" if it is about the whole.
    about: str = ""


#: Gives one finding or more; its name is what holds when all is well.
Check = Callable[[Facts], Iterator[Finding]]


def ok(what: str, about: str = "") -> Finding:
    """All is well."""
    return Finding(State.OK, what, about=about)


def wrong(what: str, do: str, about: str = "") -> Finding:
    """Something is to be done."""
    return Finding(State.WRONG, what, do, about)


def unknown(what: str, do: str, about: str = "") -> Finding:
    """It cannot be told; what to do so that it can."""
    return Finding(State.UNKNOWN, what, do, about)
