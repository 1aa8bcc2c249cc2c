"""Rewards: grant points to members for what they pay; revoke them if the order dies."""

from __future__ import annotations

from choreo import Connection, Reject, Service
from contracts.orders import OrderCancelled
from contracts.payments import PaymentCaptured
from contracts.rewards import PointsGranted, PointsRevoked

from . import points

service = Service("rewards", tables=points.tables)


@service.on
def grant(paid: PaymentCaptured, db: Connection) -> PointsGranted | None:
    """Grant a member one point for each whole 1.00 paid."""
    earned = paid.amount // 100
    if not paid.customer.member or not earned:
        return None
    points.grant(db, paid.order_id, paid.customer.customer_id, earned)
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
