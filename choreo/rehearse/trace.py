"""Replays a trace of `choreo check`: whether the services do what their signatures allow.

A trace was found without running any handler. Here the real ones run, in the order that it says;
what they answer is theirs, so stories and stand-ins are tried until they answer as it says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from choreo.check import Happening, Rule
from choreo.errors import CannotRunError
from choreo.rehearse import judge
from choreo.rehearse.judge import Wrong
from choreo.rehearse.project import Project, Teller
from choreo.rehearse.retrace import LIMITS, Retracing
from choreo.rehearse.schedule import Decision, Schedule
from choreo.rehearse.stage import Stage
from choreo.tree import Flow as FlowTree

#: So many stories are tried.
STORIES = 500
#: So many ways that the services go instead are for a person to read.
_REASONS = 3
#: What is wrong only once nothing more happens.
_AT_REST = (Rule.NO_END, Rule.NO_DEADLINE)
_DEAD = "dead letter"
_DOES = ("start", "deliver", "deadline", "lost")


@dataclass(frozen=True, slots=True)
class Trace:
    """A finding of `choreo check` with the run that shows it."""

    rule: str
    flow: str
    what: str
    steps: tuple[Happening, ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of replaying a trace: of the story that followed it best."""

    trace: Trace
    #: How many stories were told.
    stories: int
    #: The story's name, and the seed that it and the stand-ins draw on.
    story: str
    seed: int
    #: Whether every step of the trace really happened, and what it is to show.
    happens: bool
    #: How many of its steps really happened.
    came: int
    #: What the services did instead of the next step, with how many stories they did so in.
    instead: Mapping[str, int]
    #: All that is wrong once everything has settled, and the flows; only where it was followed.
    wrong: tuple[Wrong, ...] = ()
    trees: tuple[FlowTree, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What a machine is told."""
        return {
            "rule": self.trace.rule,
            "flow": self.trace.flow,
            "what": self.trace.what,
            "stories": self.stories,
            "story": self.story,
            "seed": self.seed,
            "happens": self.happens,
            "steps": self.came,
            "instead": dict(self.instead),
            "wrong": [asdict(one) for one in self.wrong],
            "flows": [tree.as_json() for tree in self.trees],
        }


def read(said: Any) -> list[Trace]:
    """The traces of what `choreo check --json` printed, or of one finding of it.

    Raises KeyError, TypeError or ValueError where it is neither, and CannotRunError where no
    finding has a trace.
    """
    if not isinstance(said, dict):
        raise TypeError("no JSON object")
    findings = said.get("findings", [said])
    found = [
        Trace(one["rule"], one["flow"], one["what"], tuple(map(_step, one["trace"])))
        for one in findings
        if one["trace"]
    ]
    if not found:
        raise CannotRunError(
            "no finding in it has a trace: there is nothing to replay "
            + ("(the signatures alone show what is wrong)" if findings else "(nothing was found)")
        )
    return found


def _step(said: Mapping[str, Any]) -> Happening:
    one = Happening(**{**said, "outcome": tuple(said.get("outcome", ()))})
    if one.do not in _DOES:
        raise ValueError(f"no step of a trace is called {one.do!r}")
    return one


class Tracing(Stage):
    """Replays traces with the services of a project."""

    def replay(
        self,
        trace: Trace,
        seeds: Sequence[int],
        tell: Callable[[], None] = lambda: None,
    ) -> Replay:
        """Tell the stories of its flow, one for each seed, until one goes as the trace says.

        `tell` is told of each. Raises CannotRunError if no story starts the flow, or the trace
        names what the project has not.
        """
        tellers = self._tellers(trace)
        instead: Counter[str] = Counter()
        best: tuple[Retracing, Teller] | None = None
        for number, seed in enumerate(seeds, 1):
            teller = tellers[seed % len(tellers)]
            play = self._retrace(trace, teller, seed)
            tell()
            wrong = [] if play.astray else judge.judge(play, self.project)[0]
            why = play.astray or _not_shown(trace, play, wrong)
            if not why:
                trees = tuple(judge.trees(play, judge.journal(play)))
                told = (number, teller.name, seed)
                return Replay(trace, *told, True, play.came, {}, tuple(wrong), trees)
            if best is None or play.came > best[0].came:
                best = play, teller
                instead.clear()
            if play.came == best[0].came:
                instead[why] += 1
        if best is None:
            raise ValueError("no seed is given")
        play, teller = best
        told = (len(seeds), teller.name, play.schedule.seed)
        return Replay(trace, *told, False, play.came, instead)

    def _tellers(self, trace: Trace) -> Sequence[Teller]:
        only = self.project.only([trace.flow])
        [flow] = [one for one in only.flows if one.name == trace.flow]
        starts = flow.starts.__address__.wire_type
        known = _handlers(only)
        first, *others = trace.steps
        if first.do != "start" or first.type != starts:
            raise CannotRunError(
                f"the trace starts with {first.type}, and {flow.name} with {starts}: "
                "it is no trace of these services; run choreo check again"
            )
        for one in others:
            if one.to not in known:
                raise CannotRunError(
                    f"the trace names {one.to}, and there is no such handler: "
                    "it is no trace of these services; run choreo check again"
                )
        return only.stories

    def _retrace(self, trace: Trace, teller: Teller, seed: int) -> Retracing:
        for part in self._parts:
            part.database.empty()
        play = Retracing(
            trace.steps,
            self.project,
            parts=self._parts,
            settings=self._settings,
            clock=self._clock,
            schedule=Schedule(seed, [Decision("story", teller.name, 1, 1)]),
            topology=self._topology,
            undone=self._undone,
        )
        try:
            play.run()
        finally:
            for part in self._parts:
                part.memory.lose()
        return play


def _not_shown(trace: Trace, play: Retracing, wrong: Sequence[Wrong]) -> str:
    """Why all that the trace says happened, and yet not what it is to show."""
    if trace.rule not in _AT_REST or not play.ends or any(one.kind != _DEAD for one in wrong):
        return ""
    return f"the flow came to its end all the same: {', '.join(play.ends)}"


def _handlers(project: Project) -> set[str]:
    return {f"{one.name}.{name}" for one in project.services for name in one.handlers}


def shown(console: Console, found: Replay) -> None:
    """Say to a person what came of a replay."""
    trace, many = found.trace, len(found.trace.steps)
    what = f"{trace.rule}  {trace.flow}: {trace.what}"
    if not found.happens:
        console.print(Text.assemble(("not confirmed  ", "bold"), what), soft_wrap=True)
        for line in _another_way(found):
            console.print(f"  {line}", soft_wrap=True)
        return
    console.print(
        Text.assemble(("replayed: it really happens  ", "bold red"), what), soft_wrap=True
    )
    console.print(
        f"  the {many} steps of the trace were followed by story {found.story!r}, seed {found.seed}"
    )
    for one in found.wrong:
        console.print(Text(f"  {one}", style="red"), soft_wrap=True)
    if not found.wrong:
        console.print(
            "  no invariant, and no promise of the audit, calls wrong what it leads to: "
            "write an invariant that does",
            soft_wrap=True,
        )
    for tree in found.trees:
        console.print(tree.as_tree(), soft_wrap=True)


def _another_way(found: Replay) -> Iterator[str]:
    tried = f"{found.stories} stories" if found.stories > 1 else "the one story"
    came = sum(found.instead.values())
    is_beyond = all(why.endswith(LIMITS) for why in found.instead)
    head = "no replay can follow it" if is_beyond else "the code goes another way"
    step = f"at step {found.came + 1}" if found.came < len(found.trace.steps) else "in the end"
    if came == found.stories and len(found.instead) == 1:
        [why] = found.instead
        yield f"{head}: {step} {why} (in all of {tried} tried)"
        return
    yield f"{head} {step}: {came} of {tried} tried came so far, none further"
    reasons = sorted(found.instead.items(), key=lambda one: -one[1])
    for why, often in reasons[:_REASONS]:
        yield f"  {why} ({often} times)"
