"""Reads the books of a system at rest, inside and outside, and checks that they agree."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ordering

from choreo.tree import Flow
from contracts.orders import PlaceOrder

_STOCK = """
SELECT sku, on_hand,
       coalesce((SELECT sum(quantity) FROM holds WHERE sku = stock.sku AND state = 'held'), 0),
       coalesce((SELECT sum(quantity) FROM holds WHERE sku = stock.sku AND state = 'shipped'), 0)
FROM stock
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold: what the books say, and what they must say."""

    what: str
    found: str
    must_be: str

    @property
    def is_right(self) -> bool:
        """Whether it holds."""
        return self.found == self.must_be


class Books:
    """The databases of the services, the ledgers of gateway and carrier, and the mails."""

    def __init__(self, var: Path) -> None:
        """Note what is in stock before anybody orders."""
        self._var = var
        self._before = self._stock()

    def check(self, placed: Sequence[tuple[PlaceOrder, Flow]]) -> list[Check]:
        """Compare the books with these orders, which must be all that ever were."""
        orders = [order for order, _ in placed]
        flows = [flow for _, flow in placed]
        fulfilled = {o.order_id for o, flow in placed if ordering.outcome_of(flow) == "fulfilled"}
        return [
            self._check_orders(flows),
            *self._check_stock(orders, fulfilled),
            self._check_money(flows, fulfilled),
            self._check_points(orders, fulfilled),
            self._check_parcels(flows, fulfilled),
            self._check_mails(orders, flows),
        ]

    def _check_orders(self, flows: Iterable[Flow]) -> Check:
        found = Counter(state for (state,) in self._rows("orders", "SELECT state FROM orders"))
        must_be = Counter(map(ordering.outcome_of, flows))
        return Check("orders", _counted(found), _counted(must_be))

    def _check_stock(self, orders: Sequence[PlaceOrder], fulfilled: set[str]) -> list[Check]:
        shipped: Counter[str] = Counter()
        for order in orders:
            for line in order.lines:
                shipped[line.sku] += line.quantity * (order.order_id in fulfilled)
        now = self._stock()
        return [
            Check(
                f"stock of {sku}",
                _stock(*now[sku]),
                _stock(self._before[sku][0] - many, 0, self._before[sku][2] + many),
            )
            for sku, many in shipped.items()
        ]

    def _check_money(self, flows: Sequence[Flow], fulfilled: set[str]) -> Check:
        """Each charge and refund that was announced was made once; what is left is earned."""
        ledger = dict(self._rows("gateway", "SELECT kind, sum(amount) FROM effects GROUP BY kind"))
        charged, refunded = ledger.get("charge", 0), ledger.get("refund", 0)
        earned = sum(
            total
            for order_id, total in self._rows("orders", "SELECT order_id, total FROM orders")
            if order_id in fulfilled
        )
        captured = sum(one["amount"] for one in _bodies(flows, "payments.captured.v1"))
        returned = sum(one["amount"] for one in _bodies(flows, "payments.refunded.v1"))
        return Check(
            "money",
            _money(charged, refunded, charged - refunded),
            _money(captured, returned, earned),
        )

    def _check_points(self, orders: Sequence[PlaceOrder], fulfilled: set[str]) -> Check:
        grants = dict(self._rows("rewards", "SELECT order_id, points FROM grants"))
        ((accounts,),) = self._rows("rewards", "SELECT coalesce(sum(points), 0) FROM accounts")
        totals = dict(self._rows("orders", "SELECT order_id, total FROM orders"))
        earned = {
            order.order_id: totals[order.order_id] // 100
            for order in orders
            if order.customer.member and order.order_id in fulfilled
        }
        return Check("points", _points(grants, accounts), _points(earned, sum(earned.values())))

    def _check_parcels(self, flows: Sequence[Flow], fulfilled: set[str]) -> Check:
        """Nothing is collected for a cancelled order, and no booking is left over."""
        ledger = self._rows("carrier", "SELECT kind, order_id FROM effects ORDER BY order_id")
        kinds = Counter(kind for kind, _ in ledger)
        collected = [order_id for kind, order_id in ledger if kind == "collection"]
        return Check(
            "parcels",
            _parcels(kinds["booking"], kinds["recall"], collected),
            _parcels(
                len(_bodies(flows, "shipping.booked.v1")),
                len(_bodies(flows, "shipping.recalled.v1")),
                sorted(fulfilled),
            ),
        )

    def _check_mails(self, orders: Sequence[PlaceOrder], flows: Sequence[Flow]) -> Check:
        mails = [path.read_text() for path in (self._var / "mail").glob("*.eml")]
        sent = [one["order_id"] for one in _bodies(flows, "notifications.email_sent.v1")]
        return Check(
            "mails",
            _mails(sum(order.order_id in mail for mail in mails) for order in orders),
            _mails(sent.count(order.order_id) for order in orders),
        )

    def _stock(self) -> dict[str, tuple[int, int, int]]:
        return {
            sku: (on_hand, held, out) for sku, on_hand, held, out in self._rows("inventory", _STOCK)
        }

    def _rows(self, name: str, query: str) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self._var / name}.db?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()


def _bodies(flows: Iterable[Flow], wire_type: str) -> list[dict[str, Any]]:
    return [
        entry.body
        for flow in flows
        for entry in flow.entries.values()
        if entry.envelope.type == wire_type
    ]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{many} {what}" for what, many in sorted(counts.items()))


def _stock(on_hand: int, held: int, shipped: int) -> str:
    every = on_hand + held + shipped
    return f"{on_hand} on hand + {held} held + {shipped} shipped = {every}"


def _money(charged: int, refunded: int, kept: int) -> str:
    return f"{charged / 100:.2f} charged - {refunded / 100:.2f} refunded = {kept / 100:.2f} kept"


def _points(by_order: dict[str, int], accounts: int) -> str:
    grants = ", ".join(f"{points} for {order_id}" for order_id, points in sorted(by_order.items()))
    return f"{grants or 'none'}; {accounts} on accounts"


def _parcels(booked: int, recalled: int, collected: list[str]) -> str:
    return f"{booked} booked, {recalled} recalled, collected for {', '.join(collected) or 'nobody'}"


def _mails(many: Iterable[int]) -> str:
    return f"one order after the other: {', '.join(map(str, many))}"
