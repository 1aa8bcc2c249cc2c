"""What brute force knows of conductors and of cycles; it shares no code with `choreo.check`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement, product
from typing import Any

from choreo import Conductor, Service
from choreo.service import Deadline, Handler, Step
from choreo.signature import Returns

Said = list[tuple[Any, int]]
#: The function of its step, its subject, how it stands, and in which order it was answered.
Task = tuple[str, int, str, int]


@dataclass(frozen=True)
class Run:
    """A run of a conductor: it is "running", "undoing", "done" or "failed"."""

    conductor: str
    about: int
    state: str = "running"
    stage: int = 0
    tasks: tuple[Task, ...] = ()

    def marked(self, task: Task, status: str) -> Run:
        order = 1 + max(one[3] for one in self.tasks) if status == "done" else 0
        new = (*task[:2], status, order)
        return replace(self, tasks=tuple(new if one == task else one for one in self.tasks))

    def has(self, *wanted: str) -> bool:
        return any(one[2] in wanted for one in self.tasks)


Way = tuple[Run, Said]


class Conducts:
    """One conductor, as its table says."""

    def __init__(self, of: Conductor) -> None:
        self.of, self.name = of, f"{of.service.name}.{of.name}"
        self.parts = {part.name: part for stage in of.stages for part in stage}

    def begin(self, about: int) -> Iterator[Way]:
        yield from self._forth(Run(self.name, about))

    def take(self, run: Run, kind: Any, about: int) -> tuple[str, list[Way]] | None:
        """Who takes an answer, and how the run goes on; None if nobody awaits it."""
        for task in run.tasks:
            part = self.parts[task[0]]
            fits = [("undoing", part.undone, "undone"), ("asked", part.good, "done")]
            for status, kinds, then in [*fits, ("asked", part.bad, "refused")]:
                if (task[1], task[2]) == (about, status) and kind in kinds:
                    return self.taker(task, then), list(self.settle(run, task, then))
        return None

    def taker(self, task: Task, then: str) -> str:
        part = self.parts[task[0]]
        of = part.undo.name if then == "undone" and part.undo else part.name
        word = {"refused": "failed", "late": "late"}.get(then, "done")
        return f"{self.of.service.name}.{of}_{word}"

    def settle(self, run: Run, task: Task, then: str) -> Iterator[Way]:
        run = run.marked(task, then)
        if then in ("refused", "late"):
            run = replace(run, state="undoing")
        if run.has("asked", "undoing"):
            yield run, []
        elif run.state == "undoing":
            yield from self._back(run)
        else:
            yield from self._forth(replace(run, stage=run.stage + 1))

    def _forth(self, run: Run) -> Iterator[Way]:
        if run.stage == len(self.of.stages):
            for said in self._says(self.of.ends, run):
                yield replace(run, state="done", tasks=()), said
            return
        stage = self.of.stages[run.stage]
        for sent in product(*(self._says(part.make, run) for part in stage)):
            asked = [
                (part.name, about, "asked", 0)
                for part, said in zip(stage, sent, strict=True)
                for _, about in (dict.fromkeys(said) if part.waits else ())
            ]
            new = replace(run, tasks=(*run.tasks, *asked))
            said = [
                one
                for part, more in zip(stage, sent, strict=True)
                for one in (dict.fromkeys(more) if part.waits else more)
            ]
            ways = [(new, Said())] if asked else self._forth(replace(new, stage=run.stage + 1))
            yield from ((later, said + more) for later, more in ways)

    def _back(self, run: Run) -> Iterator[Way]:
        late = [one for one in run.tasks if one[2] == "late"]
        done = [one for one in run.tasks if one[2] == "done"]
        for task in [*late, *sorted(done, key=lambda one: -one[3])]:
            part = self.parts[task[0]]
            for said in self._says(part.undo, run, task) if part.undo else [Said()]:
                if said and part.undone and task[2] == "done":
                    yield run.marked(task, "undoing"), said
                else:
                    back = self._back(run.marked(task, "undone"))
                    yield from ((later, said + more) for later, more in back)
            return
        for said in self._says(self.of.fails, run) if self.of.fails else [Said()]:
            yield replace(run, state="failed", tasks=()), said

    def _says(self, builder: Any, run: Run, task: Task | None = None) -> list[Said]:
        found = may_say(builder.returns, self.of.starts, run.about)
        if task is not None:
            [command] = self.parts[task[0]].make.publishes
            found = [
                [(kind, task[1] if subject(kind) == subject(command) else of) for kind, of in one]
                for one in found
            ]
        some = [one for one in found if one]
        return found if builder.returns.none or not builder.returns.several else some or [[]]


def hearers(services: Iterable[Service], said: Iterable[Any]) -> Iterator[str]:
    """The handlers that act on messages; as if each had one owner, whose deadlines it arms."""
    for service in services:
        for one in service.handlers.values():
            if set(said).intersection(one.signature.consumes):
                yield _name(one)


def leads(services: Iterable[Service], without: Collection[str] = ()) -> dict[str, set[str]]:
    """The handlers that each may set off, at once or later, if some do not run."""
    every = {_name(one): one for service in services for one in service.handlers.values()}
    found: dict[str, set[str]] = {
        name: set() if name in without else set(hearers(services, one.signature.publishes))
        for name, one in every.items()
    }
    for _ in every:
        found = {name: to.union(*(found[one] for one in to)) for name, to in found.items()}
    return found


def cyclic(services: Iterable[Service], stopped: Collection[str] = ()) -> set[str]:
    """The steps and deadlines that may set themselves off again if some handlers do not run.

    Undos and what begins a conductor run no more than once about each subject.
    """
    every = {_name(one): one for service in services for one in service.handlers.values()}
    once = {
        name
        for name, one in every.items()
        if one.kind == "undo" or (one.conductor and one.name.startswith("begin_"))
    }
    found = leads(services, once.union(stopped))
    return {one for one, to in found.items() if one in to and every[one].conductor is None}


def stopped(services: Iterable[Service], ends: Collection[Any]) -> set[str]:
    """The handlers that these ends keep from running."""
    every = (one for service in services for one in service.handlers.values())
    return {_name(one) for one in every if set(ends).intersection(_stops(one))}


def _stops(one: Handler[..., Any]) -> tuple[Any, ...]:
    if isinstance(one, Deadline):
        return one.until
    if not isinstance(one, Step):
        return ()
    return (*one.unless, *(one.taken_back_by.signature.consumes if one.taken_back_by else ()))


def _name(one: Handler[..., Any]) -> str:
    return f"{one.service.name}.{one.name}"


def subject(kind: Any) -> str | None:
    found: str | None = kind.__address__.subject
    return found


def may_say(returns: Returns, kind: Any, about: int) -> list[Said]:
    """What an annotation announces, in answer to a kind of message about something."""
    tuples: list[tuple[tuple[Any, ...], bool]] = [((one,), False) for one in returns.single]
    for several in returns.several:
        if several.repeats:
            pairs = combinations_with_replacement(several.places[0], 2)
            tuples += [((), False), *((pair, True) for pair in pairs)]
        else:
            tuples += [(one, False) for one in product(*several.places)]
    tuples += [((), False)] if returns.none else []
    found: list[Said] = []
    for one, is_any in dict.fromkeys(tuples):
        said = Said()
        for place, out in enumerate(one):
            before = place if is_any else one[:place].count(out)
            if subject(out) is None:
                said.append((out, -1))
            elif subject(out) == subject(kind):
                said.append((out, about))
            else:
                said.append((out, 1 + before if is_any or one.count(out) > 1 else 0))
        found.append(said)
    return [one for place, one in enumerate(found) if one not in found[:place]]
