"""What must be true of orders, whichever way they went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from starts import Order
from system import System

from audits.ledgers import Books
from services.inventory import stock
from services.orders import book


def check(system: System, books: dict[str, Books]) -> Iterator[str]:
    """Every order is in every book as it ended."""
    state = {row["order_id"]: row["state"] for row in system.rows("orders", book.orders)}
    yield from _book(system, state)
    yield from _stock(system, state)
    yield from _outside(system, state, books)


def due(system: System) -> dict[str, int]:
    """What the fulfilled orders cost."""
    if "orders" not in system.services:
        return {}
    rows = system.rows("orders", book.orders)
    return {row["order_id"]: row["total"] for row in rows if row["state"] == "fulfilled"}


def members(system: System) -> set[str]:
    """The orders of members."""
    return {one.order_id for one, _ in _placed(system) if one.customer.member}


def _book(system: System, state: dict[str, str]) -> Iterator[str]:
    """The order book remembers the ends as they were announced."""
    accepted = {one.order_id: end for one, end in _placed(system)}
    for order_id, end in accepted.items():
        if state.get(order_id) != end:
            yield f"{order_id} is {state.get(order_id)}, announced as {end}"
    if accepted.keys() != state.keys():
        yield f"orders knows other orders than were accepted: {accepted.keys() ^ state.keys()}"


def _stock(system: System, state: dict[str, str]) -> Iterator[str]:
    """What left the shelf is what fulfilled orders took, and nothing is held any more."""
    shelf = {row["sku"]: row["on_hand"] for row in system.rows("inventory", stock.stock)}
    rows = system.rows("inventory", stock.holds)
    if held := [row["order_id"] for row in rows if row["state"] != "shipped"]:
        yield f"stock is still held for {held}"
    taken: Counter[str] = Counter()
    for row in rows:
        taken[row["sku"]] += row["quantity"]
    due: Counter[str] = Counter()
    for placed, _ in _placed(system):
        if state.get(placed.order_id) == "fulfilled":
            for line in placed.lines:
                due[line.sku] += line.quantity
    for sku, at_first in stock.ON_HAND.items():
        if shelf[sku] + taken[sku] != at_first:
            yield f"{sku}: {shelf[sku]} on hand and {taken[sku]} taken, of {at_first}"
        if taken[sku] != due[sku]:
            yield f"{sku}: {taken[sku]} were shipped, for fulfilled orders of {due[sku]}"


def _outside(system: System, state: dict[str, str], books: dict[str, Books]) -> Iterator[str]:
    """Gateway and carrier did once what belongs to the order's end, and undid the rest."""
    totals = {row["order_id"]: row["total"] for row in system.rows("orders", book.orders)}
    for order_id, end in state.items():
        did = books.get(order_id, Books())
        if end == "fulfilled":
            right = did.charges == [totals[order_id]] and not did.refunds
            right = right and len(did.bookings) == 1 and not did.recalls
            right = right and did.collections == did.bookings
        else:
            right = did.charges == did.refunds and did.charges in ([], [totals[order_id]])
            right = right and did.bookings == did.recalls and len(did.bookings) <= 1
            right = right and not did.collections
        if not right:
            yield f"{order_id} is {end}, but outside there are {did}"


def _placed(system: System) -> list[tuple[Order, str]]:
    """The orders that were not refused at the door, and how they ended."""
    return [
        (command, end)
        for flow, command in system.placed.items()
        if isinstance(command, Order)
        for end in system.ends.get(flow, ["open"])
        if end != "rejected"
    ]
