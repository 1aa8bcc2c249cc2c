"""A rehearsal ends where the services never do."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from types import ModuleType

import pytest

from choreo import Command, Connection, Event, Flow, Service
from choreo.rehearse import Story, World, invariant, play, start
from choreo.rehearse.project import project
from choreo.rehearse.stage import Stage
from choreo.settings import load


class Serve(Command, topic="tennis.serve", subject="match"):
    match: str


class Hit(Event, topic="tennis.hit", subject="match"):
    match: str


class Returned(Event, topic="tennis.returned", subject="match"):
    match: str


class Won(Event, topic="tennis.won", subject="match"):
    match: str


match = Flow("match", starts=Serve, ends={"won": Won})
ann, bob = Service("ann"), Service("bob")


@ann.on(final="what is played is played")
def hit(ball: Serve | Returned) -> Hit:
    return Hit(match=ball.match)


@bob.on(final="what is played is played")
def answer(ball: Hit) -> Returned | Won:
    return Returned(match=ball.match)


@start("match")
def meet(random: Random) -> Story:
    yield Serve(match="final")


@invariant
def hits(world: World) -> Iterator[str]:
    """Never so many."""
    if len(list(world.of(Hit))) > 100:
        yield "more than a hundred hits"


def test_messages_that_make_each_other_for_ever_are_a_finding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Time hardly goes on, and all that is under way is handled: nothing else would end it."""
    monkeypatch.setattr(play, "MOST_STEPS", play.CALM_STEPS + 500)
    module = ModuleType(__name__)
    vars(module).update(meet=meet, hits=hits)
    outcome = Stage(project([ann, bob], [match], module), load()).play(1)
    error, *others = [str(one) for one in outcome.wrong]
    assert error.startswith("error: messages make each other for ever: ")
    assert "ann has an unconfirmed tennis.hit.v1" in error
    assert "end: the flow 'match' should have one end, and has none" in others
    assert "hits: more than a hundred hits" in others


def test_a_service_that_can_never_be_started_is_a_finding() -> None:
    umpire = Service("umpire")

    @umpire.on(final="what is played is played")
    def watch(ball: Serve) -> Won:
        return Won(match=ball.match)

    @umpire.setup
    def sit(db: Connection) -> None:
        raise RuntimeError("there is no chair")

    module = ModuleType(__name__)
    vars(module).update(meet=meet)
    outcome = Stage(project([umpire], [match], module), load()).play(1)
    said = [str(one) for one in outcome.wrong]
    assert "error: umpire died: RuntimeError: there is no chair" in said
    assert any(one.startswith("error: umpire cannot be started, again and again") for one in said)
