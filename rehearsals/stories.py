"""What customers do: orders, trips and registrations; good ones, refused ones and odd ones."""

from __future__ import annotations

from datetime import date
from random import Random
from typing import TypeVar

from choreo.rehearse import Story, start
from contracts.accounts import Preference, RegisterAccount
from contracts.customers import Customer
from contracts.orders import Line, PlaceOrder, ProcessOrder
from contracts.travel import ConfirmReservation, Leg, ReserveTrip, TripReserved
from sandboxes import carrier, gateway

T = TypeVar("T", PlaceOrder, ProcessOrder)

_CARDS = (gateway.APPROVED, gateway.APPROVED, gateway.DECLINED)
_ADDRESSES = ("1 High Street", carrier.UNDELIVERABLE)
#: Of the last there are three.
_SKUS = ("TEA-1", "MUG-1", "BOOK-1", "RARE-1")
#: The day before a rehearsal begins, which is a future one by the clock of any machine.
YESTERDAY = date(2030, 3, 16)
_LEGS = (
    ("airline", "ROME-1"), ("hotel", "ROOM-1"), ("car", "CAR-1"), ("hotel", "ROOM-LAST"),
    ("airline", "ROME-LAST"), ("car", "CAR-NEVER"), ("hotel", "ROOM-NEVER"),
)  # fmt: skip


def _customer(random: Random) -> Customer:
    name = random.choice(("ann", "bob", "cem"))
    return Customer(
        customer_id=name,
        email=f"{name}@example.org",
        address=random.choice(_ADDRESSES),
        member=random.random() < 0.5,
    )


def _order(kind: type[T], random: Random) -> T:
    skus = random.sample(_SKUS, random.choice((1, 1, 2)))
    if random.random() < 0.05:
        skus.append("UNKNOWN-1")
    many = (1, 1, 2, 4) if random.random() < 0.9 else (10_000,)
    return kind(
        order_id=f"order-{random.randrange(1000)}",
        customer=_customer(random),
        card=random.choice(_CARDS),
        lines=tuple(Line(sku=sku, quantity=random.choice(many)) for sku in skus),
    )


def _orders(kind: type[T], random: Random) -> Story:
    """One order; now and then it is asked for twice, at once or once it is over."""
    order = _order(kind, random)
    again = random.random()
    if again < 0.1:
        yield order, order
        return
    yield order
    if again < 0.15:
        yield order


@start("order")
def place(random: Random) -> Story:
    """Order, and let the services see to it."""
    yield from _orders(PlaceOrder, random)


@start("conducted_order")
def process(random: Random) -> Story:
    """Order, and have it conducted."""
    yield from _orders(ProcessOrder, random)


@start("reservation", "trip")
def travel(random: Random) -> Story:
    """Reserve a trip and confirm it; some confirm twice, or something else."""
    trip_id = f"trip-{random.randrange(1000)}"
    day = date(2031, 5, random.randint(1, 28))
    wanted = random.sample(_LEGS, random.choice((1, 2, 2, 3)))
    if random.random() < 0.06:
        wanted = random.choice(([], [("rail", "SEAT-1")]))
    if random.random() < 0.05:
        day = random.choice((date(2020, 1, 1), YESTERDAY))
    end = yield ReserveTrip(
        trip_id=trip_id,
        customer=_customer(random),
        legs=tuple(Leg(provider=one, offer=offer, start=day, end=day) for one, offer in wanted),
        way=random.choice(("conducted", "choreographed")),
    )
    if isinstance(end, TripReserved) or random.random() < 0.3:
        if random.random() < 0.05:
            trip_id = "trip-nobody"
        confirm = ConfirmReservation(trip_id=trip_id, card=random.choice(_CARDS))
        yield (confirm, confirm) if random.random() < 0.15 else confirm


@start("registration")
def register(random: Random) -> Story:
    """Register; some have an account already, or give no mail address."""
    name = random.choice(("ann", "bob", "cem"))
    wanted = RegisterAccount(
        customer_id=f"{name}-{random.randrange(3)}",
        name=name.title(),
        email=random.choice((f"{name}@example.org", f"{name}@example.org", "nowhere")),
        address="1 High Street",
        preferences=(Preference(provider="hotel", name="floor", value="top"),),
    )
    yield (wanted, wanted) if random.random() < 0.3 else wanted
