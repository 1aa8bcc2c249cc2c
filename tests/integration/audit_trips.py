"""What must be true of trips, whichever way they went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from system import System

from audits.ledgers import Books
from contracts.travel import ConfirmReservation, ReserveTrip, TripConfirmed
from sandboxes import airline, car, hotel
from services.reservations import trips

#: What reservations calls a trip that ended so.
_STATES = {"confirmed": "booked", "cancelled": "cancelled"}
_OFFERS = {"airline": airline.OFFERS, "hotel": hotel.OFFERS, "car": car.OFFERS}


def check(system: System, books: dict[str, Books]) -> Iterator[str]:
    """Every trip is in every book as it ended."""
    state = {row["trip_id"]: row["state"] for row in system.rows("reservations", trips.trips)}
    yield from _kept(system, state)
    yield from _outside(system, state, books)
    yield from _places(books)


def due(system: System) -> dict[str, int]:
    """What the confirmed trips cost."""
    if "reservations" not in system.services:
        return {}
    rows = system.rows("reservations", trips.trips)
    return {row["trip_id"]: row["total"] for row in rows if row["state"] == "booked"}


def members(system: System) -> set[str]:
    """The trips of members."""
    return {trip_id for trip_id, one in _reserved(system).items() if one.customer.member}


def _kept(system: System, state: dict[str, str]) -> Iterator[str]:
    """Reservations remembers the ends as they were announced."""
    announced = dict.fromkeys(_reserved(system), "reserved")
    for flow, command in system.placed.items():
        for end in system.ends.get(flow, []):
            if isinstance(command, ConfirmReservation) and end != "refused":
                announced[command.trip_id] = _STATES[end]
    # Some of those that were refused at the door are remembered, too.
    kept = {trip_id: one for trip_id, one in state.items() if one != "rejected"}
    for trip_id in announced.keys() | kept.keys():
        if kept.get(trip_id) != announced.get(trip_id):
            yield f"{trip_id} is {kept.get(trip_id)}, announced as {announced.get(trip_id)}"


def _outside(system: System, state: dict[str, str], books: dict[str, Books]) -> Iterator[str]:
    """Providers and gateway did once what belongs to the trip's end, and undid the rest."""
    totals = {row["trip_id"]: row["total"] for row in system.rows("reservations", trips.trips)}
    confirmed = {one.trip_id: one for one in system.messages(TripConfirmed)}
    for trip_id, trip in _reserved(system).items():
        end, did = state.get(trip_id), books.get(trip_id, Books())
        wanted = Counter((leg.provider, leg.offer) for leg in trip.legs)
        if end == "booked":
            told = confirmed[trip_id]
            right = did.offers == wanted and not did.cancellations and not did.refunds
            right = right and did.charges == [totals[trip_id]] == [told.amount]
            right = right and sorted(did.bookings) == sorted(b.booking_id for b in told.bookings)
        elif end == "cancelled":
            right = sorted(did.bookings) == sorted(did.cancellations) and did.offers <= wanted
            right = right and did.charges == did.refunds and did.charges in ([], [totals[trip_id]])
        else:
            right = did == Books()
        if not right:
            yield f"{trip_id} is {end}, but outside there are {did}"


def _places(books: dict[str, Books]) -> Iterator[str]:
    """No provider gave away more places than it has."""
    standing: Counter[tuple[str, str]] = Counter()
    for did in books.values():
        standing.update(did.standing)
    for (provider, offer), taken in standing.items():
        if not 0 <= taken <= _OFFERS[provider][offer].places:
            yield f"{taken} places of {provider} {offer} are taken"


def _reserved(system: System) -> dict[str, ReserveTrip]:
    """The trips that were not refused at the door."""
    return {
        command.trip_id: command
        for flow, command in system.placed.items()
        if isinstance(command, ReserveTrip) and system.ends.get(flow) != ["rejected"]
    }
