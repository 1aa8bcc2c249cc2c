"""The demo's checks: they pass over true books, and each false entry is found by the right one."""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from entries import entry

from choreo import Command, Connection, Context, Event
from choreo.contract import subject_of
from choreo.envelope import moment
from choreo.store import tables
from choreo.tree import Flow
from contracts.accounts import AccountRegistered, Preference, RegisterAccount
from contracts.customers import Customer
from contracts.notifications import EmailSent
from contracts.orders import Line, OrderCancelled, OrderFulfilled, PlaceOrder, ProcessOrder
from contracts.payments import PaymentCaptured, PaymentRefunded, PaymentTaken
from contracts.providers import LegBooked, LegCancelled, LegRefused
from contracts.shipping import ShipmentArranged
from contracts.travel import (
    Booking,
    ConfirmReservation,
    Leg,
    ReserveTrip,
    TripCancelled,
    TripConfirmed,
    TripReserved,
)
from sandboxes.ledger import Effect, Ledger
from services.audit import chain
from services.crm import customers
from services.inventory import stock
from services.orders import book
from services.reservations import trips
from services.rewards import points

SCRIPTS = Path(__file__).parents[2] / "scripts"

ANN = Customer(customer_id="ann", email="ann@example.org", address="here", member=True)
TEA = (Line(sku="TEA-1", quantity=2),)
GOOD = ProcessOrder(order_id="order-good", customer=ANN, card="4242-4242", lines=TEA)
BAD = PlaceOrder(order_id="order-bad", customer=ANN, card="4242-4242", lines=TEA)
WISH = Preference(provider="airline", name="seat", value="aisle")
ACCOUNT = {"name": "Ann", "preferences": (WISH,), **ANN.model_dump()}


def trip(name: str, room: str) -> ReserveTrip:
    days = {"start": date(2030, 5, 1), "end": date(2030, 5, 8)}
    legs = (
        Leg(provider="airline", offer="ROME-1", **days),
        Leg(provider="hotel", offer=room, **days),
    )
    return ReserveTrip(trip_id=name, customer=ANN, legs=legs)


SUN, RAIN = trip("trip-sun", "ROOM-1"), trip("trip-rain", "ROOM-NEVER")


def reserved(trip: ReserveTrip) -> TripReserved:
    return TripReserved(
        trip_id=trip.trip_id, customer=ANN, legs=trip.legs, prices=(1000, 500), total=1500,
        way="conducted",
    )  # fmt: skip


def booked(trip: ReserveTrip) -> tuple[Booking, ...]:
    return tuple(
        Booking(
            leg_id=f"{trip.trip_id}.{number}", provider=leg.provider, offer=leg.offer,
            booking_id=f"b-{trip.trip_id}-{leg.provider}", price=price,
        )
        for number, (leg, price) in enumerate(zip(trip.legs, (1000, 500), strict=True), 1)
    )  # fmt: skip


def leg_booked(trip: ReserveTrip, at: int) -> LegBooked:
    return LegBooked(trip_id=trip.trip_id, **booked(trip)[at].model_dump())


def mailed(reference: str) -> EmailSent:
    return EmailSent(
        about="order", reference=reference, customer_id="ann", to=ANN.email, subject_line="hello"
    )


def told(name: str, *events: Event) -> Flow:
    """A flow as the journal tells it."""
    flow = Flow(name)
    for number, event in enumerate(events):
        body, wire_type = event.model_dump(mode="json"), event.__address__.wire_type
        flow.add(
            entry(
                f"{name}-{number}", f"cause-{name}-{number}", wire_type=wire_type,
                subject=subject_of(event), body=body,
            )
        )  # fmt: skip
    return flow


REGISTERED = AccountRegistered.model_validate(ACCOUNT)
CONFIRMED = TripConfirmed(
    trip_id="trip-sun", customer=ANN, bookings=booked(SUN), payment_id="p", amount=1500
)
EVENTS: dict[str, tuple[Event, ...]] = {
    "account": (REGISTERED, mailed("ann")),
    "good": (
        PaymentTaken(reference="order-good", payment_id="p1", amount=900),
        ShipmentArranged(order_id="order-good", shipment_id="s"),
        OrderFulfilled(order_id="order-good", shipment_id="s"),
        mailed("order-good"),
    ),
    "bad": (
        PaymentCaptured(order_id="order-bad", customer=ANN, lines=TEA, payment_id="p2", amount=900),
        OrderCancelled(order_id="order-bad", customer=ANN, reason="no carrier"),
        PaymentRefunded(order_id="order-bad", payment_id="p2", amount=900),
        mailed("order-bad"),
        mailed("order-bad"),
    ),
    "sun": (reserved(SUN),),
    "sun-confirmed": (
        leg_booked(SUN, 0),
        leg_booked(SUN, 1),
        PaymentTaken(reference="trip-sun", payment_id="p3", amount=1500),
        CONFIRMED,
        mailed("trip-sun"),
    ),
    "rain": (reserved(RAIN),),
    "rain-confirmed": (
        leg_booked(RAIN, 0),
        LegRefused(leg_id="trip-rain.2", trip_id="trip-rain", provider="hotel", reason="full"),
        LegCancelled(leg_id="trip-rain.1", trip_id="trip-rain", provider="airline", booking_id="b"),
        TripCancelled(trip_id="trip-rain", customer=ANN, reason="full"),
        mailed("trip-rain"),
    ),
}
COMMANDS: tuple[Command, ...] = (
    RegisterAccount.model_validate(ACCOUNT),
    GOOD,
    BAD,
    SUN,
    ConfirmReservation(trip_id="trip-sun", card="4242-4242"),
    RAIN,
    ConfirmReservation(trip_id="trip-rain", card="4242-4242"),
)
FLOWS = [told(name, *events) for name, events in EVENTS.items()]
SENT = list(zip(COMMANDS, FLOWS, strict=True))
EFFECTS = {
    "gateway": (
        Effect("charge", "1", "order-good", "p1", 900),
        Effect("charge", "2", "order-bad", "p2", 900),
        Effect("refund", "3", "order-bad", "p2", 900),
        Effect("charge", "4", "trip-sun", "p3", 1500),
    ),
    "carrier": (
        Effect("booking", "5", "order-good", "s1"),
        Effect("collection", "6", "order-good", "s1"),
    ),
    "airline": (
        Effect("booking", "7", "trip-sun", "b1", 1000, "ROME-1"),
        Effect("booking", "8", "trip-rain", "b2", 1000, "ROME-1"),
        Effect("cancellation", "9", "trip-rain", "b2", 1000, "ROME-1"),
    ),
    "hotel": (Effect("booking", "10", "trip-sun", "b3", 500, "ROOM-1"),),
}


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """True books of two orders and two trips, of which one each ended well, and of an account."""
    monkeypatch.syspath_prepend(SCRIPTS)
    books_module = importlib.import_module("books")
    with database(tmp_path, "inventory", stock.tables) as db:
        stock.seed(db)
    books = books_module.Books(tmp_path)
    with database(tmp_path, "inventory", stock.tables) as db:
        stock.hold(db, "order-good", TEA)
        stock.ship(db, "order-good")
    with database(tmp_path, "orders", book.tables) as db:
        for order in (GOOD, BAD):
            book.open_order(db, order.order_id, ANN, 900)
        book.close(db, "order-good", "fulfilled")
        book.close(db, "order-bad", "cancelled")
    with database(tmp_path, "reservations", trips.tables) as db:
        for one in (SUN, RAIN):
            trips.ask(db, one)
            trips.reserve(db, one.trip_id, (1000, 500))
            trips.move(db, one.trip_id, "reserved", "confirmed")
        trips.move(db, "trip-sun", "confirmed", "booked")
        trips.move(db, "trip-rain", "confirmed", "cancelled")
    with database(tmp_path, "rewards", points.tables) as db:
        points.grant(db, "order", "order-good", "ann", 9)
        points.grant(db, "trip", "trip-sun", "ann", 15)
    with database(tmp_path, "crm", customers.tables) as db:
        know(db)
    with database(tmp_path, "audit", chain.tables) as db:
        tables.metadata.create_all(db)
        for around, event in heard():
            chain.append(db, event, around)
    for name, effects in EFFECTS.items():
        with closing(Ledger(tmp_path / f"{name}.db")) as ledger:
            for effect in effects:
                ledger.record(effect)
    (tmp_path / "mail").mkdir()
    for around, event in heard():
        if isinstance(event, EmailSent):
            mail = f"Message-ID: <{around.causation}@choreo>\n\nhello\n"
            (tmp_path / "mail" / f"{around.causation}.eml").write_text(mail)
    return books


@contextmanager
def database(var: Path, name: str, its_tables: sa.MetaData) -> Iterator[Connection]:
    engine = sa.create_engine(f"sqlite:///{var / name}.db")
    with engine.begin() as db:
        its_tables.create_all(db)
        yield db
    engine.dispose()


def heard() -> Iterator[tuple[Context, Event]]:
    """Every event, as a service is handed it."""
    for flow, events in zip(FLOWS, EVENTS.values(), strict=True):
        for one, event in zip(flow.entries.values(), events, strict=True):
            envelope = one.envelope
            yield Context(
                flow=flow.id, message_id=envelope.id, type=envelope.type, source=envelope.source,
                time=moment(envelope.time), subject=envelope.subject,
                causation=envelope.causation, key=envelope.id,
            ), event  # fmt: skip


def know(db: Connection) -> None:
    """What crm keeps."""
    customers.enter(db, REGISTERED)
    customers.follow(db, "order", "order-good", customer_id="ann", state="fulfilled")
    customers.follow(db, "order", "order-bad", customer_id="ann", state="cancelled")
    customers.follow(db, "trip", "trip-sun", customer_id="ann", state="confirmed")
    customers.follow(db, "trip", "trip-rain", customer_id="ann", state="cancelled")
    for one in (SUN, RAIN):
        customers.plan(db, reserved(one))
    customers.book(db, CONFIRMED)
    for around, event in heard():
        if isinstance(event, EmailSent):
            customers.keep(db, event, around)


def write(var: Path, name: str, statement: str) -> None:
    with closing(sqlite3.connect(var / f"{name}.db")) as db, db:
        assert db.execute(statement).rowcount == 1, statement


def wrong(books: Any) -> list[str]:
    return [check.what for check in books.check(SENT) if not check.is_right]


def test_true_books_pass(books: Any) -> None:
    checks = books.check(SENT)
    assert [check.what for check in checks] == [
        "orders", "trips", "stock of TEA-1", "places of airline", "places of hotel", "money",
        "points", "parcels", "mails", "ann for airline", "ann for hotel", "record",
    ]  # fmt: skip
    assert [check for check in checks if not check.is_right] == []


#: A doubled charge, under another key.
TWICE = (
    "INSERT INTO effects SELECT 9, at, kind, 'other', order_id, reference, amount "
    "FROM effects WHERE id = 1"
)


@pytest.mark.parametrize(
    ("name", "statement", "found_by"),
    [
        ("orders", "UPDATE orders SET state = 'open' WHERE order_id = 'order-bad'", "orders"),
        ("reservations", "UPDATE trips SET state = 'booked' WHERE state = 'cancelled'", "trips"),
        ("inventory", "UPDATE stock SET on_hand = 9 WHERE sku = 'TEA-1'", "stock of TEA-1"),
        ("inventory", "UPDATE holds SET state = 'held'", "stock of TEA-1"),
        ("airline", "DELETE FROM effects WHERE kind = 'cancellation'", "places of airline"),
        ("hotel", "UPDATE offers SET offer = 'ROOM-2'", "places of hotel"),
        ("gateway", "DELETE FROM effects WHERE kind = 'refund'", "money"),
        ("gateway", TWICE, "money"),
        ("gateway", "DELETE FROM effects WHERE order_id = 'trip-sun'", "money"),
        ("rewards", "UPDATE grants SET reference = 'order-bad' WHERE kind = 'order'", "points"),
        ("rewards", "DELETE FROM grants WHERE kind = 'trip'", "points"),
        ("rewards", "UPDATE accounts SET points = 18", "points"),
        ("carrier", "UPDATE effects SET order_id = 'order-bad' WHERE id = 2", "parcels"),
        ("carrier", "DELETE FROM effects WHERE kind = 'booking'", "parcels"),
        ("crm", "UPDATE preferences SET value = 'window'", "ann for airline"),
        ("crm", "DELETE FROM bookings WHERE provider = 'hotel'", "ann for hotel"),
        ("audit", "UPDATE records SET body = '{}' WHERE number = 3", "record"),
        ("audit", "DELETE FROM records WHERE number = (SELECT max(number) FROM records)", "record"),
    ],
)  # fmt: skip
def test_a_false_entry_is_found(
    books: Any, tmp_path: Path, name: str, statement: str, found_by: str
) -> None:
    write(tmp_path, name, statement)
    assert wrong(books) == [found_by]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE dealings SET state = 'open' WHERE kind = 'order' AND state = 'fulfilled'",
        "DELETE FROM mails WHERE reference = 'trip-rain'",
        "DELETE FROM accounts",
    ],
)
def test_what_every_provider_is_to_know_is_found_missing(
    books: Any, tmp_path: Path, statement: str
) -> None:
    write(tmp_path, "crm", statement)
    assert wrong(books) == ["ann for airline", "ann for hotel"]


def test_a_mail_too_few_is_found(books: Any, tmp_path: Path) -> None:
    (tmp_path / "mail" / "cause-good-3.eml").unlink()
    assert wrong(books) == ["mails"]


def test_a_mail_that_nobody_announced_is_found(books: Any, tmp_path: Path) -> None:
    (tmp_path / "mail" / "stray.eml").write_text("Message-ID: <stray@choreo>\n\nhello\n")
    assert wrong(books) == ["mails"]
