"""The shelves: what is on hand, and what is held for orders or shipped.

    sku         on hand at first
    TEA-1              1,000,000
    MUG-1              1,000,000
    BOOK-1             1,000,000
    RARE-1                     3

For every article, on hand + held + shipped never changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from contracts.inventory import Missing
from contracts.orders import Line

ON_HAND = {"TEA-1": 1_000_000, "MUG-1": 1_000_000, "BOOK-1": 1_000_000, "RARE-1": 3}

tables = MetaData()

stock = Table(
    "stock",
    tables,
    Column("sku", String(64), primary_key=True),
    Column("on_hand", BigInteger, CheckConstraint("on_hand >= 0"), nullable=False),
)
holds = Table(
    "holds",
    tables,
    Column("order_id", String(64), primary_key=True),
    Column("sku", String(64), primary_key=True),
    Column("quantity", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),  # held, then shipped; given back: no row
)

_seeded = select(stock.c.sku)
_seed = insert(stock)
_on_hand = (
    select(stock.c.sku, stock.c.on_hand)
    .where(stock.c.sku.in_(bindparam("skus", expanding=True)))
    .order_by(stock.c.sku)
    .with_for_update()
)
_move = (
    update(stock)
    .where(stock.c.sku == bindparam("article"))
    .values(on_hand=stock.c.on_hand + bindparam("change"))
)
_hold = insert(holds).values(state="held")
_held = (holds.c.order_id == bindparam("order"), holds.c.state == "held")
_give_back = delete(holds).where(*_held).returning(holds.c.sku, holds.c.quantity)
_ship = update(holds).where(*_held).values(state="shipped")


def seed(db: Connection) -> None:
    """Enter the articles that are absent; those that are there keep what they have."""
    seeded = set(db.scalars(_seeded))
    absent = [{"sku": sku, "on_hand": many} for sku, many in ON_HAND.items() if sku not in seeded]
    if absent:
        db.execute(_seed, absent)


def hold(db: Connection, order_id: str, lines: Iterable[Line]) -> tuple[Missing, ...]:
    """Hold every line; if there is too little of any article, hold nothing and name each."""
    wanted: Counter[str] = Counter()
    for line in lines:
        wanted[line.sku] += line.quantity
    on_hand = dict(db.execute(_on_hand, {"skus": list(wanted)}).all())
    missing = tuple(
        Missing(sku=sku, wanted=many, available=on_hand.get(sku, 0))
        for sku, many in wanted.items()
        if many > on_hand.get(sku, 0)
    )
    if not missing:
        db.execute(_move, [{"article": sku, "change": -many} for sku, many in wanted.items()])
        db.execute(
            _hold,
            [{"order_id": order_id, "sku": sku, "quantity": many} for sku, many in wanted.items()],
        )
    return missing


def give_back(db: Connection, order_id: str) -> bool:
    """Put what the order holds back on the shelf; False if it holds nothing."""
    held = db.execute(_give_back, {"order": order_id}).all()
    if held:
        db.execute(_move, [{"article": sku, "change": many} for sku, many in held])
    return bool(held)


def ship(db: Connection, order_id: str) -> bool:
    """Mark what the order holds as shipped; False if it holds nothing."""
    return db.execute(_ship, {"order": order_id}).rowcount > 0
