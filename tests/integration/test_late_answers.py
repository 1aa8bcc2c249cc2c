"""Conductors that stop waiting: what comes late is undone, and what was overtaken never begins."""

from __future__ import annotations

from functools import partial

import pytest
from audit import audit
from cast import CONDUCTED_ORDERS, TRAVEL
from processes import PATIENCE_S
from stage import until
from starts import FLIGHT, ROOM, WAYS, a_confirmation, a_trip, an_order
from system import System, SystemMaker, system_fixture  # noqa: F401 - a fixture

from choreo import Event
from contracts.inventory import StockHeld
from contracts.payments import PaymentReturned, PaymentTaken, TripPaid
from contracts.providers import LegBooked, LegCancelled
from contracts.shipping import ShipmentArranged
from contracts.travel import ConfirmReservation, TripCancelled
from sandboxes import gateway


async def _cancelled(running: System, *flows: str) -> None:
    for flow in flows:
        await until(partial(running.ends.get, flow), "it is cancelled", PATIENCE_S)
        assert running.ends[flow] == ["cancelled"]


@pytest.mark.long_on_postgres
async def test_a_participant_of_an_order_is_away(system: SystemMaker) -> None:
    """The command that undoes overtakes the one that it undoes."""
    answers: dict[str, type[Event]] = {
        "inventory": StockHeld, "payments": PaymentTaken, "shipping": ShipmentArranged,
    }  # fmt: skip
    async with system(CONDUCTED_ORDERS, ORDER_PROCESS_ANSWER_S=1) as running:
        await running.start()
        for away, answer in answers.items():
            await running.stop(away)
            [flow] = await running.place(an_order(away, conducted=True, member=True))
            await _cancelled(running, flow)
            await running.reverse(away)
            await running.start(away)
            await running.ended()
            assert flow not in {one.flow for one in running.events(answer)}
        audit(running)


@pytest.mark.long_on_postgres
async def test_a_participant_of_a_trip_is_away(system: SystemMaker) -> None:
    # Who books choreographed trips waits for the legs no longer than for the trip.
    async with system(TRAVEL, RESERVATIONS_ANSWER_S=2, PROVIDERS_ANSWER_S=2) as running:
        await running.start()
        for away in ("providers", "payments"):
            trips = [a_trip(f"{away}-{way}", way=way, member=True) for way in WAYS]
            await running.place(*trips)
            await running.ended()
            await running.stop(away)
            await _cancelled(running, *await running.place(*map(a_confirmation, trips)))
            await running.reverse(away)
            await running.start(away)
            await running.ended()
        audit(running)
        assert not [*running.events(PaymentTaken), *running.events(TripPaid)]
        booked = {str(one.subject).rpartition(".")[0] for one in running.events(LegBooked)}
        assert booked == {f"trip-payments-{way}" for way in WAYS}


@pytest.mark.long_on_postgres
async def test_the_outside_world_is_too_slow(system: SystemMaker) -> None:
    """What was done too late is undone as what was done in time."""
    trips = [a_trip(way, legs=[ROOM, ("airline", "ROME-SLOW")], way=way) for way in WAYS]
    paid = a_trip("paid", legs=[FLIGHT])
    confirmations: list[ConfirmReservation] = [
        *map(a_confirmation, trips), a_confirmation(paid, card=gateway.SLOW),
    ]  # fmt: skip
    async with system(TRAVEL, RESERVATIONS_ANSWER_S=1.5) as running:
        await running.start()
        await running.place(*trips, paid)
        await running.ended()
        flows = await running.place(*confirmations)
        await running.ended()
        audit(running)
        assert [running.ends[flow] for flow in flows] == [["cancelled"]] * 3
        ends = {one.flow: one.time for one in running.events(TripCancelled)}
        booked, [taken] = running.events(LegBooked), running.events(PaymentTaken)
        late = [one for one in [*booked, taken] if one.time > ends[one.flow]]
        assert {one.subject for one in late} == {
            "trip-conducted.2", "trip-choreographed.2", "trip-paid",
        }  # fmt: skip
        cancelled = running.events(LegCancelled)
        assert sorted(str(one.subject) for one in cancelled) == sorted(
            str(one.subject) for one in booked
        )
        assert [one.subject for one in running.events(PaymentReturned)] == ["trip-paid"]
