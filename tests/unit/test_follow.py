"""Whose answer is still owed, read from the signatures; and waiting for what the journal tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from entries import FLOW, entry

from choreo import Command, Event, Service
from choreo.errors import CannotRunError
from choreo.follow import Follower, owed
from choreo.seams import Delivery
from choreo.tree import Entry, Flow


class Ask(Command, topic="follow.ask"):
    pass


class Asked(Event, topic="follow.asked", subject="id"):
    id: str


class Held(Event, topic="follow.held", subject="id"):
    id: str


class Freed(Event, topic="follow.freed", subject="id"):
    id: str


class Dropped(Event, topic="follow.dropped", subject="id"):
    id: str


desk, store, post = Service("desk"), Service("store"), Service("post")


@desk.on(final="asked is asked")
def ask(wanted: Ask) -> Asked:
    return Asked(id="1")


@store.on
def hold(asked: Asked) -> Held:
    return Held(id=asked.id)


@hold.undo
def free(cause: Dropped, held: Held) -> Freed:
    return Freed(id=held.id)


@post.on(final="a letter", unless=Dropped)
def write(held: Held) -> Asked:
    return Asked(id=held.id)


@post.on(final="a letter")
def mention(held: Held) -> Asked | None:
    return None


SERVICES = (desk, store, post)


def said(identifier: str, cause: str, kind: type[Event], source: str, subject: str = "1") -> Entry:
    return entry(
        identifier, cause, wire_type=kind.__address__.wire_type, source=source, subject=subject
    )


def missing(*entries: Entry, certain: bool = True) -> list[str]:
    flow = Flow(FLOW, starts_with="follow.ask.v1")
    for one in entries:
        flow.add(one)
    return owed(flow, SERVICES, certain=certain)


ASKED = said("a", FLOW, Asked, "/desk/ask")
HELD = said("h", "a", Held, "/store/hold")
WRITTEN = said("w", "h", Asked, "/post/write")
DROPPED = said("x", "a", Dropped, "/somebody/else")


def test_the_command_that_began_the_flow_is_owed_an_answer() -> None:
    assert missing() == ["service desk: ask has not answered follow.ask"]
    assert owed(Flow(FLOW), SERVICES) == []


def test_each_step_owes_each_event_that_it_hears_an_answer() -> None:
    assert missing(ASKED) == ["service store: hold has not answered follow.asked"]
    assert missing(ASKED, HELD) == ["service post: write has not answered follow.held"]
    another = said("w2", "w", Held, "/store/hold", "2")
    assert missing(ASKED, HELD, WRITTEN, another) == [
        "service post: write has not answered follow.held"
    ]


def test_who_may_be_silent_is_named_only_when_asked_for() -> None:
    settled = (ASKED, HELD, WRITTEN, said("h2", "w", Held, "/store/hold"))
    written = said("w2", "h2", Asked, "/post/write")
    asked_again = said("h3", "w2", Held, "/store/hold")
    assert missing(*settled, written) == ["service store: hold has not answered follow.asked"]
    uncertain = missing(*settled, written, asked_again, certain=False)
    assert uncertain.count("service post: mention has not answered follow.held") == 3


def test_an_undo_is_owed_for_each_outcome_that_its_cause_reaches() -> None:
    taken_back = ["service store: free has not taken back follow.held"]
    assert missing(ASKED, HELD, DROPPED) == taken_back
    freed = said("f", "x", Freed, "/store/free")
    assert missing(ASKED, HELD, DROPPED, freed) == []
    other = said("o", "a", Held, "/store/hold", "2")
    assert missing(ASKED, HELD, other, DROPPED, freed) == []
    everything = entry(
        "e", "a", wire_type=Dropped.__address__.wire_type, source="/z/z", subject=None
    )
    assert missing(ASKED, HELD, other, everything, freed) == taken_back


def test_a_step_may_be_silent_once_it_is_cancelled() -> None:
    assert missing(ASKED, DROPPED) == []


def test_who_gave_up_owes_nothing_more() -> None:
    body = {"service": "store", "handler": "hold", "reason": "no room"}
    letter = entry("l", "a", wire_type="choreo.dead_lettered.v1", source="/store/dead", body=body)
    assert missing(ASKED, letter) == []


class Begin(Command, topic="follow.begin"):
    pass


class Fetch(Command, topic="follow.fetch"):
    pass


class Return(Command, topic="follow.return"):
    pass


class Fetched(Event, topic="follow.fetched", subject="id"):
    id: str


class Returned(Event, topic="follow.returned", subject="id"):
    id: str


boss, hand = Service("boss"), Service("hand")


@boss.on(final="a thought")
def begin(asked: Asked) -> Begin:
    return Begin()


@boss.on(final="a thought")
def carry_on(begun: Begin) -> Fetch:
    return Fetch()


@hand.on
def fetch(wanted: Fetch) -> Fetched:
    return Fetched(id="1")


@fetch.undo
def put_back(cause: Return, fetched: Fetched) -> Returned:
    return Returned(id=fetched.id)


@hand.on(final="a word")
def mutter(wanted: Fetch) -> Freed:
    return Freed(id="1")


def owing(*entries: Entry, certain: bool = False) -> list[str]:
    flow = Flow(FLOW)
    for one in entries:
        flow.add(one)
    return owed(flow, (boss, hand), certain=certain)


def answered(identifier: str, cause: str, kind: type[Event], source: str, to: str) -> Entry:
    wire_type = kind.__address__.wire_type
    return entry(
        identifier, cause, wire_type=wire_type, source=source, subject="1",
        command=to, last_event="a",
    )  # fmt: skip


FETCHED = answered("f", "fetch-1", Fetched, "/hand/fetch", "follow.fetch.v1")
MUTTERED = answered("m", "fetch-1", Freed, "/hand/mutter", "follow.fetch.v1")
RETURNED = answered("r", "return-1", Returned, "/hand/put_back", "follow.return.v1")


def test_a_command_shows_in_what_it_led_to() -> None:
    assert owing(ASKED) == ["service boss: begin has not answered follow.asked"]
    assert owing(ASKED, certain=True) == []
    # The command between them led to nothing but another command.
    assert owing(ASKED, FETCHED, MUTTERED) == []


def test_a_command_that_was_answered_is_owed_every_answer() -> None:
    expected = ["service hand: mutter has not answered follow.fetch"]
    assert owing(ASKED, FETCHED) == owing(ASKED, FETCHED, certain=True) == expected


def test_an_undo_that_a_command_caused_has_been_done() -> None:
    assert owing(ASKED, FETCHED, MUTTERED, RETURNED, certain=True) == []


def _delivery(identifier: str, flow: str = FLOW, wire_type: str | None = "a.b.v1") -> Delivery:
    headers = {"cloudEvents:causationid": flow}
    return Delivery(b"{}", identifier, wire_type, flow, None, headers, {}, "a", "k", False, 1)


async def test_it_collects_the_flows_that_it_follows_and_nothing_else() -> None:
    follower, more = Follower(), asyncio.Event()

    async def deliveries() -> AsyncIterator[Delivery]:
        yield _delivery("1", "another flow")
        yield _delivery("2", wire_type=None)
        yield _delivery("3")
        yield _delivery("3")
        await more.wait()
        yield _delivery("4")
        await asyncio.Future()

    flow = follower.follow(FLOW)
    reading = asyncio.create_task(follower.read(deliveries()))
    assert await follower.until(lambda: len(flow.entries) == 1, within_s=10)
    assert not await follower.until(lambda: len(flow.entries) == 2, within_s=0.02)
    await follower.quiet(for_s=0.02, within_s=10)
    more.set()
    assert await follower.until(lambda: len(flow.entries) == 2, within_s=10)
    assert list(flow.entries) == ["3", "4"]
    assert list(follower.flows) == [FLOW]
    reading.cancel()


async def test_a_lost_connection_ends_the_waiting() -> None:
    follower = Follower()

    async def deliveries() -> AsyncIterator[Delivery]:
        return
        yield

    reading = asyncio.create_task(follower.read(deliveries()))
    with pytest.raises(CannotRunError, match="lost"):
        await follower.until(lambda: False, within_s=10)
    await reading
