"""What a rehearsal does to a service that lives on: it is told to stop, or its disk fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import rehearsed
import sqlalchemy as sa

from choreo import Connection, Service, failure
from choreo.assembly import LAST_S, Assembly
from choreo.rehearse import World, invariant, stand_in
from choreo.rehearse.broker import SimulatedBroker
from choreo.rehearse.campaign import Campaign, Failure
from choreo.rehearse.loop import actor
from choreo.rehearse.schedule import Decision
from choreo.rehearse.stage import Outcome, Stage
from choreo.settings import Settings
from choreo.store.memory import Memory
from choreo.transaction import Transaction

SEEDS = range(1, 150)
#: A dinner has fewer steps.
STEPS = range(1, 60)
GRACE_S = Settings.model_fields["grace_s"].default

laid_tables = sa.MetaData()
laid = sa.Table("laid", laid_tables, sa.Column("id", sa.Integer, primary_key=True),
                sa.Column("table", sa.String), sa.Column("what", sa.String))  # fmt: skip
LAY = sa.insert(laid)


def with_guest(*, swallows: bool = False) -> Stage:
    """One more service, which lays a plate and a glass for each dinner."""
    guest = Service("guest", tables=laid_tables)

    @guest.on(final="it stays laid")
    def lay(ordered: rehearsed.Ordered, db: Connection) -> None:
        try:
            for what in ("plate", "glass"):
                db.execute(LAY, {"table": ordered.table, "what": what})
        except sa.exc.OperationalError:
            if not swallows:
                raise

    return rehearsed.stage([*rehearsed.services(), guest], glasses=glasses)


@invariant
def glasses(world: World) -> Iterator[str]:
    """There is a plate and a glass for each dinner that was ordered."""
    tables = [one.table for one in world.of(rehearsed.Ordered)]
    found = sorted((row.table, row.what) for row in world.rows("guest", laid))
    if found != sorted((table, what) for table in tables for what in ("glass", "plate")):
        yield f"for {tables} there is {found}"


def slow_stove(*, is_stubborn: bool = False) -> Stage:
    """To cook takes for ever the first time, and cannot be broken off if it is stubborn."""

    @stand_in(rehearsed.Stove)
    class Fire(rehearsed.Fire):
        times = 0

        async def cook(self, *, key: str, dish: str) -> str:
            self.times += 1
            while self.times == 1:
                try:
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    if not is_stubborn:
                        raise
            return await super().cook(key=key, dish=dish)

    services = rehearsed.services()
    services[1].handlers["cook"].timeout_s = 5 * GRACE_S
    return rehearsed.stage(services, Fire=Fire)


def one_dinner(stage: Stage, *decisions: Decision) -> Outcome:
    """One is eaten, and only this goes wrong."""
    return stage.play(1, [Decision("story", "eat", 1, 1), *decisions])


def at_each_step(
    stage: Stage, kind: str, about: str, value: int, *others: Decision
) -> Iterator[Outcome]:
    """One is eaten, and this befalls it after one step or another."""
    for nth in STEPS:
        one = Decision(kind, about, nth, value)
        outcome = one_dinner(stage, one, *others)
        if one in outcome.decisions:
            yield outcome


def failed(stage: Stage, runs: int = 400) -> Failure:
    """The first schedule that goes wrong."""
    campaign = Campaign(stage)
    for _ in campaign.run(range(1, runs)):
        pass
    assert campaign.failure is not None
    return campaign.failure


def played(stage: Stage, seeds: Iterable[int] = SEEDS) -> list[Outcome]:
    """All went well."""
    outcomes = [stage.play(seed) for seed in seeds]
    assert [one.wrong for one in outcomes if one.wrong] == []
    return outcomes


def said(outcome: Outcome) -> list[str]:
    return [what for _, what in outcome.events]


def kinds(found: Failure) -> set[str]:
    """What is left of the schedule that goes wrong, but for the story that is told."""
    assert len(found.smallest.decisions) < 10
    return {one.kind for one in found.smallest.decisions} - {"story"}


# The ordered stop.


@pytest.mark.parametrize("kind", ["stop", "statement"])
def test_it_goes_the_same_way_when_it_is_given(kind: str) -> None:
    stage = rehearsed.stage()
    found = [one for one in played(stage) if one.faults[kind]]
    assert len(found) > len(SEEDS) / 30
    for one in found:
        again = stage.play(one.seed, one.decisions)
        assert again.decisions == one.decisions
        assert again.digest == one.digest


@pytest.mark.parametrize("who", ["waiter", "kitchen", "cellar"])
def test_who_is_told_to_stop_leaves_and_another_comes(who: str) -> None:
    stage = rehearsed.stage()
    plain = one_dinner(stage)
    stopped = list(at_each_step(stage, "stop", who, 3))
    assert len(stopped) > 3
    for one in stopped:
        assert one.wrong == ()
        assert said(one) == [f"{who} is told to stop", f"{who} has stopped, and is back after 2 s"]
        assert one.digest != plain.digest
        assert one_dinner(stage, *one.decisions[1:]).digest == one.digest


def test_who_stops_can_die_of_it() -> None:
    stage, places = rehearsed.stage(), set[str]()
    slow = Decision("pace", "kitchen", 2, 3)  # so that it is told to in the midst of something
    for point in ("received", "committed", "before_ack"):
        death = Decision("crash", f"kitchen at {point}", 1, 3)
        for one in at_each_step(stage, "stop", "kitchen", 3, slow, death):
            assert one.wrong == ()
            if said(one)[1:] == [f"kitchen dies (at {point}), and is back after 2 s"]:
                places.add(point)
    assert places == {"received", "committed", "before_ack"}


def test_what_is_not_finished_in_time_goes_on_at_the_next_start() -> None:
    took = set[float]()
    for one in at_each_step(slow_stove(), "stop", "kitchen", 1):
        assert one.wrong == ()
        [(told_at, _), (left_at, left)] = one.events
        assert left == "kitchen has stopped, and is back after 0.3 s"
        took.add(round(left_at - told_at, 6))
    assert {0.0, GRACE_S} <= took


def test_who_does_not_stop_is_killed() -> None:
    found = at_each_step(slow_stove(is_stubborn=True), "stop", "kitchen", 1)
    one = next(one for one in found if "does not stop, and is killed" in said(one)[1])
    assert one.wrong == ()
    [(told_at, _), (left_at, _)] = one.events
    assert left_at - told_at == pytest.approx(GRACE_S + LAST_S)


def test_who_is_told_to_stop_before_it_consumes_never_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It began to consume nevertheless, and went on for as long as messages came."""
    consuming, consume = list[str](), SimulatedBroker.consume

    async def noted(self: SimulatedBroker, *args: Any) -> None:
        consuming.append(self.name)
        await consume(self, *args)

    monkeypatch.setattr(SimulatedBroker, "consume", noted)
    slow = Decision("pace", "kitchen", 1, 3)
    one = next(at_each_step(rehearsed.stage(), "stop", "kitchen", 1, slow))
    assert one.wrong == ()
    assert "kitchen has stopped, and is back after 0.3 s" in said(one)
    assert "kitchen#1" not in consuming
    assert "kitchen#2" in consuming


def test_a_lease_that_outlives_an_ordered_stop_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def keep(self: Assembly) -> None:
        pass

    monkeypatch.setattr(Assembly, "_release", keep)
    found = failed(rehearsed.stage(), runs=1000)
    assert any(" has stopped with " in one.what for one in found.smallest.wrong)
    assert "stop" in kinds(found)


def test_what_a_stop_forgets_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hurry(self: Assembly, running: object) -> None:
        await self.lifecycle.stop()

    async def forget(self: Assembly) -> None:
        unsent = list(self.relay.in_hand)
        await self.database.run(lambda db, _: Memory(db).forget(unsent))

    monkeypatch.setattr(Assembly, "_stop", hurry)
    monkeypatch.setattr(Assembly, "_release", forget)
    assert "stop" in kinds(failed(rehearsed.stage()))


def test_who_is_killed_releases_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its coroutines are closed in the end, and must not clean up."""
    released, release = list[str](), Memory.release

    def noted(self: Memory, *args: Any) -> None:
        released.append(actor.get().name)
        release(self, *args)

    monkeypatch.setattr(Memory, "release", noted)
    for who in ("waiter", "kitchen", "cellar"):
        killed = list(at_each_step(rehearsed.stage(), "kill", who, 3))
        assert all(one.faults["crash"] and one.wrong == () for one in killed)
        assert killed
    assert released == []


# A disk that fails in a handler's own statement.


def test_a_failing_disk_is_an_outage_and_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded, record = list[Exception](), failure.record

    def noted(tx: Transaction, item: Any, error: Exception) -> Any:
        recorded.append(error)
        return record(tx, item, error)

    monkeypatch.setattr(failure, "record", noted)
    outcomes = played(rehearsed.stage())
    assert any(one.faults["statement"] for one in outcomes)
    assert recorded
    assert not any("disk I/O error" in str(one) for one in recorded)


@pytest.mark.parametrize("value", [1, 2])
def test_it_fails_where_it_is_decided(value: int) -> None:
    """At the second statement that the guest makes; what the first one did is undone."""
    one = one_dinner(with_guest(), Decision("statement", "guest", 2, value))
    assert one.wrong == ()
    assert said(one) == ["the disk of guest fails for 0.3 s, while a handler uses it"]


def test_an_outage_that_counts_as_an_attempt_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure, "concerns_database", lambda _: False)
    found = failed(rehearsed.stage())
    assert any("disk I/O error" in one.what for one in found.smallest.wrong)
    assert "statement" in kinds(found)


@pytest.mark.parametrize(
    ("value", "wrong"), [(7, "a handler swallowed an error of the database"), (2, "glasses: for ")]
)
def test_who_swallows_the_outage_is_found(value: int, wrong: str) -> None:
    """Whether it breaks the transaction, or this goes on without the statement."""
    one = one_dinner(with_guest(swallows=True), Decision("statement", "guest", 2, value))
    assert any(wrong in str(each) for each in one.wrong)
    assert kinds(failed(with_guest(swallows=True))) == {"statement"}
