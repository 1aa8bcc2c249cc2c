"""The stage of a project: services and databases, set up once for any number of schedules."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from choreo import plan, topology
from choreo.flow import Flow
from choreo.rehearse import judge
from choreo.rehearse.cast import Cast
from choreo.rehearse.database import MemoryDatabase
from choreo.rehearse.instance import Part, VirtualClock
from choreo.rehearse.judge import Wrong
from choreo.rehearse.memory import ProcessMemory
from choreo.rehearse.play import Play
from choreo.rehearse.project import Project
from choreo.rehearse.schedule import Decision, Schedule
from choreo.settings import Settings
from choreo.tree import Flow as FlowTree

#: Soon given up, so that dead letters are rehearsed as well; and slow enough that time which passes
#: costs little.
_SETTINGS: dict[str, Any] = {
    "attempts": 4,
    "crashes": 3,
    "poll_s": 90.0,
    "lease_s": 60.0,
    "retry_first_s": 0.5,
    "retry_longest_s": 8.0,
    "prune_every_s": 1e9,
    "publish_timeout_s": 15.0,
    "call_timeout_s": 30.0,
}
#: Bounds that are soon reached, for some schedules.
_TIGHT = {"batch": 2, "prefetch": 3, "calls": 2, "backlog": 3}
_TIGHT_CHANCE = 0.2
#: What schedules leave behind is cleared away after so many.
_COLLECTED = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one schedule came to."""

    seed: int
    #: Everything that went otherwise than plainly.
    decisions: tuple[Decision, ...]
    wrong: tuple[Wrong, ...]
    #: The flows that were started, with the words for how they ended.
    ends: Counter[tuple[str, str]]
    #: How often each kind of fault happened.
    faults: Counter[str]
    #: What was reached: failpoints, and handlers as `service.handler`.
    points: frozenset[str]
    handlers: frozenset[str]
    #: Whether some outcome was taken back, or is still to be.
    has_undo: bool
    states: frozenset[int]
    end_state: int
    #: The same if all that happened is the same.
    digest: str
    #: Faults as they happened, with the virtual second; and the flows as trees.
    events: tuple[tuple[float, str], ...]
    trees: tuple[FlowTree, ...]
    #: How much virtual time passed.
    lasted_s: float


class Stage:
    """Plays schedules with the services of a project."""

    def __init__(self, project: Project, settings: Settings) -> None:
        """Raises DefinitionError if a service is declared wrongly."""
        self.project = project
        # Those of the environment would make a seed another schedule elsewhere.
        usual = {name: one.default for name, one in Settings.model_fields.items()}
        self._settings = settings.model_copy(update={**usual, **_SETTINGS})
        self._tight = self._settings.model_copy(update=_TIGHT)
        self._clock = VirtualClock()
        casts = {flow.name: Cast(project.services, [flow]) for flow in project.flows}
        matters = {name: cast.who_matters() for name, cast in casts.items()}
        self._parts = [
            Part(
                plan.make(one),
                MemoryDatabase(one, self._clock),
                ProcessMemory(one),
                frozenset(name for name, cast in casts.items() if cast.hears(one)),
                frozenset(name for name, names in matters.items() if one.name in names),
            )
            for one in project.services
        ]
        self._undone = {name for name, cast in casts.items() if cast.can_undo}
        self._topology = topology.of(project.services)
        self._played = 0

    def reach(self, flows: Iterable[Flow]) -> set[str]:
        """The handlers that these flows may come to, as `service.handler`."""
        return Cast(self.project.services, flows).handlers

    def play(self, seed: int, decisions: Iterable[Decision] | None = None) -> Outcome:
        """Play the schedule of a seed; or, where they are given, exactly these decisions."""
        self._played += 1
        collects = gc.isenabled()
        gc.disable()  # it would come in the midst of it, again and again
        try:
            return self._play(Schedule(seed, decisions))
        finally:
            if collects:
                gc.enable()
            for part in self._parts:
                part.memory.lose()
            if self._played % _COLLECTED == 0:
                gc.collect(0)

    def _play(self, schedule: Schedule) -> Outcome:
        is_tight = schedule.decide("tight", "bounds", _TIGHT_CHANCE)
        play = Play(
            self.project,
            parts=self._parts,
            settings=self._tight if is_tight else self._settings,
            clock=self._clock,
            schedule=schedule,
            topology=self._topology,
            undone=self._undone,
        )
        play.run()
        wrong, evidence = judge.judge(play, self.project)
        trees = judge.trees(play, evidence.messages.values())
        return Outcome(
            seed=schedule.seed,
            decisions=tuple(schedule.taken),
            wrong=tuple(wrong),
            ends=Counter(
                (one.flow.name, end)
                for one in play.customers.started.values()
                if one.flow is not None
                for end in one.ends.values()
            ),
            faults=play.counts,
            points=frozenset(play.points),
            handlers=frozenset(judge.handlers(evidence, play.sources)),
            has_undo=any(row.undo for kept in evidence.kept.values() for row in kept.inbox),
            states=frozenset(play.states.trail),
            end_state=play.states.trail[-1],
            digest=_digest(play, trees),
            events=tuple(play.events),
            trees=tuple(trees),
            lasted_s=play.loop.time(),
        )


def _digest(play: Play, trees: Sequence[FlowTree]) -> str:
    found = blake2b(digest_size=16)
    for tree in trees:
        for entry in tree.entries.values():
            found.update(repr((entry.envelope, entry.body)).encode())
    found.update(repr((play.events, play.findings, play.states.trail)).encode())
    for part in play.parts:
        for table in part.database.own_tables:
            found.update(repr(part.database.driver.execute(table).fetchall()).encode())
    return found.hexdigest()
