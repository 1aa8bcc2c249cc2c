"""The order book: the price list, and one row for each order with its state.

sku       price
TEA-1      4.50
MUG-1     12.00
BOOK-1    25.00
RARE-1    99.00
"""

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
from contracts.orders import Line

PRICES = {"TEA-1": 450, "MUG-1": 1200, "BOOK-1": 2500, "RARE-1": 9900}

tables = MetaData()

catalogue = Table(
    "catalogue",
    tables,
    Column("sku", String(64), primary_key=True),
    Column("price", BigInteger, nullable=False),
)
orders = Table(
    "orders",
    tables,
    Column("order_id", String(64), primary_key=True),
    Column("state", String(16), nullable=False),  # open, then fulfilled or cancelled
    Column("customer", JSON, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("reason", Text),
)

_seeded = select(catalogue.c.sku)
_seed = insert(catalogue)
_known = select(orders.c.order_id).where(orders.c.order_id == bindparam("id"))
_prices = select(catalogue.c.sku, catalogue.c.price).where(
    catalogue.c.sku.in_(bindparam("skus", expanding=True))
)
_open = insert(orders).values(state="open")
_close = (
    update(orders)
    .where(orders.c.order_id == bindparam("id"), orders.c.state == "open")
    .values(state=bindparam("end"), reason=bindparam("why"))
    .returning(orders.c.customer)
)


def seed(db: Connection) -> None:
    """Enter the articles that are absent; a price that was changed stays."""
    seeded = set(db.scalars(_seeded))
    absent = [{"sku": sku, "price": price} for sku, price in PRICES.items() if sku not in seeded]
    if absent:
        db.execute(_seed, absent)


def knows(db: Connection, order_id: str) -> bool:
    """Tell whether an order of this id was ever opened."""
    return db.scalar(_known, {"id": order_id}) is not None


def prices(db: Connection, lines: Iterable[Line]) -> dict[str, int]:
    """Look up the prices, in cents, of those articles that are in the catalogue."""
    skus = list({line.sku for line in lines})
    return dict(db.execute(_prices, {"skus": skus}).all())


def open_order(db: Connection, order_id: str, customer: Customer, total: int) -> None:
    """Enter an order as open."""
    db.execute(_open, {"order_id": order_id, "customer": customer.model_dump(), "total": total})


def close(
    db: Connection,
    order_id: str,
    end: Literal["fulfilled", "cancelled"],
    reason: str | None = None,
) -> Customer | None:
    """End an open order and tell whose it is; None if it has ended already, or never began."""
    customer = db.scalar(_close, {"id": order_id, "end": end, "why": reason})
    return None if customer is None else Customer.model_validate(customer)
