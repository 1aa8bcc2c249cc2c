"""Crm: what is known of a customer is the same, in whichever order it was heard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service_samples import ANN, MEMBER, NOON, TEA, context, database
from sqlalchemy import select

from choreo import Connection, Context, Event
from contracts.accounts import AccountRegistered, Preference
from contracts.crm import ProfileOpened
from contracts.notifications import EmailSent
from contracts.orders import OrderCancelled, OrderFulfilled, OrderPaid, OrderPlaced
from contracts.travel import Booking, Leg, TripCancelled, TripConfirmed, TripReserved
from services.crm import customers, open_profile, service
from services.crm.customers import Account, Profile

SUMMER = {"start": date(2026, 7, 1), "end": date(2026, 7, 8)}
BOOKINGS = (
    Booking(leg_id="t-1.1", provider="airline", offer="OUT", booking_id="b-1", price=20_000),
    Booking(leg_id="t-1.2", provider="hotel", offer="SEA", booking_id="b-2", price=70_000),
    Booking(leg_id="t-1.3", provider="airline", offer="BACK", booking_id="b-3", price=25_000),
)


def reserved(trip_id: str, *providers: str) -> TripReserved:
    legs = tuple(Leg(provider=one, offer="any", **SUMMER) for one in providers)
    prices = (100,) * len(legs)
    total = sum(prices)
    return TripReserved(
        trip_id=trip_id, customer=ANN, legs=legs, prices=prices, total=total, way="conducted"
    )


def mail(
    reference: str,
    customer_id: str = "ann",
    about: Literal["order", "trip", "account"] = "trip",
) -> EmailSent:
    return EmailSent(
        about=about,
        reference=reference,
        customer_id=customer_id,
        to=ANN.email,
        subject_line=f"on {reference}",
    )


STORY: tuple[Event, ...] = (
    AccountRegistered(
        customer_id="ann",
        name="Ann Ames",
        email=ANN.email,
        address=ANN.address,
        member=False,
        preferences=(
            Preference(provider="airline", name="seat", value="aisle"),
            Preference(provider="airline", name="seat", value="window"),
            Preference(provider="car", name="gears", value="automatic"),
        ),
    ),
    mail("ann", about="account"),
    OrderPlaced(order_id="o-1", customer=ANN, card="c", lines=TEA, total=900),
    mail("o-1", about="order"),
    OrderFulfilled(order_id="o-1", shipment_id="s-1"),
    OrderPaid(order_id="o-2", customer=ANN, lines=TEA, amount=900),
    OrderFulfilled(order_id="o-2", shipment_id="s-2"),
    OrderPlaced(order_id="o-3", customer=ANN, card="c", lines=TEA, total=900),
    OrderCancelled(order_id="o-3", customer=ANN, reason="declined"),
    OrderPlaced(order_id="o-4", customer=ANN, card="c", lines=TEA, total=900),
    reserved("t-1", "airline", "hotel", "airline"),
    TripConfirmed(trip_id="t-1", customer=ANN, bookings=BOOKINGS, payment_id="p-1", amount=115_000),
    mail("t-1"),
    reserved("t-2", "hotel", "balloon"),
    TripCancelled(trip_id="t-2", customer=ANN, reason="no room left"),
    mail("t-2"),
    reserved("t-3", "airline"),
    OrderPlaced(order_id="o-9", customer=MEMBER, card="c", lines=TEA, total=900),
    mail("o-9", "mia", "order"),
)


def surroundings(number: int) -> Context:
    """What surrounds an event of the story: its number is its id and its time, in minutes."""
    return replace(
        context("key"),
        message_id=f"m-{number:02}",
        type=STORY[number].__address__.wire_type,
        flow=f"flow of {number}",
        time=NOON + timedelta(minutes=number),
    )


def hear(db: Connection, numbers: Iterable[int]) -> None:
    """Have these events of the story handled, by whoever takes them."""
    routes = service.routes()
    for number in numbers:
        event = STORY[number]
        [route] = routes[type(event)]
        result = route.handler(event, surroundings(number), db)
        assert (result is None) == (not isinstance(event, AccountRegistered))


def everything(db: Connection) -> dict[str, Any]:
    """All rows of all tables, and what people read of them."""
    rows = {
        name: sorted(map(repr, db.execute(select(table))))
        for name, table in service.tables.tables.items()  # type: ignore[union-attr]
    }
    read = {
        (who, provider): (
            customers.profile(db, who, provider),
            customers.preferences(db, who, provider),
            customers.history(db, who, provider),
        )
        for who in ("ann", "mia")
        for provider in (*customers.providers(db, who), "train")
    }
    return {"rows": rows, "read": read, "counts": customers.counts(db)}


@pytest.fixture
def db() -> Iterator[Connection]:
    with database(service) as connection:
        yield connection


@pytest.fixture
def told(db: Connection) -> Connection:
    hear(db, range(len(STORY)))
    return db


def about(db: Connection, provider: str) -> list[str]:
    return [one.reference for one in customers.history(db, "ann", provider)]


@given(order=st.permutations(range(len(STORY))))
@settings(max_examples=60, deadline=None)
def test_the_order_of_events_is_all_one(order: list[int]) -> None:
    with database(service) as straight, database(service) as shuffled:
        hear(straight, range(len(STORY)))
        hear(shuffled, order)
        assert everything(shuffled) == everything(straight)


def test_a_profile_is_opened_and_announced(db: Connection) -> None:
    registered = STORY[0]
    assert isinstance(registered, AccountRegistered)
    opened = open_profile(registered, surroundings(0), db)
    assert opened == ProfileOpened(customer_id="ann")


def test_each_provider_has_its_own_profile(told: Connection) -> None:
    ann = Account("Ann Ames", ANN.email, ANN.address, member=False)
    orders = {"fulfilled": 2, "cancelled": 1, "open": 1}
    assert customers.profile(told, "ann", "airline") == Profile(
        customer_id="ann",
        provider="airline",
        account=ann,
        orders=orders,
        trips={"confirmed": 1, "open": 1},
        booked=(("OUT", 20_000), ("BACK", 25_000)),
    )
    assert customers.profile(told, "ann", "hotel") == Profile(
        customer_id="ann",
        provider="hotel",
        account=ann,
        orders=orders,
        trips={"confirmed": 1, "cancelled": 1},
        booked=(("SEA", 70_000),),
    )


def test_who_has_no_account_has_a_profile_by_orders(told: Connection) -> None:
    mia = customers.profile(told, "mia", "airline")
    assert mia == Profile("mia", "airline", account=None, orders={"open": 1}, trips={}, booked=())
    assert customers.profile(told, "nobody", "airline") is None


def test_preferences_are_kept_by_provider(told: Connection) -> None:
    assert customers.preferences(told, "ann", "airline") == {"seat": "window"}
    assert customers.preferences(told, "ann", "car") == {"gears": "automatic"}
    assert customers.preferences(told, "ann", "hotel") == {}


def test_a_provider_that_only_a_trip_knows_is_one(told: Connection) -> None:
    assert customers.providers(told, "ann") == ["airline", "balloon", "car", "hotel"]
    assert customers.providers(told, "mia") == []


def test_the_history_has_the_mails_about_the_provider_and_those_about_no_trip(
    told: Connection,
) -> None:
    assert about(told, "airline") == ["ann", "o-1", "t-1"]
    assert about(told, "hotel") == ["ann", "o-1", "t-1", "t-2"]
    assert about(told, "balloon") == ["ann", "o-1", "t-2"]
    assert about(told, "car") == ["ann", "o-1"]
    [first, *_] = customers.history(told, "ann", "car")
    assert (first.at, first.to) == (NOON + timedelta(minutes=1), ANN.email)
    assert first.subject_line == "on ann"


def test_a_mail_may_come_before_its_trip(db: Connection) -> None:
    hear(db, [STORY.index(mail("t-1"))])
    assert about(db, "car") == ["t-1"]
    hear(db, [STORY.index(reserved("t-1", "airline", "hotel", "airline"))])
    assert (about(db, "airline"), about(db, "car")) == (["t-1"], [])


def test_a_booked_provider_counts_where_the_reservation_was_never_heard(db: Connection) -> None:
    hear(db, [number for number, one in enumerate(STORY) if isinstance(one, TripConfirmed)])
    assert customers.providers(db, "ann") == ["airline", "hotel"]


def test_a_trip_and_an_order_may_have_the_same_id(db: Connection) -> None:
    customers.follow(db, "order", "x-1", customer_id="ann", state="cancelled")
    customers.follow(db, "trip", "x-1", customer_id="ann", state="confirmed")
    found = customers.profile(db, "ann", "airline")
    assert found is not None
    assert (found.orders, found.trips) == ({"cancelled": 1}, {})


def test_what_was_processed_is_kept_once_for_each_event(told: Connection) -> None:
    rows = told.execute(select(customers.processed).order_by(customers.processed.c.at)).all()
    assert rows == [
        (one.message_id, one.type, one.flow, one.time.timestamp())
        for one in map(surroundings, range(len(STORY)))
    ]
    assert customers.counts(told)["notifications.email_sent.v1"] == 5


def test_every_event_has_one_handler_and_the_story_has_every_event() -> None:
    routes = service.routes()
    assert {len(one) for one in routes.values()} == {1}
    assert set(routes) == {type(one) for one in STORY}
    assert all(step.final for step in service.steps)
