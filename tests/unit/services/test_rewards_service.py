"""Rewards: members earn one point for each whole 1.00, and lose it with the order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from service_samples import ANN, MEMBER, TEA, database
from sqlalchemy import select

from choreo import Connection, Reject
from contracts.orders import Customer, OrderCancelled
from contracts.payments import PaymentCaptured
from contracts.rewards import PointsGranted, PointsRevoked
from services.rewards import grant, points, revoke, service

CANCELLED = OrderCancelled(order_id="o-1", customer=MEMBER, reason="no road")


@pytest.fixture
def db() -> Iterator[Connection]:
    with database(service) as connection:
        yield connection


def paid(amount: int, order_id: str = "o-1", customer: Customer = MEMBER) -> PaymentCaptured:
    return PaymentCaptured(
        order_id=order_id, customer=customer, lines=TEA, payment_id="pay-1", amount=amount
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
    assert [row.order_id for row in db.execute(select(points.grants))] == ["o-2"]
    with pytest.raises(Reject, match="o-1 is cancelled, but no points stand"):
        revoke(CANCELLED, granted, db)
    assert accounts(db) == {"mia": 5}
