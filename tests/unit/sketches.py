"""Conductors made up at random: tables of steps of every form, as hypothesis draws them."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, cast

from hypothesis import strategies as st
from watching import Asked, Script

from choreo import (
    Ask,
    Command,
    Conductor,
    Event,
    Failure,
    Service,
    Tell,
)
from choreo.contract import Message


class Go(Command, topic="conducting.go", subject="job"):
    job: str


class Ended(Event, topic="conducting.ended", subject="job"):
    job: str
    heard: tuple[int, ...]


class Failed(Event, topic="conducting.failed", subject="job"):
    job: str
    why: str


class Do(Command):
    item: str
    #: The good answers that were known when it was sent.
    heard: tuple[int, ...] = ()


class Undo(Command):
    item: str
    heard: tuple[int, ...]
    why: str


class Said(Event):
    item: str
    #: Every answer has another.
    stamp: int = 0


STEPS = 6


def _pool(base: type[Message], name: str) -> list[Any]:
    return [
        types.new_class(
            f"{name}{n}", (base,), {"topic": f"conducting.{name}{n}", "subject": "item"}
        )
        for n in range(STEPS)
    ]


DOES, TOLDS = _pool(Do, "do"), _pool(Said, "told")
GOODS, BADS = _pool(Said, "good"), _pool(Said, "bad")
UNDOES, UNDONES = _pool(Undo, "undo"), _pool(Said, "undone")


@dataclass(frozen=True)
class Sketch:
    """One step of a conductor that is made up."""

    tells: bool
    form: Literal["one", "maybe", "several"]
    #: How many messages it sends: of "maybe" 0 or 1.
    count: int
    bad: bool
    #: A silent one might send something, and might be answered; it returns nothing.
    undo: Literal["none", "sent", "awaited", "silent"]


@st.composite
def sketches(draw: st.DrawFn) -> Sketch:
    form = draw(st.sampled_from(("one", "one", "maybe", "several")))
    most = {"one": (1, 1), "maybe": (0, 1), "several": (0, 3)}[form]
    return Sketch(
        tells=draw(st.sampled_from((False, False, False, True))),
        form=cast("Any", form),
        count=draw(st.integers(*most)),
        bad=draw(st.booleans()),
        undo=draw(st.sampled_from(("none", "sent", "awaited", "awaited", "silent"))),
    )


@st.composite
def tables(draw: st.DrawFn) -> list[list[Sketch]]:
    every: list[Sketch] = draw(st.lists(sketches(), min_size=1, max_size=STEPS))
    found: list[list[Sketch]] = [[]]
    for one in every:
        begins: bool = draw(st.booleans())
        if found[-1] and begins:
            found.append([])
        found[-1].append(one)
    return found


def function(
    name: str, fn: Callable[..., Any], returned: Any, **parameters: Any
) -> Callable[..., Any]:
    """A function of this name with these annotations, as if somebody had written it."""
    fn.__name__ = name
    fn.__annotations__ = {**parameters, "return": returned}
    vars(fn)["__signature__"] = inspect.Signature(
        [inspect.Parameter(one, inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    )
    return fn


def heard(answers: dict[str, Any]) -> tuple[int, ...]:
    """The stamps of what a function got, in the order of its parameters."""
    found: list[int] = []
    for one in answers.values():
        several = one if isinstance(one, tuple) else () if one is None else (one,)
        found += [said.stamp for said in several]
    return tuple(found)


def subjects(job: str, sketch: Sketch) -> list[str]:
    """What the messages of a step are about: a single one is about the job itself."""
    return [job] if sketch.form == "one" else [f"{job}.{n}" for n in range(sketch.count)]


def wished(sketch: Sketch, kind: Any) -> Any:
    """How its messages are announced, and its answers wanted."""
    return {"one": kind, "maybe": kind | None, "several": tuple[kind, ...]}[sketch.form]


def step(number: int, sketch: Sketch, known: dict[str, Any]) -> Ask | Tell:
    def make(go: Go, **answers: Any) -> Any:
        kind = TOLDS[number] if sketch.tells else DOES[number]
        said = tuple(
            kind(item=item) if sketch.tells else kind(item=item, heard=heard(answers))
            for item in subjects(go.job, sketch)
        )
        return said if sketch.form == "several" else said[0] if said else None

    def undo(done: Do, failure: Failure, go: Go) -> Any:
        assert done.item.startswith(go.job)
        if sketch.undo == "silent":
            return None
        return UNDOES[number](item=done.item, heard=done.heard, why=failure.reason)

    kind = TOLDS[number] if sketch.tells else DOES[number]
    made = function(f"step{number}", make, wished(sketch, kind), go=Go, **known)
    if sketch.tells:
        return Tell(made)
    sends = UNDOES[number] | None if sketch.undo == "silent" else UNDOES[number]
    taken = function(f"back{number}", undo, sends, done=DOES[number], failure=Failure, go=Go)
    return Ask(
        made,
        good=GOODS[number],
        bad=BADS[number] if sketch.bad else None,
        undo=None if sketch.undo == "none" else taken,
        undone=UNDONES[number] if sketch.undo in ("awaited", "silent") else None,
        within=timedelta(seconds=1),
    )


def made_up(table: list[list[Sketch]]) -> Conductor:
    """A conductor of which each function wants all that it may."""
    number, known, steps = 0, dict[str, Any](), list[list[Ask | Tell]]()
    for stage in table:
        beside: dict[str, Any] = {}
        steps.append([])
        for sketch in stage:
            steps[-1].append(step(number, sketch, known))
            if not sketch.tells:
                beside[f"answer{number}"] = wished(sketch, GOODS[number])
            number += 1
        known = {**known, **beside}

    def end(go: Go, **answers: Any) -> Ended:
        return Ended(job=go.job, heard=heard(answers))

    def fail(go: Go, failure: Failure) -> Failed:
        return Failed(job=go.job, why=failure.reason)

    return Conductor(
        Service("player"),
        "play",
        starts=Go,
        steps=[one[0] if len(one) == 1 else one for one in steps],
        ends=function("end", end, Ended, go=Go, **known),
        fails=fail,
    )


def scripts(table: list[list[Sketch]], jobs: Iterable[str]) -> list[Script]:
    conductor, stamps = made_up(table), iter(range(1, 10_000))
    kinds = {"good": GOODS, "bad": BADS, "undone": UNDONES}

    def answer(what: str, one: Asked) -> Message:
        number = int(one[0].removeprefix("step"))
        found: Message = kinds[what][number](item=one[1], stamp=next(stamps))
        return found

    found: list[Script] = []
    for job in jobs:
        number, stages, silent = 0, list[list[Asked]](), set[str]()
        for stage in table:
            stages.append([])
            for sketch in stage:
                stages[-1] += [(f"step{number}", item) for item in subjects(job, sketch)]
                silent |= {f"step{number}"} if sketch.undo == "silent" else set()
                number += 1
        script = Script(conductor, Go(job=job), stages, answer, Ended, Failed, frozenset(silent))
        found.append(script)
    return found
