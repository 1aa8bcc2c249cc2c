"""Many schedules, one after the other: what they came through, and the first that went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from choreo import failpoint
from choreo.rehearse.judge import Wrong
from choreo.rehearse.schedule import Decision
from choreo.rehearse.shrink import Shrinking
from choreo.rehearse.stage import Outcome, Stage

#: The first of so many schedules is played twice, to see whether it is the same again.
TWICE = 50
_ANOTHER = (
    "the same schedule went otherwise when it was played again: some handler, story or stand-in "
    "draws on a clock, on randomness or on memory of its own: let it take them from Context.time, "
    "from Context.key, from its service's tables, or from the Random that a story is given"
)


@dataclass(slots=True)
class Summary:
    """What was explored."""

    schedules: int = 0
    states: set[int] = field(default_factory=set)
    end_states: set[int] = field(default_factory=set)
    #: Flow and end, with how often it was reached.
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    #: Schedules with a crash, a duplicate and an undo under way.
    rough: int = 0
    points: set[str] = field(default_factory=set)
    handlers: set[str] = field(default_factory=set)

    def take(self, outcome: Outcome) -> None:
        """Add what one schedule came through."""
        self.schedules += 1
        self.states |= outcome.states
        self.end_states.add(outcome.end_state)
        self.ends += outcome.ends
        self.faults += outcome.faults
        self.points |= outcome.points
        self.handlers |= outcome.handlers
        self.rough += bool(
            outcome.faults["crash"] and outcome.faults["duplicate"] and outcome.has_undo
        )

    def never(self, stage: Stage) -> dict[str, list[str]]:
        """What was never reached: ends of the flows that were played, handlers, failpoints."""
        told = {name for story in stage.project.stories for name in story.flows}
        reach = stage.reach(flow for flow in stage.project.flows if flow.name in told)
        ends = [
            f"{flow.name}: {end}"
            for flow in stage.project.flows
            if flow.name in told
            for end in flow.ends
            if not self.ends[flow.name, end]
        ]
        points = failpoint.POINTS.keys() - self.points
        if not any(one.conductors for one in stage.project.services):
            points -= failpoint.CONDUCTED
        return {
            "ends": ends,
            "handlers": sorted(reach - self.handlers),
            "failpoints": sorted(points),
        }

    def as_json(self, stage: Stage) -> dict[str, Any]:
        """What a machine is told."""
        return {
            "schedules": self.schedules,
            "states": len(self.states),
            "end_states": len(self.end_states),
            "with_crash_duplicate_and_undo": self.rough,
            "faults": dict(sorted(self.faults.items())),
            "ends": {f"{flow}: {end}": many for (flow, end), many in sorted(self.ends.items())},
            "never": self.never(stage),
            "no_story_starts": list(stage.project.untold),
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """A schedule that went wrong, and the least of it that still does."""

    outcome: Outcome
    smallest: Outcome

    @property
    def besides(self) -> list[str]:
        """Kinds of what else went wrong in the whole schedule, and no more in the least of it."""
        return sorted(
            {one.kind for one in self.outcome.wrong} - {one.kind for one in self.smallest.wrong}
        )

    def as_json(self) -> dict[str, Any]:
        """What a machine is told."""
        return {
            "seed": self.outcome.seed,
            "wrong": [{"kind": one.kind, "what": one.what, "flow": one.flow}
                      for one in self.smallest.wrong],
            "besides": self.besides,
            "decisions": [[one.kind, one.about, one.nth, one.value]
                          for one in self.smallest.decisions],
            "faults": [{"at_s": at, "what": what} for at, what in self.smallest.events],
            "flows": [tree.as_json() for tree in self.smallest.trees],
        }  # fmt: skip


class Campaign:
    """Plays seeds until one goes wrong."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.summary = Summary()
        self.failure: Failure | None = None

    def run(
        self, seeds: Iterable[int], enough: Callable[[], bool] = lambda: False
    ) -> Iterator[Outcome]:
        """Play these seeds; gives each as it is done, and ends after the first that goes wrong.

        That one is made smaller, until it is `enough`.
        """
        for nth, seed in enumerate(seeds):
            outcome = self.stage.play(seed)
            if not outcome.wrong and nth % TWICE == 0:
                outcome = self._again(outcome)
            self.summary.take(outcome)
            if outcome.wrong:
                self.failure = Failure(outcome, outcome)
            yield outcome
            if outcome.wrong:
                shrinking = Shrinking(self.stage, outcome, enough)
                try:
                    shrinking.run()
                finally:
                    self.failure = Failure(outcome, shrinking.best)
                return

    def _again(self, outcome: Outcome) -> Outcome:
        """The same once more: who is not the same again draws on something of its own."""
        again = self.stage.play(outcome.seed)
        if again.digest == outcome.digest:
            return outcome
        what = f"{_ANOTHER} ({_difference(outcome, again)})"
        return replace(outcome, wrong=(Wrong("replay", what),))


def _difference(one: Outcome, other: Outcome) -> str:
    """What was otherwise first."""
    first, second = (
        [entry for tree in outcome.trees for entry in tree.walk()] for outcome in (one, other)
    )
    for entry, again in zip(first, second, strict=False):
        if entry != again:
            return f"{entry.name} of {entry.publisher} says {entry.body}, and then {again.body}"
    return "the events are the same, but not all that is kept"


def given(decisions: Iterable[Any]) -> list[Decision]:
    """Decisions as `Failure.as_json` gives them; raises ValueError if they are none."""
    return [Decision(str(kind), str(about), int(nth), int(value))
            for kind, about, nth, value in decisions]  # fmt: skip
