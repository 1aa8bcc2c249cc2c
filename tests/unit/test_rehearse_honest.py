"""The rehearsal is honest: what ends it, what it cannot see through, and what only it provokes."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import pytest
import rehearsed
import sqlalchemy as sa

from choreo import Connection, Context, Event, Service
from choreo.rehearse import Outside, World, invariant, stand_in
from choreo.rehearse.broker import SimulatedBroker
from choreo.rehearse.faults import Faults
from choreo.rehearse.loop import Actor, LivelockError, Loop
from choreo.rehearse.project import project
from choreo.rehearse.schedule import Decision
from choreo.rehearse.stage import Stage
from choreo.seams import Delivery
from choreo.store.memory import Memory
from choreo.store.tables import outbox

#: In so many schedules a living process must have lost its leases.
SEEDS = 150


def told(stage: Stage, seeds: range) -> list[str]:
    return [str(one) for seed in seeds for one in stage.play(seed).wrong]


def waiter_that(serve: Any) -> Stage:
    """Another service hears of what is ordered, and does as the test says."""
    guest = Service("guest")
    guest.on(final="it says nothing")(serve)
    return rehearsed.stage([*rehearsed.services(), guest])


# What ends a process, and what ends the rehearsal.


@pytest.mark.parametrize("code", [0, 3, "so it is"])
def test_a_handler_that_exits_is_a_finding(code: object) -> None:
    def leave(ordered: rehearsed.Ordered, db: Connection) -> None:
        sys.exit(code)  # type: ignore[arg-type]

    found = told(waiter_that(leave), range(1, 12))
    assert any(f"guest left by sys.exit({code!r}), at {__file__}:" in one for one in found)


def test_a_call_that_exits_is_a_finding() -> None:
    @stand_in(rehearsed.Stove)
    class Fire(rehearsed.Fire):
        async def cook(self, *, key: str, dish: str) -> str:
            await asyncio.sleep(1)
            sys.exit(0)

    assert any(
        "kitchen left by sys.exit(0)" in one
        for one in told(rehearsed.stage(Fire=Fire), range(1, 4))
    )


def test_an_interrupt_ends_the_rehearsal() -> None:
    def interrupt(ordered: rehearsed.Ordered, db: Connection) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        told(waiter_that(interrupt), range(1, 12))


def test_what_waits_in_its_clean_up_can_be_let_go() -> None:
    loop, one, said = (
        Loop(lambda _: 0, pytest.fail, rehearsed.unexpected),
        Actor("one"),
        list[str](),
    )

    async def waits() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            try:
                await asyncio.sleep(1)
            finally:
                await asyncio.sleep(1)
                said.append("acted")

    with loop.running():
        task = loop.spawn(one, waits())
        loop.drain()
    one.close()
    assert task.get_coro().cr_frame is None  # type: ignore[union-attr]
    assert said == []


def test_who_goes_round_in_circles_is_told_of() -> None:
    loop = Loop(lambda _: 0, pytest.fail, rehearsed.unexpected)

    async def spin() -> None:
        while True:  # noqa: ASYNC110 - it is wrong
            await asyncio.sleep(0)

    with loop.running():
        loop.spawn(one := Actor("one"), spin())
        with pytest.raises(LivelockError, match=r"one goes round in circles: .*spin"):
            loop.drain()
    one.close()


def test_a_livelock_is_a_finding() -> None:
    @stand_in(rehearsed.Stove)
    class Fire(rehearsed.Fire):
        async def cook(self, *, key: str, dish: str) -> str:
            while True:  # noqa: ASYNC110 - it is wrong
                await asyncio.sleep(0)

    assert any(
        "kitchen#1 goes round in circles" in one
        for one in told(rehearsed.stage(Fire=Fire), range(1, 5))
    )


# What only the rehearsal provokes, and what it must not take for that.


def dead_letters(stage: Stage, seeds: range) -> list[str]:
    return [one for one in told(stage, seeds) if one.startswith("dead letter")]


def test_what_a_fault_made_a_letter_is_sent_back_although_the_handler_wrapped_it() -> None:
    @stand_in(rehearsed.Stove)
    class Fire(rehearsed.Fire):
        async def cook(self, *, key: str, dish: str) -> str:
            try:
                return await super().cook(key=key, dish=dish)
            except ConnectionError:
                raise ValueError("no fire") from None

    stage = rehearsed.stage(Fire=Fire)
    assert any("outside" in stage.play(seed).faults for seed in range(1, 40))
    assert told(stage, range(1, 200)) == []


def test_a_bug_whose_text_is_that_of_a_fault_is_a_finding() -> None:
    seen: Counter[str] = Counter()

    def fail(ordered: rehearsed.Ordered, db: Connection) -> None:
        # Wrong for a while, as what keeps something in memory may be: a letter is made of it, and
        # whoever sends it back finds nothing.
        seen[ordered.table] += 1
        if seen[ordered.table] <= 4:
            raise ValueError("InjectedError, OutsideError, CallTimeoutError; its process died")

    stage = waiter_that(fail)
    assert any("CallTimeoutError" in one for one in dead_letters(stage, range(1, 8)))


class StoveError(Exception):
    """It does not work."""


def test_an_adapter_fails_with_its_own_errors_before_and_after_it_has_acted() -> None:
    raised: set[tuple[type[Exception], bool]] = set()

    @stand_in(rehearsed.Stove, fails=(StoveError, lambda text: OSError(5, text)))
    class Fire(rehearsed.Fire):
        async def cook(self, *, key: str, dish: str) -> str:
            before = len(self.plates)
            try:
                return await super().cook(key=key, dish=dish)
            except (StoveError, OSError) as error:
                raised.add((type(error), len(self.plates) > before))
                raise

    assert told(rehearsed.stage(Fire=Fire), range(1, 200)) == []
    assert raised == {(kind, acted) for kind in (StoveError, OSError) for acted in (False, True)}


def test_an_adapter_fails_with_a_connection_error_if_nothing_else_is_said() -> None:
    assert project([], [rehearsed.dinner], rehearsed.module()).fails(rehearsed.Stove) == (
        ConnectionError,
    )


# What falls in between.


@pytest.fixture(scope="module")
def stage() -> Stage:
    """The stage of this project."""
    return rehearsed.stage_of_this_project()


def test_deliveries_are_settled_whose_channel_was_lost(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, settle = 0, SimulatedBroker.settle

    def counted(self: SimulatedBroker, deliveries: Sequence[Delivery]) -> None:
        nonlocal lost
        lost += sum(one.channel is not None and one.channel.closed for one in deliveries)
        settle(self, deliveries)

    monkeypatch.setattr(SimulatedBroker, "settle", counted)
    assert told(stage, range(1, 101)) == []
    assert lost > 0


def test_what_a_living_process_has_in_hand_is_taken_over(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is suspended for longer than its leases, and goes on afterwards as if nothing was."""
    suspended, taken = set[str](), Counter[str]()
    due, reclaim, suspend, resume = (
        Memory.due,
        Memory.reclaim_outgoing,
        Faults._suspend,
        Loop.resume,
    )

    def suspends(self: Faults, one: Decision) -> None:
        suspend(self, one)
        suspended.add(self._play.slot(one.about).running.actor.name)

    def resumes(self: Loop, one: Actor) -> None:
        suspended.discard(one.name)
        resume(self, one)

    def counted_due(self: Memory, *args: Any, **kwargs: Any) -> list[Any]:
        rows = due(self, *args, **kwargs)
        taken["calls"] += sum(row["owner"] in suspended for row in rows)
        return rows

    def counted_outgoing(self: Memory, *args: Any, **kwargs: Any) -> list[Any]:
        owners = dict(
            list(map(tuple, self.db.execute(sa.select(outbox.c.id, outbox.c.owner)).all()))
        )
        found = reclaim(self, *args, **kwargs)
        taken["outbox"] += sum(owners[one.envelope.id] in suspended for one in found)
        return found

    monkeypatch.setattr(Faults, "_suspend", suspends)
    monkeypatch.setattr(Loop, "resume", resumes)
    monkeypatch.setattr(Memory, "due", counted_due)
    monkeypatch.setattr(Memory, "reclaim_outgoing", counted_outgoing)
    for seed in range(1, SEEDS):
        suspended.clear()
        assert stage.play(seed).wrong == ()
    assert taken["calls"] > 0
    assert taken["outbox"] > 0


# Who is there.


def test_a_service_that_no_end_depends_on_is_not_always_there() -> None:
    tables = sa.MetaData()
    seats = sa.Table("seats", tables, sa.Column("of", sa.String, primary_key=True))
    guest, guests = Service("guest", tables=tables), set[str]()

    @guest.on(final="it only listens")
    def note(ordered: rehearsed.Ordered, db: Connection) -> None:
        db.execute(seats.insert(), {"of": ordered.table})

    @invariant
    def noted(world: World) -> Iterator[str]:
        found = {row.of for row in world.rows("guest", seats)}
        guests.update(found)
        if found != {one.table for one in world.of(rehearsed.Ordered)}:
            yield "the guest has not noted what was ordered"

    stage = rehearsed.stage([*rehearsed.services(), guest], noted=noted)
    outcomes = [stage.play(seed) for seed in range(1, 30)]
    assert not any(one.wrong for one in outcomes)
    absent = [one for one in outcomes if "absent" in map(str, one.decisions)]
    assert absent
    assert guests
    assert all("guest.note" not in one.handlers for one in absent)
    assert any("guest.note" in one.handlers for one in outcomes)


class Praised(Event, topic="kitchen.praised", subject="table"):
    table: str


class Ear:
    async def hear(self, *, key: str, praise: str) -> None: ...


@stand_in(Ear)
class Listener(Ear):
    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self.heard: set[str] = set()

    async def hear(self, *, key: str, praise: str) -> None:
        await self._outside.once(key, praise, lambda: self.heard.add(praise))


def test_what_an_absent_service_says_and_calls_is_not_judged() -> None:
    """Nothing of it is there, and nobody has done anything wrong."""
    guest, judged = Service("guest"), Counter[str]()

    @guest.adapter
    async def open_ear() -> AsyncGenerator[Ear, None]:
        yield Ear()

    @guest.on(final="it only listens")
    async def praise(ordered: rehearsed.Ordered, ear: Ear, context: Context) -> Praised:
        await ear.hear(key=context.key, praise=ordered.table)
        return Praised(table=ordered.table)

    @invariant
    def said(world: World) -> Iterator[str]:
        ordered = {one.table for one in world.of(rehearsed.Ordered)}
        yield from ordered - {one.table for one in world.of(Praised)}
        judged["said"] += 1

    @invariant
    def heard(world: World) -> Iterator[str]:
        ordered = {one.table for one in world.of(rehearsed.Ordered)}
        yield from ordered - world.outside(Listener).heard
        judged["heard"] += 1

    stage = rehearsed.stage(
        [*rehearsed.services(), guest], said=said, heard=heard, listener=Listener
    )
    outcomes = [stage.play(seed) for seed in range(1, 30)]
    assert not any(one.wrong for one in outcomes)
    absent = sum("absent" in map(str, one.decisions) for one in outcomes)
    assert absent
    assert set(judged.values()) == {len(outcomes) - absent}
