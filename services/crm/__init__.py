"""Crm: know each customer, by outside provider, from what the other contexts announce."""

from __future__ import annotations

from choreo import Connection, Context, Service
from contracts.accounts import AccountRegistered
from contracts.crm import ProfileOpened
from contracts.notifications import EmailSent
from contracts.orders import OrderCancelled, OrderFulfilled, OrderPaid, OrderPlaced
from contracts.travel import TripCancelled, TripConfirmed, TripReserved

from . import customers

service = Service("crm", tables=customers.tables)

_KEPT = "what happened stays in a customer's history"


@service.on(final="an account stays")
def open_profile(registered: AccountRegistered, context: Context, db: Connection) -> ProfileOpened:
    """Keep who the customer is, and what is preferred of each provider."""
    customers.note(db, context)
    customers.enter(db, registered)
    return ProfileOpened(customer_id=registered.customer_id)


@service.on(final=_KEPT)
def follow_order(order: OrderPlaced | OrderPaid, context: Context, db: Connection) -> None:
    """Keep whose order it is."""
    customers.note(db, context)
    customers.follow(db, "order", order.order_id, customer_id=order.customer.customer_id)


@service.on(final=_KEPT)
def end_order(order: OrderFulfilled | OrderCancelled, context: Context, db: Connection) -> None:
    """Keep how it ended."""
    customers.note(db, context)
    if isinstance(order, OrderFulfilled):
        customers.follow(db, "order", order.order_id, state="fulfilled")
    else:
        customer_id = order.customer.customer_id
        customers.follow(db, "order", order.order_id, customer_id=customer_id, state="cancelled")


@service.on(final=_KEPT)
def follow_trip(trip: TripReserved, context: Context, db: Connection) -> None:
    """Keep whose trip it is, and with which providers."""
    customers.note(db, context)
    customers.follow(db, "trip", trip.trip_id, customer_id=trip.customer.customer_id)
    customers.plan(db, trip)


@service.on(final=_KEPT)
def end_trip(trip: TripConfirmed | TripCancelled, context: Context, db: Connection) -> None:
    """Keep how it ended, and what is booked of each provider."""
    customers.note(db, context)
    customer_id = trip.customer.customer_id
    if isinstance(trip, TripConfirmed):
        customers.follow(db, "trip", trip.trip_id, customer_id=customer_id, state="confirmed")
        customers.book(db, trip)
    else:
        customers.follow(db, "trip", trip.trip_id, customer_id=customer_id, state="cancelled")


@service.on(final=_KEPT)
def keep_mail(mail: EmailSent, context: Context, db: Connection) -> None:
    """Keep what was written to the customer."""
    customers.note(db, context)
    customers.keep(db, mail, context)
