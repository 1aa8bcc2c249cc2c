"""One moment of one flow: the messages under way, and what each service remembers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from choreo.store.runs import RunStatus, TaskStatus

#: The subject of a message that has none: it reaches the whole flow.
ALL = -1


class Post(NamedTuple):
    """A message on its way to one receiver (their numbers are those of the model)."""

    to: int
    kind: int
    #: Which subject it is about: 0 is the flow's own, 1 and 2 are those of several side by side.
    about: int
    #: Whether it follows from an end by which the flow failed.
    after: bool


class Done(NamedTuple):
    """An outcome of a step that its undo takes back, as long as it stands."""

    step: int
    about: int
    #: Kind and subject of what is to be taken back.
    outcomes: tuple[tuple[int, int], ...]
    #: Whether what undoes it had come to its service before.
    overtaken: bool
    #: The deadline by which its service had forgotten it, as `service.handler`.
    forgotten: str = ""


class Task(NamedTuple):
    """A command of a conductor that is answered."""

    part: int
    about: int
    status: TaskStatus
    #: The newest answer has the highest.
    answered: int = 0


class Run(NamedTuple):
    """A run of a conductor."""

    conductor: int
    about: int
    status: RunStatus
    stage: int
    tasks: tuple[Task, ...]

    def awaits(self, status: TaskStatus) -> bool:
        """Whether some task of it is in this state."""
        return any(one.status == status for one in self.tasks)


class Armed(NamedTuple):
    """A deadline that may be up at any time."""

    deadline: int
    kind: int
    about: int
    after: bool


class State(NamedTuple):
    """One moment; equal moments are one state, however they came about."""

    posts: tuple[Post, ...] = ()
    done: tuple[Done, ...] = ()
    #: Receiver and subject of what must not run any more.
    stones: frozenset[tuple[int, int]] = frozenset()
    armed: tuple[Armed, ...] = ()
    runs: tuple[Run, ...] = ()
    #: Kind and service of each end that was announced.
    ends: tuple[tuple[int, str], ...] = ()
    #: Of the kinds that some `unless` names, those that were announced, and about what.
    said: frozenset[tuple[int, int]] = frozenset()
    #: How often each handler of a cycle ran.
    turns: tuple[tuple[int, int], ...] = ()
    #: Whether a deadline was up by which services have forgotten the flow.
    is_late: bool = False

    def buried(self, handler: int, about: int) -> bool:
        """Whether a tombstone keeps a handler from running."""
        stones = self.stones
        return bool(stones) and ((handler, ALL) in stones or (handler, about) in stones)

    @property
    def deciders(self) -> frozenset[str]:
        """The services that have announced an end."""
        return frozenset(service for _, service in self.ends)

    def has_ended(self, service: str) -> bool:
        """Whether a service has announced an end."""
        return any(one == service for _, one in self.ends)


class Draft:
    """A state that is being made."""

    def __init__(self, state: State, without: Post | None = None) -> None:
        self.posts = list(state.posts)
        if without is not None:
            self.posts.remove(without)
        self.done: Sequence[Done] = state.done
        self.stones = state.stones
        self.armed: Sequence[Armed] = state.armed
        self.runs: Sequence[Run] = state.runs
        self.ends = state.ends
        self.said = state.said
        self.turns = state.turns
        self.is_late = state.is_late

    def state(self) -> State:
        """The state, in its one form."""
        self.posts.sort()
        return State(
            tuple(self.posts),
            tuple(sorted(self.done)),
            self.stones,
            tuple(sorted(self.armed)),
            tuple(sorted(self.runs)),
            self.ends,
            self.said,
            self.turns,
            self.is_late,
        )

    def bury(self, handler: int, about: int) -> None:
        """Keep a handler from running."""
        self.stones |= {(handler, about)}
