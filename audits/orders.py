"""What must be true of orders, whichever way they went: in every book as they ended."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from audits import ledgers
from audits.ledgers import Books
from choreo.audit import Evidence, Finding
from contracts.orders import OrderCancelled, OrderFulfilled, OrderOpened, OrderPaid, OrderPlaced
from services.inventory import stock as shelves
from services.orders import book

_STATES = {
    OrderFulfilled.__address__.wire_type: "fulfilled",
    OrderCancelled.__address__.wire_type: "cancelled",
}


@dataclass(frozen=True, slots=True)
class Order:
    """An order whose flow has ended."""

    order_id: str
    flow: str
    #: What the order book says of it.
    row: dict[str, Any]
    #: How often each article was wanted; empty where that was not announced.
    lines: Counter[str]
    #: The states that were announced.
    announced: tuple[str, ...]

    @property
    def is_fulfilled(self) -> bool:
        """Whether it ended well."""
        return bool(self.row["state"] == "fulfilled")


def ended(evidence: Evidence) -> Iterator[Order]:
    """The orders that were accepted, and whose flows have ended."""
    rows = {row["order_id"]: row for row in evidence.rows("orders", book.orders)}
    placed, opened = list(evidence.of(OrderPlaced)), evidence.of(OrderOpened)
    accepted = [(one.order_id, message) for message, one in placed]
    accepted += [(one.order_id, message) for message, one in opened]
    wanted = [(one.order_id, one.lines) for _, one in placed]
    wanted += [(one.order_id, one.lines) for _, one in evidence.of(OrderPaid)]
    lines: dict[str, Counter[str]] = defaultdict(Counter)
    for order_id, articles in wanted:
        lines[order_id].update({line.sku: line.quantity for line in articles})
    for order_id, message in accepted:
        flow = evidence.ended.get(message.envelope.flow)
        if flow is not None:
            yield Order(
                order_id,
                flow.id,
                rows.get(order_id, {"state": "not in the book", "total": None}),
                lines[order_id],
                tuple(
                    _STATES[it.envelope.type]
                    for it in flow.announced
                    if it.envelope.type in _STATES
                ),
            )


def orders(evidence: Evidence) -> Iterator[Finding]:
    """The order book says what was announced, and the outside world did once what belongs to it."""
    books = ledgers.kept(evidence)
    outside = ledgers.is_here(evidence, "gateway", "carrier")
    for one in ended(evidence):
        state = one.row["state"]
        if one.announced != (state,):
            announced = " and ".join(one.announced) or "nothing"
            yield _wrong(one, "orders", f"is {state}, and announced as {announced}")
        did = books.get(one.order_id, Books())
        if outside and not _is_right(one, did):
            yield _wrong(one, "orders", f"is {state}, but outside there are {did}")


def _is_right(one: Order, did: Books) -> bool:
    """Whether gateway and carrier did once what belongs to the order's end, and undid the rest."""
    total = one.row["total"]
    if one.is_fulfilled:
        paid = did.charges == [total] and not did.refunds
        sent = len(did.bookings) == 1 and not did.recalls and did.collections == did.bookings
        return paid and sent
    paid = did.charges == did.refunds and did.charges in ([], [total])
    return paid and did.bookings == did.recalls and len(did.bookings) <= 1 and not did.collections


def stock(evidence: Evidence) -> Iterator[Finding]:
    """Nothing vanishes from the shelves, and what left them is what fulfilled orders took."""
    if "inventory" not in evidence.kept:
        return
    shelf, held = evidence.reading("inventory", _shelves)
    taken: Counter[str] = Counter()
    of_order: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in held:
        taken[row.sku] += row.quantity
        of_order[row.order_id, row.state][row.sku] += row.quantity
    for sku, on_hand in shelf.items():
        if on_hand + taken[sku] != shelves.ON_HAND.get(sku):
            yield Finding(
                "stock",
                f"{sku}: {on_hand} on hand and {taken[sku]} held or shipped, of "
                f"{shelves.ON_HAND.get(sku)}",
                handler="inventory",
            )
    for one in ended(evidence):
        if still := of_order.get((one.order_id, "held")):
            yield _wrong(one, "inventory", f"is {one.row['state']}, and still holds {dict(still)}")
        shipped = of_order.get((one.order_id, "shipped"), Counter())
        if shipped != (one.lines if one.is_fulfilled else Counter()):
            yield _wrong(one, "inventory", f"is {one.row['state']}, and shipped {dict(shipped)}")


def _shelves(db: sa.Connection) -> tuple[dict[str, int], list[Any]]:
    """What is on hand, and every hold, as they are at one moment."""
    stock_rows = db.execute(sa.select(shelves.stock)).all()
    return {row.sku: row.on_hand for row in stock_rows}, list(db.execute(sa.select(shelves.holds)))


def _wrong(one: Order, service: str, what: str) -> Finding:
    return Finding("order", f"{one.order_id} {what}", flow=one.flow, handler=service)
