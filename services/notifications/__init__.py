"""Notifications: write to the customer about what came of an account, an order or a trip."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Literal

from choreo import Context, Service
from contracts.accounts import AccountRegistered
from contracts.customers import Customer
from contracts.notifications import EmailSent
from contracts.orders import OrderCancelled, OrderPaid
from contracts.payments import PaymentCaptured
from contracts.travel import TripCancelled, TripConfirmed

from .mail import Mailer, Settings

service = Service("notifications")
_FINAL = "a sent mail cannot be unsent"
_LIMIT = timedelta(seconds=30)
_REFUND = "If you have paid, you get the money back in full.\n"


@service.adapter
async def open_mailer() -> AsyncGenerator[Mailer]:
    """Send by SMTP where a server is set, else into files."""
    yield Mailer(Settings())


@service.on(final=_FINAL, unless=OrderCancelled, timeout=_LIMIT)
async def confirm(paid: PaymentCaptured | OrderPaid, context: Context, mailer: Mailer) -> EmailSent:
    """Tell the customer that the payment came in."""
    lines = "\n".join(f"  {line.quantity} x {line.sku}" for line in paid.lines)
    subject = f"Your order {paid.order_id}: payment received"
    text = f"Thank you. We have received {_money(paid.amount)} and will send you\n\n{lines}\n"
    return await _send(
        mailer, context, "order", paid.order_id, paid.customer, subject=subject, text=text
    )


@service.on(final=_FINAL, timeout=_LIMIT)
async def apologise(order: OrderCancelled, context: Context, mailer: Mailer) -> EmailSent:
    """Tell the customer that the order died, and why."""
    subject = f"Your order {order.order_id}: cancelled"
    text = f"We are sorry: we had to cancel your order ({order.reason}).\n{_REFUND}"
    return await _send(
        mailer, context, "order", order.order_id, order.customer, subject=subject, text=text
    )


@service.on(final=_FINAL, timeout=_LIMIT)
async def welcome(account: AccountRegistered, context: Context, mailer: Mailer) -> EmailSent:
    """Greet who has a new account."""
    subject = "Welcome: you have an account"
    text = f"Welcome, {account.name}. You are our customer {account.customer_id} now.\n"
    return await _send(
        mailer, context, "account", account.customer_id, account, subject=subject, text=text
    )


@service.on(final=_FINAL, timeout=_LIMIT)
async def send_itinerary(trip: TripConfirmed, context: Context, mailer: Mailer) -> EmailSent:
    """Tell the traveller what is booked."""
    bookings = "\n".join(
        f"  {one.provider} {one.offer}: {one.booking_id}, {_money(one.price)}"
        for one in trip.bookings
    )
    subject = f"Your trip {trip.trip_id}: confirmed"
    text = f"Thank you. We have received {_money(trip.amount)} and booked\n\n{bookings}\n"
    return await _send(
        mailer, context, "trip", trip.trip_id, trip.customer, subject=subject, text=text
    )


@service.on(final=_FINAL, timeout=_LIMIT)
async def regret(trip: TripCancelled, context: Context, mailer: Mailer) -> EmailSent:
    """Tell the traveller that the trip died, and why."""
    subject = f"Your trip {trip.trip_id}: cancelled"
    text = f"We are sorry: we had to cancel your trip ({trip.reason}).\n{_REFUND}"
    return await _send(
        mailer, context, "trip", trip.trip_id, trip.customer, subject=subject, text=text
    )


async def _send(
    mailer: Mailer,
    context: Context,
    about: Literal["order", "trip", "account"],
    reference: str,
    customer: Customer | AccountRegistered,
    *,
    subject: str,
    text: str,
) -> EmailSent:
    await mailer.send(
        key=context.key, at=context.time, to=customer.email, subject=subject, text=text
    )
    return EmailSent(
        about=about,
        reference=reference,
        customer_id=customer.customer_id,
        to=customer.email,
        subject_line=subject,
    )


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"
