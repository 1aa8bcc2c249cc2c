"""Every process and every end: conducted orders, trips of both ways, and accounts."""

from __future__ import annotations

from datetime import date

import pytest
from audit import audit
from cast import ACCOUNTS, ALL, CONDUCTED_ORDERS, TRAVEL
from starts import (
    CAR,
    FLIGHT,
    ROOM,
    a_confirmation,
    a_registration,
    a_trip,
    an_order,
    mixed,
    mixed_flows,
)
from system import System, SystemMaker, system_fixture  # noqa: F401 - a fixture

from choreo import Event
from contracts.accounts import AccountRejected
from contracts.crm import ProfileOpened
from contracts.notifications import EmailSent
from contracts.orders import OrderCancelled, OrderRejected
from contracts.rewards import PointsGranted, TripPointsGranted
from contracts.travel import (
    ConfirmationRejected,
    ConfirmReservation,
    Leg,
    TripCancelled,
    TripRejected,
    Way,
)
from sandboxes import carrier, gateway
from services.audit.chain import records

pytestmark = pytest.mark.long_on_postgres

BOTH_WAYS = pytest.mark.parametrize("way", ["conducted", "choreographed"])


def reasons(running: System, kind: type[Event], about: str) -> dict[str, str]:
    """Why those that were refused or cancelled were, by what they are about."""
    said = [one.model_dump() for one in running.messages(kind)]
    return {one[about]: one["reason"] for one in said}


async def test_conducted_orders(system: SystemMaker) -> None:
    nowhere, lost = carrier.UNDELIVERABLE, carrier.LOSES_ANSWER
    ends = {
        an_order("plain", conducted=True): "fulfilled",
        an_order("member", conducted=True, member=True, sku="BOOK-1"): "fulfilled",
        an_order("last", conducted=True, sku="RARE-1", quantity=3): "fulfilled",
        an_order("declined", conducted=True, card=gateway.DECLINED): "cancelled",
        an_order("nowhere", conducted=True, address=nowhere, member=True): "cancelled",
        an_order("stubborn", conducted=True, card=gateway.FAILS_TWICE): "fulfilled",
        an_order("lost", conducted=True, card=gateway.LOSES_ANSWER, address=lost): "fulfilled",
        an_order("unknown", conducted=True, sku="NONE-1"): "rejected",
        # The same books serve those that nobody conducts.
        an_order("other"): "fulfilled",
    }
    async with system(CONDUCTED_ORDERS) as running:
        await running.start()
        flows = dict(zip(await running.place(*ends), ends.values(), strict=True))
        await running.ended()
        # One wants what is gone by now, the others an id that is taken.
        late = await running.place(
            an_order("empty", conducted=True, sku="RARE-1"),
            an_order("plain", conducted=True),
            an_order("other", conducted=True),
            an_order("member"),
        )
        flows |= zip(late, ("cancelled", "rejected", "rejected", "rejected"), strict=True)
        await running.ended()
        audit(running)
        assert {flow: end for flow, [end] in running.ends.items()} == flows
        assert "order-member" in {one.subject for one in running.events(PointsGranted)}
        assert reasons(running, OrderCancelled, "order_id") == {
            "order-declined": "the card was declined",
            "order-nowhere": "the carrier does not go to 'nowhere'",
            "order-empty": "out of stock: RARE-1 (0 of 2)",
        }
        assert reasons(running, OrderRejected, "order_id") == {
            "order-unknown": "not in the catalogue: NONE-1",
            "order-plain": "the order id order-plain is taken",
            "order-other": "the order id order-other is taken",
            "order-member": "the order id order-member is taken",
        }


async def test_accounts(system: SystemMaker) -> None:
    async with system(ACCOUNTS) as running:
        await running.start()
        # Both at once want the same mail address: one of them gets it.
        rivals = await running.place(
            a_registration("this", email="rivals@example.org"),
            a_registration("that", email="rivals@example.org"),
        )
        [ann] = await running.place(a_registration("ann", member=True))
        await running.ended()
        assert sorted(running.ends[one][0] for one in rivals) == ["registered", "rejected"]
        assert running.ends[ann] == ["registered"]
        refused = {
            a_registration("double", email="Account-Ann@example.org"): (
                "the mail address Account-Ann@example.org is registered already"
            ),
            a_registration("ann", email="other@example.org"): (
                "the customer id account-ann is taken"
            ),
            a_registration("nowhere", email="no address"): "no mail address: 'no address'",
            a_registration("nameless", name=" "): "no name",
        }
        flows = await running.place(*refused)
        await running.ended()
        audit(running)
        assert [running.ends[flow] for flow in flows] == [["rejected"]] * len(flows)
        said = {one.flow: one.id for one in running.events(AccountRejected)}
        told = dict(zip(said, running.messages(AccountRejected), strict=True))
        assert [told[flow].reason for flow in flows] == list(refused.values())
        registered = [flow for flow, ends in running.ends.items() if ends == ["registered"]]
        for reaction in (EmailSent, ProfileOpened):
            assert sorted(one.flow for one in running.events(reaction)) == sorted(registered)
        assert len(running.rows("audit", records)) == len(running.journal)


@BOTH_WAYS
async def test_trips(system: SystemMaker, way: Way) -> None:
    plans = {
        "plain": ((FLIGHT, ROOM, CAR), gateway.APPROVED, "confirmed"),
        "single": ((ROOM,), gateway.APPROVED, "confirmed"),
        "twice": ((FLIGHT, FLIGHT), gateway.APPROVED, "confirmed"),
        "lost": (
            (("airline", "ROME-LOST"), ("hotel", "ROOM-LOST"), ("car", "CAR-LOST")),
            gateway.LOSES_ANSWER,
            "confirmed",
        ),
        "stubborn": ((FLIGHT, ROOM), gateway.FAILS_TWICE, "confirmed"),
        "first": ((("airline", "ROME-NEVER"), ROOM, CAR), gateway.APPROVED, "cancelled"),
        "second": ((FLIGHT, ("hotel", "ROOM-NEVER"), CAR), gateway.APPROVED, "cancelled"),
        "third": ((FLIGHT, ROOM, ("car", "CAR-NEVER")), gateway.APPROVED, "cancelled"),
        "slow": ((("airline", "ROME-SLOW"), ("car", "CAR-NEVER")), gateway.APPROVED, "cancelled"),
        "declined": ((FLIGHT, ROOM, CAR), gateway.DECLINED, "cancelled"),
    }
    trips = {
        name: a_trip(name, legs=legs, way=way, member=name == "plain")
        for name, (legs, _, _) in plans.items()
    }
    last = [a_trip(f"last-{at}", legs=[("airline", "ROME-LAST"), ROOM], way=way) for at in range(4)]
    async with system(TRAVEL) as running:
        await running.start()
        reserved = await running.place(*trips.values(), *last, a_trip("unconfirmed", way=way))
        await running.ended()
        assert {running.ends[flow][0] for flow in reserved} == {"reserved"}
        confirmed = await running.place(
            *(a_confirmation(trip, card=plans[name][1]) for name, trip in trips.items())
        )
        rivals = await running.place(*map(a_confirmation, last))
        await running.ended()
        audit(running)
        assert {name: running.ends[flow] for name, flow in zip(trips, confirmed, strict=True)} == {
            name: [end] for name, (_, _, end) in plans.items()
        }
        # Three seats are left for four.
        ends = sorted(running.ends[flow][0] for flow in rivals)
        assert ends == ["cancelled", "confirmed", "confirmed", "confirmed"]
        [points] = running.messages(TripPointsGranted)
        assert points.trip_id == "trip-plain"
        assert points.points == (18_900 + 24_500 + 11_200) // 100
        why = reasons(running, TripCancelled, "trip_id")
        assert why["trip-first"] == "airline: ROME-NEVER is sold out"
        assert why["trip-third"] == "car: CAR-NEVER is sold out"
        assert why["trip-declined"] == "the card was declined"


@BOTH_WAYS
async def test_trips_that_cannot_be(system: SystemMaker, way: Way) -> None:
    day, eve = date(2030, 5, 1), date(2030, 4, 30)
    good = Leg(provider="airline", offer="ROME-1", start=day, end=day)
    trip = a_trip("good", legs=[FLIGHT], way=way)
    refused = {
        a_trip("moon", legs=[FLIGHT, ("rocket", "1")], way=way): "there is no provider 'rocket'",
        a_trip("unoffered", legs=[("hotel", "ROOM-9")], way=way): "hotel does not offer 'ROOM-9'",
        a_trip("empty", legs=[], way=way): "a trip needs at least one leg",
        trip.model_copy(
            update={"trip_id": "trip-back", "legs": (good, good.model_copy(update={"end": eve}))}
        ): "leg 2 ends on 2030-04-30, before it starts on 2030-05-01",
        trip.model_copy(
            update={
                "trip_id": "trip-past",
                "legs": (good.model_copy(update={"start": date(2020, 1, 1)}),),
            }
        ): "leg 1 starts on 2020-01-01, which is past",
    }
    async with system(TRAVEL) as running:
        await running.start()
        flows = await running.place(trip, *refused)
        await running.ended()
        assert [running.ends[flow] for flow in flows] == [["reserved"], *[["rejected"]] * 5]
        why = reasons(running, TripRejected, "trip_id")
        for wanted, said in refused.items():
            assert said in why[wanted.trip_id]
        [again] = await running.place(trip)
        await running.ended()
        assert running.ends[again] == ["rejected"]
        assert reasons(running, TripRejected, "trip_id")["trip-good"] == (
            "the trip id trip-good is taken"
        )

        confirmation = a_confirmation(trip)
        twice = await running.place(confirmation, confirmation)
        strays = await running.place(
            ConfirmReservation(trip_id="trip-unheard-of", card=gateway.APPROVED),
            ConfirmReservation(trip_id="trip-unoffered", card=gateway.APPROVED),
        )
        await running.ended()
        assert sorted(running.ends[flow][0] for flow in twice) == ["confirmed", "refused"]
        assert [running.ends[flow] for flow in strays] == [["refused"]] * 2
        [later] = await running.place(confirmation)
        await running.ended()
        assert running.ends[later] == ["refused"]
        assert reasons(running, ConfirmationRejected, "trip_id") == {
            "trip-good": "the trip trip-good is confirmed already",
            "trip-unheard-of": "there is no trip trip-unheard-of",
            "trip-unoffered": "the trip trip-unoffered was rejected",
        }
        audit(running)


async def test_duplicates_change_nothing(system: SystemMaker) -> None:
    """Every command and every event comes once more, when all is over."""
    async with system(ALL) as running:
        await running.start()
        await running.place_in_turn(*mixed_flows(30))
        await running.ended()
        heard, books, mails = set(running.heard), running.books(), sorted(running.mails())
        await running.publish(*running.copies())
        # They pass through every queue behind the copies.
        last = await running.place(*mixed(2), *mixed(2, prefix="late-", conducted=True))
        await running.ended()
        audit(running)
        fresh = running.heard.keys() - heard
        assert {running.heard[one][0].flow for one in fresh} == set(last)
        now = running.books()
        assert {one: now[one] for one in books} == books
        assert set(mails) <= set(running.mails())
