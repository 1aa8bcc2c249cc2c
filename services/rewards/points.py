"""The points: a grant for each order or trip, and for each customer the sum of those that stand."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    insert,
    update,
)

tables = MetaData()

accounts = Table(
    "accounts",
    tables,
    Column("customer_id", String(64), primary_key=True),
    Column("points", BigInteger, nullable=False),
)
grants = Table(
    "grants",
    tables,
    Column("reference", String(64), primary_key=True),  # the id of the order or trip
    Column("kind", String(16), primary_key=True),  # order or trip: their ids may be equal
    Column("customer_id", String(64), nullable=False),
    Column("points", BigInteger, nullable=False),
)

_grant = insert(grants)
_add = (
    update(accounts)
    .where(accounts.c.customer_id == bindparam("customer"))
    .values(points=accounts.c.points + bindparam("change"))
)
_open = insert(accounts)
_revoke = (
    delete(grants)
    .where(grants.c.reference == bindparam("order"), grants.c.kind == "order")
    .returning(grants.c.customer_id, grants.c.points)
)


def grant(
    db: Connection, kind: Literal["order", "trip"], reference: str, customer_id: str, earned: int
) -> None:
    """Enter a grant for an order or a trip, and add it to the customer's points."""
    db.execute(
        _grant,
        {"reference": reference, "kind": kind, "customer_id": customer_id, "points": earned},
    )
    if not db.execute(_add, {"customer": customer_id, "change": earned}).rowcount:
        db.execute(_open, {"customer_id": customer_id, "points": earned})


def revoke(db: Connection, order_id: str) -> bool:
    """Strike the order's grant and take it off the customer's points; False if none stands."""
    grant = db.execute(_revoke, {"order": order_id}).one_or_none()
    if grant is None:
        return False
    db.execute(_add, {"customer": grant.customer_id, "change": -grant.points})
    return True
