"""The trips: one row for each, with its state and what it takes to book it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    insert,
    select,
    update,
)

from contracts.customers import Customer
from contracts.travel import Leg, ReserveTrip, TripReserved

State = Literal["asked", "reserved", "confirmed", "booking", "booked", "cancelled", "rejected"]

tables = MetaData()

trips = Table(
    "trips",
    tables,
    Column("trip_id", String(48), primary_key=True),
    #: asked, then reserved or rejected; confirmed, and booking where that is conducted; then booked
    #: or cancelled.
    Column("state", String(16), nullable=False),
    Column("way", String(16), nullable=False),
    Column("customer", JSON, nullable=False),
    Column("legs", JSON, nullable=False),
    Column("prices", JSON),
    Column("total", BigInteger),
    Column("reason", Text),
)

_ask = insert(trips).values(state="asked")
_find = select(trips).where(trips.c.trip_id == bindparam("id"))
_move = (
    update(trips)
    .where(trips.c.trip_id == bindparam("id"), trips.c.state == bindparam("before"))
    .values(state=bindparam("after"), reason=bindparam("why"))
)
_price = (
    update(trips)
    .where(trips.c.trip_id == bindparam("id"), trips.c.state == "asked")
    .values(state="reserved", prices=bindparam("each"), total=bindparam("sum"))
)


def state(db: Connection, trip_id: str) -> str | None:
    """How a trip stands; None if there is none."""
    row = db.execute(_find, {"id": trip_id}).one_or_none()
    return None if row is None else str(row.state)


def ask(db: Connection, wanted: ReserveTrip) -> None:
    """Enter a trip that is wanted."""
    db.execute(
        _ask,
        {
            "trip_id": wanted.trip_id,
            "way": wanted.way,
            "customer": wanted.customer.model_dump(mode="json"),
            "legs": [leg.model_dump(mode="json") for leg in wanted.legs],
        },
    )


def reserve(db: Connection, trip_id: str, prices: Iterable[int]) -> TripReserved | None:
    """Enter what a trip costs; None if it waits for no price."""
    each = list(prices)
    if not db.execute(_price, {"id": trip_id, "each": each, "sum": sum(each)}).rowcount:
        return None
    return reserved(db, trip_id)


def reserved(db: Connection, trip_id: str) -> TripReserved:
    """What is known of a trip that has its prices."""
    row = db.execute(_find, {"id": trip_id}).one()
    return TripReserved(
        trip_id=trip_id,
        customer=Customer.model_validate(row.customer),
        legs=tuple(Leg.model_validate(leg) for leg in row.legs),
        prices=tuple(row.prices),
        total=row.total,
        way=row.way,
    )


def move(
    db: Connection, trip_id: str, before: State, after: State, reason: str | None = None
) -> bool:
    """Bring a trip from one state to another; False if it is not in the one."""
    moved = db.execute(_move, {"id": trip_id, "before": before, "after": after, "why": reason})
    return moved.rowcount == 1
