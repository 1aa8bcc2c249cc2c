"""Rewards: members earn one point for each whole 1.00, and lose it with the order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from service_samples import ANN, MEMBER, TEA, database
from sqlalchemy import select

from choreo import Connection, Reject
from contracts.customers import Customer
from contracts.orders import OrderCancelled, OrderPaid
from contracts.payments import PaymentCaptured
from contracts.rewards import PointsGranted, PointsRevoked, TripPointsGranted
from contracts.travel import TripConfirmed
from services.rewards import grant, grant_trip, points, revoke, service

CANCELLED = OrderCancelled(order_id="o-1", customer=MEMBER, reason="no road")


@pytest.fixture
def db() -> Iterator[Connection]:
    with database(service) as connection:
        yield connection


def paid(amount: int, order_id: str = "o-1", customer: Customer = MEMBER) -> PaymentCaptured:
    return PaymentCaptured(
        order_id=order_id, customer=customer, lines=TEA, payment_id="pay-1", amount=amount
    )


def confirmed(amount: int, customer: Customer = MEMBER) -> TripConfirmed:
    # Its id may well be that of an order.
    return TripConfirmed(
        trip_id="o-1", customer=customer, bookings=(), payment_id="pay-2", amount=amount
    )


def accounts(db: Connection) -> dict[str, int]:
    return dict(db.execute(select(points.accounts)).all())


def test_a_member_earns_a_point_for_each_whole_unit(db: Connection) -> None:
    assert grant(paid(1299), db) == PointsGranted(order_id="o-1", customer_id="mia", points=12)
    assert grant(paid(100, "o-2"), db) == PointsGranted(order_id="o-2", customer_id="mia", points=1)
    assert accounts(db) == {"mia": 13}


def test_nothing_for_strangers_and_for_small_change(db: Connection) -> None:
    assert grant(paid(1299, customer=ANN), db) is None
    assert grant(paid(99), db) is None
    assert accounts(db) == {}


def test_a_cancelled_order_loses_its_own_points_only(db: Connection) -> None:
    granted = grant(paid(1299), db)
    grant(paid(500, "o-2"), db)
    assert granted is not None
    assert revoke(CANCELLED, granted, db) == PointsRevoked(
        order_id="o-1", customer_id="mia", points=12
    )
    assert accounts(db) == {"mia": 5}
    assert [row.reference for row in db.execute(select(points.grants))] == ["o-2"]
    with pytest.raises(Reject, match="o-1 is cancelled, but no points stand"):
        revoke(CANCELLED, granted, db)
    assert accounts(db) == {"mia": 5}


def test_a_conducted_order_earns_and_loses_points_alike(db: Connection) -> None:
    order = OrderPaid(order_id="o-1", customer=MEMBER, lines=TEA, amount=1299)
    granted = grant(order, db)
    assert granted == PointsGranted(order_id="o-1", customer_id="mia", points=12)
    assert grant(order.model_copy(update={"customer": ANN}), db) is None
    revoke(CANCELLED, granted, db)
    assert accounts(db) == {"mia": 0}


def test_a_confirmed_trip_earns_a_member_points_that_stay(db: Connection) -> None:
    granted = grant(paid(1299), db)
    assert granted is not None
    assert grant_trip(confirmed(12_050), db) == TripPointsGranted(
        trip_id="o-1", customer_id="mia", points=120
    )
    revoke(CANCELLED, granted, db)
    assert accounts(db) == {"mia": 120}
    assert [(row.reference, row.kind) for row in db.execute(select(points.grants))] == [
        ("o-1", "trip")
    ]
    assert grant_trip.final


def test_a_trip_of_strangers_or_for_small_change_earns_nothing(db: Connection) -> None:
    assert grant_trip(confirmed(12_050, customer=ANN), db) is None
    assert grant_trip(confirmed(99), db) is None
    assert accounts(db) == {}
