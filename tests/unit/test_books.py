"""The demo's checks: they pass over true books, and each false entry is found by the right one."""

from __future__ import annotations

import importlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from entries import entry

from choreo.contract import Message, subject_of
from choreo.tree import Flow
from contracts.notifications import EmailSent
from contracts.orders import Customer, Line, OrderCancelled, OrderFulfilled, PlaceOrder
from contracts.payments import PaymentCaptured, PaymentRefunded
from contracts.shipping import ShipmentBooked
from sandboxes.ledger import Effect, Ledger
from services.inventory import stock
from services.orders import book
from services.rewards import points

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def books_module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("books")


def order(identifier: str) -> PlaceOrder:
    customer = Customer(customer_id="c", email="c@example.org", address="here", member=True)
    lines = (Line(sku="TEA-1", quantity=2),)
    return PlaceOrder(order_id=identifier, customer=customer, card="4242-4242", lines=lines)


def flow_of(*events: Message) -> Flow:
    flow = Flow("f")
    for number, event in enumerate(events):
        body = event.model_dump(mode="json")
        wire_type = event.__address__.wire_type
        flow.add(entry(str(number), wire_type=wire_type, subject=subject_of(event), body=body))
    return flow


def paid(order: PlaceOrder) -> PaymentCaptured:
    return PaymentCaptured(
        order_id=order.order_id, customer=order.customer, lines=order.lines, payment_id="p",
        amount=900,
    )  # fmt: skip


def mailed(order: PlaceOrder) -> EmailSent:
    return EmailSent(order_id=order.order_id, to=order.customer.email, subject_line="hello")


GOOD, BAD = order("order-good"), order("order-bad")
PLACED = (
    (
        GOOD,
        flow_of(
            paid(GOOD),
            ShipmentBooked(order_id="order-good", shipment_id="s"),
            OrderFulfilled(order_id="order-good", shipment_id="s"),
            mailed(GOOD),
        ),
    ),
    (
        BAD,
        flow_of(
            paid(BAD),
            OrderCancelled(order_id="order-bad", customer=BAD.customer, reason="no carrier"),
            PaymentRefunded(order_id="order-bad", payment_id="p", amount=900),
            mailed(BAD),
            mailed(BAD),
        ),
    ),
)


@pytest.fixture
def books(tmp_path: Path, books_module: Any) -> Any:
    """True books of one fulfilled order and one that died after it was paid."""
    tables = {"inventory": stock.tables, "orders": book.tables, "rewards": points.tables}
    for name, metadata in tables.items():
        engine = sa.create_engine(f"sqlite:///{tmp_path / name}.db")
        metadata.create_all(engine)
        engine.dispose()
    write(tmp_path, "inventory", "INSERT INTO stock VALUES ('TEA-1', 10)")
    for name, effects in {
        "gateway": (
            Effect("charge", "1", "order-good", "p1", 900),
            Effect("charge", "2", "order-bad", "p2", 900),
            Effect("refund", "3", "order-bad", "p2", 900),
        ),
        "carrier": (
            Effect("booking", "4", "order-good", "s1"),
            Effect("collection", "5", "order-good", "s1"),
        ),
    }.items():
        with closing(Ledger(tmp_path / f"{name}.db")) as ledger:
            for effect in effects:
                ledger.record(effect)
    books = books_module.Books(tmp_path)
    write(tmp_path, "inventory", "UPDATE stock SET on_hand = 8")
    write(tmp_path, "inventory", "INSERT INTO holds VALUES ('order-good', 'TEA-1', 2, 'shipped')")
    for identifier, state in (("order-good", "fulfilled"), ("order-bad", "cancelled")):
        row = f"'{identifier}', '{state}', '{{}}', 900, NULL"
        write(tmp_path, "orders", f"INSERT INTO orders VALUES ({row})")
    write(tmp_path, "rewards", "INSERT INTO accounts VALUES ('c', 9)")
    write(tmp_path, "rewards", "INSERT INTO grants VALUES ('order-good', 'c', 9)")
    (tmp_path / "mail").mkdir()
    for number, identifier in enumerate(("order-good", "order-bad", "order-bad")):
        (tmp_path / "mail" / f"{number}.eml").write_text(f"Subject: Your order {identifier}: ...\n")
    return books


def write(var: Path, name: str, statement: str) -> None:
    with closing(sqlite3.connect(var / f"{name}.db")) as db, db:
        assert db.execute(statement).rowcount == 1, statement


#: A doubled charge, under another key.
TWICE = (
    "INSERT INTO effects SELECT 9, at, kind, 'other', order_id, reference, amount "
    "FROM effects WHERE id = 1"
)


def test_true_books_pass(books: Any) -> None:
    checks = books.check(PLACED)
    assert [check.what for check in checks] == [
        "orders", "stock of TEA-1", "money", "points", "parcels", "mails",
    ]  # fmt: skip
    assert [check for check in checks if not check.is_right] == []


@pytest.mark.parametrize(
    ("name", "statement", "found_by"),
    [
        ("orders", "UPDATE orders SET state = 'open' WHERE order_id = 'order-bad'", "orders"),
        ("inventory", "UPDATE stock SET on_hand = 9", "stock of TEA-1"),
        ("inventory", "UPDATE holds SET state = 'held'", "stock of TEA-1"),
        ("gateway", "DELETE FROM effects WHERE kind = 'refund'", "money"),
        ("gateway", TWICE, "money"),
        ("rewards", "UPDATE grants SET order_id = 'order-bad'", "points"),
        ("rewards", "UPDATE accounts SET points = 18", "points"),
        ("carrier", "UPDATE effects SET order_id = 'order-bad' WHERE id = 2", "parcels"),
        ("carrier", "DELETE FROM effects WHERE kind = 'booking'", "parcels"),
    ],
)  # fmt: skip
def test_a_false_entry_is_found(
    books: Any, tmp_path: Path, name: str, statement: str, found_by: str
) -> None:
    write(tmp_path, name, statement)
    assert [check.what for check in books.check(PLACED) if not check.is_right] == [found_by]


def test_a_mail_too_few_is_found(books: Any, tmp_path: Path) -> None:
    (tmp_path / "mail" / "0.eml").unlink()
    assert [check.what for check in books.check(PLACED) if not check.is_right] == ["mails"]
