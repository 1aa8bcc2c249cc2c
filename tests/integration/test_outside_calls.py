"""Calls of the outside world: repeated under one key, and undone once their outcome is known."""

from __future__ import annotations

from functools import partial

from stage import until
from test_lifecycle import (
    StageMaker,
    stage_fixture,  # noqa: F401 - a fixture
    theatre_fixture,  # noqa: F401 - a fixture
    whats,
)
from theatre import (
    Booked,
    Charge,
    Charged,
    Declined,
    Freed,
    Held,
    Refunded,
    Theatre,
    TripDied,
    TripFailed,
)

from choreo import Reject
from choreo.dead import DeadLettered, send_back


async def test_an_outside_call_is_repeated_with_the_same_key(
    stage: StageMaker, theatre: Theatre
) -> None:
    theatre.outside.answers = [ConnectionError("cut"), ConnectionError("cut"), "paid"]
    async with stage() as running:
        await running.publish(Charge(trip="t", seat="1a"), id="m")
        await until(lambda: running.events(Charged), "charged")
        await running.settled()
        assert theatre.outside.calls == [("charge", "m")] * 3
        assert running.rows("due") == []


async def test_an_undo_waits_for_the_outcome_of_a_call_under_way(
    stage: StageMaker, theatre: Theatre
) -> None:
    theatre.outside.gate.clear()
    async with stage() as running:
        await running.publish(Charge(trip="t", seat="1a"), id="m", flow="f")
        await until(lambda: theatre.outside.calls, "the call is under way")
        await running.publish(TripDied(trip="t"), flow="f")
        await running.publish(TripFailed(trip="t"), flow="f")
        await until(
            lambda: [row for row in running.rows("due") if row["kind"] == "undo"], "an undo is owed"
        )
        theatre.outside.gate.set()
        await until(lambda: running.events(Refunded), "refunded")
        await running.settled()
        assert [what for what, _ in theatre.outside.calls] == ["charge", "refund"]
        assert len(running.events(Charged)) == len(running.events(Refunded)) == 1
        assert running.rows("due") == []


async def test_an_undo_owed_to_a_call_that_did_nothing_is_dropped(
    stage: StageMaker, theatre: Theatre
) -> None:
    theatre.outside.gate.clear()
    theatre.outside.answers = ["declined"]
    async with stage() as running:
        await running.publish(Charge(trip="t", seat="1a"), flow="f")
        await until(lambda: theatre.outside.calls, "the call is under way")
        await running.publish(TripDied(trip="t"), flow="f")
        await until(lambda: len(running.rows("due")) == 2, "an undo is owed")
        theatre.outside.gate.set()
        await until(lambda: running.events(Declined), "declined")
        await running.settled()
        assert running.rows("due") == []
        assert [what for what, _ in theatre.outside.calls] == ["charge"]


async def test_an_undo_of_the_outside_world_is_repeated_until_it_succeeds(
    stage: StageMaker, theatre: Theatre
) -> None:
    theatre.outside.answers = ["paid", ConnectionError("cut"), "back"]
    async with stage() as running:
        await running.publish(Charge(trip="t", seat="1a"), id="m", flow="f")
        await until(lambda: running.events(Charged), "charged")
        await running.publish(TripDied(trip="t"), flow="f")
        await until(lambda: running.events(Refunded), "refunded")
        await running.settled()
        assert theatre.outside.calls[1:] == [("refund", "m.undo")] * 2
        assert running.rows("due") == []


async def test_an_undo_that_fails_for_good_stays_owed_and_can_be_sent_back(
    stage: StageMaker, theatre: Theatre
) -> None:
    theatre.undo_failures = [RuntimeError("stuck")] * 3
    theatre.outside.answers = ["paid", *[ConnectionError("cut")] * 3]
    async with stage(attempts=3) as running:
        await running.publish(Booked(trip="t", seat="1a"), flow="f")
        await running.publish(Charge(trip="t", seat="1a"), id="c", flow="f")
        await until(lambda: running.events(Charged) and running.events(Held), "done")
        await running.publish(TripDied(trip="t"), flow="f")
        await until(lambda: len(running.events(DeadLettered)) == 2, "two dead letters")
        await running.settled()
        owed = {(row["handler"], row["at"]) for row in running.rows("due") if row["kind"] == "undo"}
        assert owed == {("free", None), ("refund", None)}
        for letter in running.rows("dead"):
            running.execute(partial(send_back, letter=letter, now=0.0))
        await until(lambda: running.events(Freed) and running.events(Refunded), "undone after all")
        await running.settled()
        assert running.rows("due") == running.rows("dead") == []
        assert whats(running, theatre) == [("1a", "held"), ("1a", "freed")]


async def test_a_parked_step_owes_its_undo_and_is_cancelled_when_sent_back(
    stage: StageMaker, theatre: Theatre
) -> None:
    theatre.failures["bad"] = [Reject("no")]
    async with stage() as running:
        await running.publish(Booked(trip="t", seat="bad"), id="m", flow="f")
        await until(lambda: running.rows("dead"), "parked")
        await running.publish(TripDied(trip="t"), flow="f")
        await until(lambda: running.rows("due"), "the undo is owed")
        [letter] = running.rows("dead")
        running.execute(lambda db: send_back(db, letter, 0.0))
        await until(lambda: not running.rows("due"), "cancelled, and nothing owed")
        await running.settled()
        assert whats(running, theatre) == []
        [step] = [row for row in running.rows("inbox") if row["handler"] == "hold"]
        assert (step["status"], step["undo"]) == ("cancelled", None)
