"""Plays a run of a conductor by plain function calls, and watches what must hold whatever comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import strategies as st
from sqlalchemy import create_engine

from choreo import (
    Conductor,
    Connection,
    Context,
    Reject,
)
from choreo.contract import Message, subject_of
from choreo.service import Handler
from choreo.store.tables import metadata
from services.reservations import trips

FLOW = "flow"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ENGINE = create_engine("sqlite://")
metadata.create_all(ENGINE)
trips.tables.create_all(ENGINE)


@contextmanager
def database() -> Iterator[Connection]:
    """A database in which nothing stays."""
    with ENGINE.connect() as db:
        yield db
        db.rollback()


def call(
    handler: Handler[..., Any], message: Message, db: Connection, *, flow: str = FLOW
) -> tuple[Message, ...]:
    """What a handler says to a message; all of it is declared."""
    context = Context(
        flow=flow,
        message_id=f"{flow}: {message!r}",
        type=message.__address__.wire_type,
        source="/test/test",
        time=NOON,
        subject=subject_of(message),
        causation=None,
        key="key",
    )
    wants = {
        name: db if kind is Connection else context
        for name, kind in handler.signature.wants.items()
    }
    said = handler.signature.results(handler(message, **wants))
    assert {type(one) for one in said} <= set(handler.signature.publishes)
    return said


# The world around a conductor, and what must always be true of a run.

Asked = tuple[str, str]  # the step, and what its command is about


@dataclass
class Script:
    """What a test knows of a conductor: apart from it, and in few words."""

    conductor: Conductor
    start: Message
    #: What each stage sends, in order: the step and the subject.
    stages: list[list[Asked]]
    #: A good or bad answer to a command of the step, or "undone".
    answer: Callable[[str, Asked], Message]
    ends: type[Message]
    fails: type[Message]
    #: Steps with an undo that finds nothing to send.
    silent: frozenset[str] = frozenset()


@dataclass
class Watch:
    """Watches one run from outside, and says at once what should not be."""

    script: Script
    db: Connection
    sent: list[Asked] = field(default_factory=list)
    commands: dict[Asked, Message] = field(default_factory=dict)
    #: asked, told, good, bad, late; then undoing, undone.
    status: dict[Asked, str] = field(default_factory=dict)
    #: In the order of their answers.
    good: list[Asked] = field(default_factory=list)
    late: list[Asked] = field(default_factory=list)
    answers: dict[Asked, Message] = field(default_factory=dict)
    undos: list[Asked] = field(default_factory=list)
    #: The first that failed, and what it was answered.
    failed: tuple[Asked, Message | None] | None = None
    end: Message | None = None

    def __post_init__(self) -> None:
        conductor = self.script.conductor
        self.parts = {part.name: part for stage in conductor.stages for part in stage}
        self.service = conductor.service

    @property
    def all_asked(self) -> list[Asked]:
        return [
            one for stage in self.script.stages for one in stage if self.parts[one[0]].waits
        ]  # what there may be an answer to, sent or not

    def begin(self) -> None:
        handler = self.service.handlers[f"begin_{self.script.conductor.name}"]
        self._goes_on(call(handler, self.script.start, self.db))

    def awaited(self) -> list[tuple[str, Asked]]:
        """What the run waits for; one of each kind of thing that may come."""
        found: list[tuple[str, Asked]] = []
        for one, status in self.status.items():
            if status == "asked":
                found += [("good", one), ("late", one)]
                found += [("bad", one)] if self.parts[one[0]].bad else []
            elif status == "undoing":
                found.append(("undone", one))
        return found

    def happens(self, what: str, one: Asked) -> None:
        """An answer comes, or time is up: for what is awaited, or for whatever else."""
        awaited = (what, one) in self.awaited()
        if what == "late":
            deadline = self.service.handlers[f"{one[0]}_late"]
            said = call(deadline, self.commands[one], self.db)
            message = None
        else:
            message = self.script.answer(what, one)
            said = self._deliver(message)
        if not awaited:
            assert said == ()
            return
        self._settle(what, one, message)
        if "asked" in self.status.values():
            assert said == ()
        elif self.failed is None:
            self._goes_on(said)
        else:
            self._takes_back(said)

    def _deliver(self, message: Message) -> tuple[Message, ...]:
        """As the runtime does it: to each handler that takes it, one after the other."""
        routes = self.service.routes()[type(message)]
        handlers = [one.handler for one in routes if one.role == "step" and one.handler.conductor]
        assert handlers
        return tuple(said for one in handlers for said in call(one, message, self.db))

    def _settle(self, what: str, one: Asked, message: Message | None) -> None:
        self.status[one] = what
        if what in ("bad", "late") and self.failed is None:
            self.failed = (one, message)
        if what == "good":
            self.good.append(one)
            assert message is not None
            self.answers[one] = message
        if what == "late":
            self.late.append(one)

    def _goes_on(self, said: Sequence[Message]) -> None:
        """All of the stages so far is done: the next ones come, up to one that waits."""
        expected: list[Asked] = []
        behind = len(self.sent)
        ends = True
        for stage in self.script.stages:
            if behind > 0 or (not stage and not expected):
                behind -= len(stage)
                continue
            expected += stage
            if any(self.parts[step].waits for step, _ in stage):
                ends = False
                break
        for one, message in zip(expected, said, strict=False):
            step, subject = one
            part = self.parts[step]
            assert type(message) in part.make.publishes
            assert subject_of(message) == subject
            assert one not in self.commands
            self.commands[one] = message
            self.status[one] = "asked" if part.waits else "told"
            self.sent.append(one)
        assert len(said) == len(expected) + ends
        if ends:
            self._ended(said[-1], self.script.ends)

    def _takes_back(self, said: Sequence[Message]) -> None:
        """What is not known to be done first, then what is; newest first, and one at a time."""
        for number, message in enumerate(said):
            left = [one for one in self._to_undo() if one not in self.undos]
            if not left:
                self._ended(message, self.script.fails)
                assert number == len(said) - 1
                return
            one = left[0]
            part = self.parts[one[0]]
            assert part.undo is not None
            assert type(message) in part.undo.publishes
            assert subject_of(message) == one[1]
            self.undos.append(one)
            waits = part.undone and self.status[one] == "good"
            self.status[one] = "undoing" if waits else "undone"
            if waits:
                assert number == len(said) - 1
                return
        assert said, "nothing is awaited, and nothing goes on"
        assert self.status[self.undos[-1]] == "undoing", "it waits for nothing"

    def _to_undo(self) -> list[Asked]:
        every = [*reversed(self.late), *reversed(self.good)]
        return [
            one
            for one in every
            if self.parts[one[0]].undo is not None and one[0] not in self.script.silent
        ]

    def _ended(self, message: Message, kind: type[Message]) -> None:
        assert self.end is None
        assert type(message) is kind
        assert subject_of(message) in (subject_of(self.script.start), None)
        self.end = message

    def ended(self) -> None:
        """Look at the whole run once nothing is awaited any more."""
        assert self.awaited() == []
        assert self.end is not None
        every = {one for stage in self.script.stages for one in stage}
        if self.failed is None:
            assert type(self.end) is self.script.ends
            assert set(self.sent) == every
            assert self.undos == []
        else:
            assert type(self.end) is self.script.fails
            assert self.undos == self._to_undo()
            assert set(self.sent) <= every


def play(data: st.DataObject, watches: Sequence[Watch]) -> None:
    """Let anything happen to several runs at once, until each has ended; and a little longer."""
    for watch in watches:
        watch.begin()
    for _ in range(data.draw(st.integers(0, 12), label="noise")):
        watch = data.draw(st.sampled_from(watches))
        anything(data, watch)
    while waiting := [(watch, *one) for watch in watches for one in watch.awaited()]:
        watch, what, one = data.draw(st.sampled_from(waiting))
        watch.happens(what, one)
        if data.draw(st.booleans(), label="noise"):
            anything(data, data.draw(st.sampled_from(watches)))
    for watch in watches:
        anything(data, watch)
        watch.ended()
        handler = watch.service.handlers[f"begin_{watch.script.conductor.name}"]
        with pytest.raises(Reject, match=r"conducts \w+ for \S+ already \(flow flow\)"):
            call(handler, watch.script.start, watch.db)


def anything(data: st.DataObject, watch: Watch) -> None:
    """An answer that may be awaited, doubled, contrary, of a stranger or of another flow."""
    known = watch.all_asked
    if not known:
        return
    one = data.draw(st.sampled_from(known))
    part = watch.parts[one[0]]
    kinds = ["good"]
    kinds += ["bad"] if part.bad else []
    kinds += ["undone"] if part.undone else []
    kinds += ["late"] if one in watch.commands else []
    what = data.draw(st.sampled_from(kinds))
    if what != "late":
        stranger = (one[0], f"{one[1]}.stranger")
        assert watch._deliver(watch.script.answer(what, stranger)) == ()
        for route in watch.service.routes()[type(answer := watch.script.answer(what, one))]:
            if route.handler.conductor:
                assert call(route.handler, answer, watch.db, flow="another") == ()
    watch.happens(what, one)
