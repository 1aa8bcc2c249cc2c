"""The flows that tests begin: orders, trips and accounts, and how each may end."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from choreo import Event
from choreo.contract import Message
from choreo.discovery import flows
from choreo.settings import Settings
from contracts.accounts import RegisterAccount
from contracts.customers import Customer
from contracts.orders import (
    Line,
    PlaceOrder,
    ProcessOrder,
)
from contracts.travel import (
    ConfirmReservation,
    Leg,
    ReserveTrip,
    Way,
)
from sandboxes import carrier, gateway

#: The commands that begin a flow.
Order = PlaceOrder | ProcessOrder
Start = Order | ReserveTrip | ConfirmReservation | RegisterAccount

#: How a flow may end, by the command that began it.
ENDS: dict[type[Message], dict[type[Event], str]] = {
    one.starts: {kind: name for name, kind in one.ends.items()} for one in flows(Settings())
}
END_NAMES = {
    kind.__address__.wire_type: name for ends in ENDS.values() for kind, name in ends.items()
}

FLIGHT, ROOM, CAR = ("airline", "ROME-1"), ("hotel", "ROOM-1"), ("car", "CAR-1")
WAYS: tuple[Way, ...] = ("conducted", "choreographed")
_CARDS = (gateway.APPROVED, gateway.APPROVED, gateway.DECLINED, gateway.APPROVED,
          gateway.FAILS_TWICE, gateway.LOSES_ANSWER, gateway.APPROVED)  # fmt: skip
_ADDRESSES = ("1 High Street", "2 High Street", carrier.UNDELIVERABLE, carrier.LOSES_ANSWER,
              "3 High Street")  # fmt: skip
_SKUS = ("TEA-1", "MUG-1", "BOOK-1")
_TRIPS = (
    (FLIGHT, ROOM, CAR),
    (FLIGHT, ("hotel", "ROOM-LAST")),
    (FLIGHT, ROOM, ("car", "CAR-NEVER")),
    (("airline", "ROME-LOST"), ("hotel", "ROOM-LOST"), ("car", "CAR-LOST")),
    (("airline", "ROME-LAST"), ROOM),
    (FLIGHT, FLIGHT, ROOM),
    (("airline", "ROME-NEVER"), ("hotel", "ROOM-LOST")),
    (CAR, ("hotel", "ROOM-NEVER"), FLIGHT),
    (ROOM,),
    (FLIGHT, ("car", "CAR-LAST")),
    (("airline", "ROME-SLOW"), ROOM, ("car", "CAR-NEVER")),
    (),
)


def a_customer(name: str, *, address: str = "1 High Street", member: bool = False) -> Customer:
    """A customer with a mail address of the same name."""
    return Customer(customer_id=name, email=f"{name}@example.org", address=address, member=member)


def an_order(
    number: object,
    *,
    conducted: bool = False,
    sku: str = "TEA-1",
    quantity: int = 2,
    card: str = gateway.APPROVED,
    address: str = "1 High Street",
    member: bool = False,
    customer: str = "customer",
) -> Order:
    """An order that would be fulfilled, but for what is said."""
    kind = ProcessOrder if conducted else PlaceOrder
    return kind(
        order_id=f"order-{number}",
        customer=a_customer(customer, address=address, member=member),
        card=card,
        lines=(Line(sku=sku, quantity=quantity),),
    )


def a_trip(
    number: object,
    *,
    legs: Iterable[tuple[str, str]] = (FLIGHT, ROOM, CAR),
    way: Way = "conducted",
    member: bool = False,
    customer: str = "customer",
) -> ReserveTrip:
    """A trip of these legs (provider and offer) that can be reserved if they are offered."""
    return ReserveTrip(
        trip_id=f"trip-{number}",
        customer=a_customer(customer, member=member),
        legs=tuple(
            Leg(provider=provider, offer=offer, start=date(2030, 5, 1), end=date(2030, 5, 8))
            for provider, offer in legs
        ),
        way=way,
    )


def a_confirmation(trip: ReserveTrip, *, card: str = gateway.APPROVED) -> ConfirmReservation:
    """Confirms a trip, with this card."""
    return ConfirmReservation(trip_id=trip.trip_id, card=card)


def a_registration(
    number: object, *, email: str | None = None, name: str = "Ann", member: bool = False
) -> RegisterAccount:
    """Registers a customer, who has a mail address of the own."""
    return RegisterAccount(
        customer_id=f"account-{number}",
        name=name,
        email=f"account-{number}@example.org" if email is None else email,
        address="1 High Street",
        member=member,
    )


def mixed(count: int, *, prefix: str = "", conducted: bool = False) -> list[Order]:
    """Orders of every kind: all cards, addresses and articles, members and others."""
    return [
        an_order(
            f"{prefix}{number}",
            conducted=conducted,
            sku="RARE-1" if number % 20 == 0 else _SKUS[number % 3],
            quantity=1 + number % 2,
            card=gateway.SLOW if number % 50 == 1 else _CARDS[number % 7],
            address=carrier.SLOW if number % 50 == 4 else _ADDRESSES[number % 5],
            member=number % 4 < 2,
            customer=f"customer-{number % 9}",
        )
        for number in range(count)
    ]


def mixed_flows(count: int, *, prefix: str = "") -> list[Start]:
    """Flows of every kind and end: orders and trips of both ways, and registrations.

    Reserving a trip is one, and confirming it another.
    """
    share = count // 5
    trips = [
        a_trip(
            f"{prefix}{number}",
            legs=_TRIPS[number % len(_TRIPS)],
            way=WAYS[number % 2],
            member=number % 4 < 2,
            customer=f"customer-{number % 9}",
        )
        for number in range(count - 4 * share)
    ]
    return [
        *trips,
        *mixed(share, prefix=prefix),
        *mixed(share, prefix=f"{prefix}conducted-", conducted=True),
        # Some trips stay as they are reserved, and the one before is confirmed twice.
        *(a_confirmation(trips[at - (at % 8 == 7)], card=_CARDS[at % 7]) for at in range(share)),
        # Some have a mail address that the one before has.
        *(
            a_registration(
                f"{prefix}{at}", email=f"account-{prefix}{at - (at % 5 == 4)}@example.org"
            )
            for at in range(share)
        ),
    ]
