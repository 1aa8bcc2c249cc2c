"""The stories that the demo tells: what somebody asks for, and how it must end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from choreo import Command
from contracts.accounts import Preference, RegisterAccount
from contracts.customers import Customer
from contracts.orders import Line, PlaceOrder, ProcessOrder
from contracts.travel import ConfirmReservation, Leg, ReserveTrip, Way


@dataclass(frozen=True, slots=True)
class Story:
    """What somebody asks for, and how it must end."""

    name: str
    #: Of the last of its flows.
    outcome: str
    #: What must have been announced by then. Points and the first mail of an order that dies are
    #: not among it: its cancellation may come before them, and then they never come.
    events: str
    commands: tuple[Command, ...]


ADA = Customer(customer_id="ada", email="ada@example.com", address="1 Main Street", member=True)


def _registration() -> tuple[Command, ...]:
    about = ADA.model_dump()
    wishes = (
        Preference(provider="airline", name="seat", value="aisle"),
        Preference(provider="hotel", name="floor", value="high"),
    )
    return (RegisterAccount(name="Ada Example", preferences=wishes, **about),)


def _order(
    number: int,
    command: type[PlaceOrder | ProcessOrder] = PlaceOrder,
    *,
    sku: str = "TEA-1",
    quantity: int = 2,
    card: str = "4242-4242",
    address: str = ADA.address,
) -> tuple[Command, ...]:
    return (
        command(
            order_id=f"order-{number}",
            customer=ADA.model_copy(update={"address": address}),
            card=card,
            lines=(Line(sku=sku, quantity=quantity),),
        ),
    )


def _trip(number: int, way: Way, *, car: str = "CAR-1") -> tuple[Command, ...]:
    start = date.today() + timedelta(days=30)
    legs = tuple(
        Leg(provider=provider, offer=offer, start=start, end=start + timedelta(days=7))
        for provider, offer in (("airline", "ROME-1"), ("hotel", "ROOM-1"), ("car", car))
    )
    trip_id = f"trip-{number}"
    return (
        ReserveTrip(trip_id=trip_id, customer=ADA, legs=legs, way=way),
        ConfirmReservation(trip_id=trip_id, card="4242-4242"),
    )


STORIES = (
    Story(
        "a registration",
        "registered",
        "accounts.registered notifications.email_sent crm.profile_opened",
        _registration(),
    ),
    Story(
        "an order",
        "fulfilled",
        "orders.placed inventory.stock_reserved payments.captured rewards.granted shipping.booked "
        "orders.fulfilled inventory.stock_shipped shipping.collected notifications.email_sent",
        _order(1),
    ),
    Story(
        "an order, conducted",
        "fulfilled",
        "orders.opened inventory.stock_held payments.taken orders.paid rewards.granted "
        "shipping.arranged orders.fulfilled inventory.stock_shipped shipping.collected "
        "notifications.email_sent",
        _order(2, ProcessOrder),
    ),
    Story(
        "out of stock",
        "cancelled",
        "orders.placed inventory.stock_rejected orders.cancelled notifications.email_sent",
        _order(3, sku="RARE-1", quantity=4),
    ),
    Story(
        "a declined card",
        "cancelled",
        "orders.placed inventory.stock_reserved payments.declined orders.cancelled "
        "inventory.stock_released notifications.email_sent",
        _order(4, card="4000-0002"),
    ),
    Story(
        "a shipment fails",
        "cancelled",
        "orders.placed inventory.stock_reserved payments.captured shipping.failed "
        "orders.cancelled payments.refunded inventory.stock_released notifications.email_sent",
        _order(5, address="nowhere"),
    ),
    Story(
        "a shipment fails, conducted",
        "cancelled",
        "orders.opened inventory.stock_held payments.taken orders.paid shipping.refused "
        "payments.returned inventory.stock_released orders.cancelled notifications.email_sent",
        _order(6, ProcessOrder, address="nowhere"),
    ),
    Story(
        "a trip, conducted",
        "confirmed",
        "travel.reserved providers.leg_booked providers.leg_booked providers.leg_booked "
        "payments.taken travel.confirmed rewards.trip_granted notifications.email_sent",
        _trip(1, "conducted"),
    ),
    Story(
        "a trip fails at its last leg, conducted",
        "cancelled",
        "travel.reserved providers.leg_booked providers.leg_booked providers.leg_refused "
        "providers.leg_cancelled providers.leg_cancelled travel.cancelled "
        "notifications.email_sent",
        _trip(2, "conducted", car="CAR-NEVER"),
    ),
    Story(
        "a trip fails at its last leg, choreographed",
        "cancelled",
        "travel.reserved travel.reservation_confirmed providers.leg_booked providers.leg_booked "
        "providers.leg_refused providers.leg_cancelled providers.leg_cancelled "
        "providers.legs_failed travel.cancelled notifications.email_sent",
        _trip(3, "choreographed", car="CAR-NEVER"),
    ),
)
