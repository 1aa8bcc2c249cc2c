"""Conductors that stop waiting: what comes late is undone, and what was overtaken never begins."""

from __future__ import annotations

import signal
from functools import partial

import pytest
from audit import audit
from cast import CONDUCTED_ORDERS, TRAVEL
from processes import PATIENCE_S
from stage import until
from starts import FLIGHT, ROOM, WAYS, a_confirmation, a_trip, an_order
from system import System, SystemMaker, system_fixture  # noqa: F401 - a fixture

from choreo import Event
from choreo.store.memory import Kind
from choreo.store.tables import due
from contracts.inventory import StockHeld
from contracts.payments import PaymentReturned, PaymentTaken, TripPaid
from contracts.providers import LegBooked, LegCancelled, LegsBooked
from contracts.shipping import ShipmentArranged
from contracts.travel import TripCancelled


async def _cancelled(running: System, *flows: str) -> None:
    for flow in flows:
        await until(partial(running.ends.get, flow), "it is cancelled", PATIENCE_S)
        assert running.ends[flow] == ["cancelled"]


async def _awaited(running: System, service: str, *handlers: str) -> None:
    """Wait until it is these, calls under way and deadlines, that a service still waits for."""
    await until(
        lambda: sorted(row["handler"] for row in running.rows(service, "due")) == sorted(handlers),
        f"{service} waits for {handlers} alone",
    )


def _time_is_up(running: System, service: str) -> None:
    deadlines = due.update().where(due.c.kind == Kind.DEADLINE.value)
    with running._engines[service].begin() as db:
        db.execute(deadlines.values(at=0.0))


@pytest.mark.long_on_postgres
async def test_a_participant_of_an_order_is_away(system: SystemMaker) -> None:
    """The command that undoes overtakes the one that it undoes."""
    steps: dict[str, tuple[str, type[Event]]] = {
        "inventory": ("hold_late", StockHeld),
        "payments": ("pay_late", PaymentTaken),
        "shipping": ("ship_late", ShipmentArranged),
    }
    async with system(CONDUCTED_ORDERS) as running:
        await running.start()
        for away, (late, answer) in steps.items():
            await running.stop(away)
            [flow] = await running.place(an_order(away, conducted=True, member=True))
            await _awaited(running, "order_process", late)
            _time_is_up(running, "order_process")
            await _cancelled(running, flow)
            await running.reverse(away)
            await running.start(away)
            await running.ended()
            assert flow not in {one.flow for one in running.events(answer)}
        audit(running)


@pytest.mark.long_on_postgres
async def test_a_participant_of_a_trip_is_away(system: SystemMaker) -> None:
    trips = {
        away: [a_trip(f"{away}-{way}", way=way, member=True) for way in WAYS]
        for away in ("providers", "payments")
    }
    async with system(TRAVEL) as running:
        await running.start()
        await running.place(*trips["providers"], *trips["payments"])
        await running.ended()

        await running.stop("providers")
        flows = await running.place(*map(a_confirmation, trips["providers"]))
        await _awaited(running, "reservations", *["book_late"] * 3, "expire")
        _time_is_up(running, "reservations")
        await _cancelled(running, *flows)
        await running.reverse("providers")
        await running.start("providers")
        # Whoever books choreographed trips waits, too, for what is never begun.
        await _awaited(running, "providers", *["gather_late"] * 3)
        _time_is_up(running, "providers")
        await running.ended()

        await running.stop("payments")
        flows = await running.place(*map(a_confirmation, trips["payments"]))
        await until(lambda: running.events(LegsBooked), "all is booked that is choreographed")
        await _awaited(running, "reservations", "pay_late", "expire")
        _time_is_up(running, "reservations")
        await _cancelled(running, *flows)
        await running.reverse("payments")
        await running.start("payments")
        await running.ended()

        audit(running)
        assert not [*running.events(PaymentTaken), *running.events(TripPaid)]
        booked = {str(one.subject).rpartition(".")[0] for one in running.events(LegBooked)}
        assert booked == {f"trip-payments-{way}" for way in WAYS}


@pytest.mark.long_on_postgres
async def test_the_outside_world_is_too_slow(system: SystemMaker) -> None:
    """What was done too late is undone as what was done in time."""
    trips = [a_trip(way, legs=[ROOM, FLIGHT], way=way) for way in WAYS]
    trips += [a_trip("paid", legs=[ROOM])]
    async with system(TRAVEL) as running:
        await running.start()
        await running.place(*trips)
        await running.ended()
        slow = ("airline", "gateway")
        for one in slow:
            running.signal(one, signal.SIGSTOP)
        try:
            flows = await running.place(*map(a_confirmation, trips))
            await until(lambda: len(running.events(LegBooked)) == 3, "the rooms are booked")
            await _awaited(running, "providers", "book", "book", "gather_late")
            await _awaited(running, "payments", "charge")
            await _awaited(running, "reservations", "book_late", "expire", "pay_late")
            _time_is_up(running, "reservations")
            await _cancelled(running, *flows)
        finally:
            for one in slow:
                running.signal(one, signal.SIGCONT)
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
