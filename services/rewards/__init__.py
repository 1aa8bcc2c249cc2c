"""Rewards: grant points to members for what they pay; revoke them if the order dies."""

from __future__ import annotations

from choreo import Connection, Reject, Service
from contracts.orders import OrderCancelled, OrderPaid
from contracts.payments import PaymentCaptured
from contracts.rewards import PointsGranted, PointsRevoked, TripPointsGranted
from contracts.travel import TripConfirmed

from . import points

service = Service("rewards", tables=points.tables)


@service.on
def grant(paid: PaymentCaptured | OrderPaid, db: Connection) -> PointsGranted | None:
    """Grant a member one point for each whole 1.00 paid."""
    earned = _earned(paid)
    if not earned:
        return None
    points.grant(db, "order", paid.order_id, paid.customer.customer_id, earned)
    return PointsGranted(
        order_id=paid.order_id, customer_id=paid.customer.customer_id, points=earned
    )


@grant.undo
def revoke(cause: OrderCancelled, granted: PointsGranted, db: Connection) -> PointsRevoked:
    """Take the points of the order back."""
    if not points.revoke(db, granted.order_id):
        raise Reject(f"order {granted.order_id} is cancelled, but no points stand for it")
    return PointsRevoked(
        order_id=granted.order_id, customer_id=granted.customer_id, points=granted.points
    )


@service.on(final="a confirmed trip stays confirmed")
def grant_trip(confirmed: TripConfirmed, db: Connection) -> TripPointsGranted | None:
    """Grant a member one point for each whole 1.00 that the trip costs."""
    earned = _earned(confirmed)
    if not earned:
        return None
    customer_id = confirmed.customer.customer_id
    points.grant(db, "trip", confirmed.trip_id, customer_id, earned)
    return TripPointsGranted(trip_id=confirmed.trip_id, customer_id=customer_id, points=earned)


def _earned(paid: PaymentCaptured | OrderPaid | TripConfirmed) -> int:
    return paid.amount // 100 if paid.customer.member else 0
