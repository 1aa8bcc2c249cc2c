"""Reservations: a trip is booked once it is confirmed, and once; whoever asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from service_samples import ANN, NOON, context, database

from choreo import Connection, Reject
from contracts.providers import BookLeg, QuoteTrip, TripQuoted
from contracts.travel import BookTrip, ConfirmationRejected, ConfirmReservation, Leg, ReserveTrip
from services.reservations import book, confirm, keep, reserve, service, trips

DAY = NOON.date() + timedelta(days=30)
LEGS = tuple(Leg(provider="hotel", offer=f"ROOM-{n}", start=DAY, end=DAY) for n in (1, 2))
#: What anybody may send.
BOOK = BookTrip(trip_id="t-1", customer=ANN, legs=LEGS, prices=(1, 1), card="4242")
CONFIRM = ConfirmReservation(trip_id="t-1", card="4242")


@pytest.fixture
def db() -> Iterator[Connection]:
    with database(service) as db:
        yield db


def reserved(db: Connection) -> None:
    reserve(ReserveTrip(trip_id="t-1", customer=ANN, legs=LEGS), db, context("key"))
    keep(TripQuoted(trip_id="t-1", prices=(100, 100)), db)


def test_a_confirmed_trip_is_booked_leg_by_leg(db: Connection) -> None:
    wanted = ReserveTrip(trip_id="t-1", customer=ANN, legs=LEGS)
    assert reserve(wanted, db, context("key")) == QuoteTrip(trip_id="t-1", legs=LEGS)
    keep(TripQuoted(trip_id="t-1", prices=(100, 100)), db)
    start = confirm(CONFIRM, db)
    assert isinstance(start, BookTrip)
    assert start == BOOK.model_copy(update={"prices": (100, 100)})
    assert book(start, db) == tuple(
        BookLeg(leg_id=f"t-1.{n}", trip_id="t-1", leg=LEGS[n - 1]) for n in (1, 2)
    )
    assert trips.state(db, "t-1") == "booking"


def test_a_stranger_cannot_have_a_trip_booked(db: Connection) -> None:
    with pytest.raises(Reject, match="trip t-1 is not to be booked: there is no trip t-1"):
        book(BOOK, db)
    reserved(db)
    with pytest.raises(Reject, match="not to be booked: the trip t-1 is not confirmed"):
        book(BOOK, db)
    assert trips.state(db, "t-1") == "reserved"
    start = confirm(CONFIRM, db)
    assert isinstance(start, BookTrip)
    book(start, db)
    for state in ("booking", "booked"):
        trips.move(db, "t-1", "booking", state)
        with pytest.raises(Reject, match="not to be booked: the trip t-1 is confirmed already"):
            book(BOOK, db)
        assert confirm(CONFIRM, db) == ConfirmationRejected(
            trip_id="t-1", reason="the trip t-1 is confirmed already"
        )
        assert trips.state(db, "t-1") == state


def test_a_trip_that_is_cancelled_is_not_booked(db: Connection) -> None:
    reserved(db)
    confirm(CONFIRM, db)
    trips.move(db, "t-1", "confirmed", "cancelled", "no room")
    with pytest.raises(Reject, match="not to be booked: the trip t-1 was cancelled"):
        book(BOOK, db)
