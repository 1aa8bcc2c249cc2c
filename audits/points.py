"""Points stand for the orders and trips of members that ended well, one for each whole 1.00."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from audits.orders import ended as ended_orders
from audits.trips import ended as ended_trips
from choreo.audit import Evidence, Finding
from services.rewards import points as table


def points(evidence: Evidence) -> Iterator[Finding]:
    """Every grant is earned, and every account is the sum of its grants."""
    if "rewards" not in evidence.kept:
        return
    grants, accounts = evidence.reading("rewards", _books)
    granted = {(row.kind, row.reference): row.points for row in grants}
    for kind, reference, flow, earned in _earned(evidence):
        found = granted.get((kind, reference), 0)
        if found != earned:
            yield Finding(
                "points",
                f"{kind} {reference} has {found} points, and earned {earned}",
                flow=flow,
                handler="rewards",
            )
    sums: Counter[str] = Counter()
    for row in grants:
        sums[row.customer_id] += row.points
    for row in accounts:
        if row.points != sums[row.customer_id]:
            yield Finding(
                "points",
                f"{row.customer_id} has {row.points} points, and was granted "
                f"{sums[row.customer_id]}",
                handler="rewards",
            )


def _earned(evidence: Evidence) -> Iterator[tuple[str, str, str, int]]:
    for order in ended_orders(evidence):
        earns = order.is_fulfilled and order.row["customer"]["member"]
        yield "order", order.order_id, order.flow, order.row["total"] // 100 if earns else 0
    for trip in ended_trips(evidence):
        earns = trip.confirmed and trip.reserved.customer.member
        yield "trip", trip.trip_id, trip.flow, trip.reserved.total // 100 if earns else 0


def _books(db: sa.Connection) -> tuple[list[Any], list[Any]]:
    """Grants and accounts as they are at one moment."""
    return list(db.execute(sa.select(table.grants))), list(db.execute(sa.select(table.accounts)))
