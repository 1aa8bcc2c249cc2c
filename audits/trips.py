"""What must be true of trips, whichever way they went: in every book as they ended."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from audits import ledgers
from audits.ledgers import Books
from choreo.audit import Evidence, Finding
from contracts.travel import (
    ReservationConfirmed,
    TripCancelled,
    TripConfirmed,
    TripReserved,
)
from sandboxes import airline, car, hotel
from services.reservations import trips as table

_OFFERS = {"airline": airline.OFFERS, "hotel": hotel.OFFERS, "car": car.OFFERS}


@dataclass(slots=True)
class Trip:
    """A trip that was reserved, all of whose flows have ended."""

    trip_id: str
    #: The last of its flows.
    flow: str
    #: What reservations says of it.
    row: dict[str, Any]
    reserved: TripReserved
    confirmed: list[TripConfirmed] = field(default_factory=list)
    cancelled: list[TripCancelled] = field(default_factory=list)

    @property
    def announced(self) -> str:
        """The state that was announced."""
        if self.confirmed:
            return "booked"
        return "cancelled" if self.cancelled else "reserved"


def ended(evidence: Evidence) -> Iterator[Trip]:
    """The trips that nothing is to happen with any more, as far as anybody asked."""
    rows = {row["trip_id"]: row for row in evidence.rows("reservations", table.trips)}
    flows: dict[str, list[str]] = defaultdict(list)
    found: dict[str, Trip] = {}
    for message, one in evidence.of(TripReserved):
        flows[one.trip_id].append(message.envelope.flow)
        row = rows.get(one.trip_id, {"state": "not in the book", "total": None})
        found[one.trip_id] = Trip(one.trip_id, message.envelope.flow, row, one)
    for message, confirmed in evidence.of(TripConfirmed):
        flows[confirmed.trip_id].append(message.envelope.flow)
        if confirmed.trip_id in found:
            found[confirmed.trip_id].confirmed.append(confirmed)
    for message, cancelled in evidence.of(TripCancelled):
        flows[cancelled.trip_id].append(message.envelope.flow)
        if cancelled.trip_id in found:
            found[cancelled.trip_id].cancelled.append(cancelled)
    for message, begun in evidence.of(ReservationConfirmed):
        flows[begun.trip_id].append(message.envelope.flow)
    for trip in found.values():
        trip.flow = flows[trip.trip_id][-1]
        # One that was confirmed since is not at its end, though nothing of that is known here.
        moved = trip.announced == "reserved" != trip.row["state"] and not evidence.is_settled
        if not moved and all(flow in evidence.ended for flow in flows[trip.trip_id]):
            yield trip


def trips(evidence: Evidence) -> Iterator[Finding]:
    """Reservations says what was announced, and the outside world did once what belongs to it."""
    books = ledgers.kept(evidence)
    outside = ledgers.is_here(evidence, "gateway", "airline", "hotel", "car")
    for one in ended(evidence):
        state = one.row["state"]
        if state != one.announced or len(one.confirmed) + len(one.cancelled) > 1:
            yield _wrong(one, "reservations", f"is {state}, and announced as {one.announced}")
        did = books.get(one.trip_id, Books())
        if outside and not _is_right(one, did):
            yield _wrong(one, "providers", f"is {state}, but outside there are {did}")


def _is_right(one: Trip, did: Books) -> bool:
    """Whether providers and gateway did once what belongs to the end, and undid the rest."""
    total = one.row["total"]
    wanted = Counter((leg.provider, leg.offer) for leg in one.reserved.legs)
    if one.confirmed:
        told = one.confirmed[0]
        paid = did.charges == [total] == [told.amount] and not did.refunds
        booked = did.offers == wanted and not did.cancellations
        same = sorted(did.bookings) == sorted(booking.booking_id for booking in told.bookings)
        return paid and booked and same
    if one.cancelled:
        paid = did.charges == did.refunds and did.charges in ([], [total])
        return paid and sorted(did.bookings) == sorted(did.cancellations) and did.offers <= wanted
    return did == Books()


def places(evidence: Evidence) -> Iterator[Finding]:
    """No provider gave away more places than it has."""
    standing: Counter[tuple[str, str]] = Counter()
    for did in ledgers.kept(evidence).values():
        for offer, many in did.standing.items():
            standing[offer] += many
    for (provider, name), taken in standing.items():
        offered = _OFFERS[provider].get(name)
        if offered is None or not 0 <= taken <= offered.places:
            yield Finding("places", f"{taken} places of {provider} {name} are taken",
                          handler="providers")  # fmt: skip


def _wrong(one: Trip, service: str, what: str) -> Finding:
    return Finding("trip", f"{one.trip_id} {what}", flow=one.flow, handler=service)
