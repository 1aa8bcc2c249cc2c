"""Payments: charge a card for an order or a trip; give the money back if that dies."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta

import aiohttp

from choreo import Context, Service
from contracts.inventory import StockReserved
from contracts.orders import OrderCancelled
from contracts.payments import (
    CapturePayment,
    PaymentCaptured,
    PaymentDeclined,
    PaymentRefunded,
    PaymentRefused,
    PaymentReturned,
    PaymentTaken,
    RefundPayment,
    TripNotPaid,
    TripPaid,
    TripRefunded,
)
from contracts.providers import LegsBooked
from contracts.travel import TripCancelled

from .gateway import DeclinedError, Gateway, Settings

service = Service("payments")
_LIMIT = timedelta(seconds=10)


@service.adapter
async def open_gateway() -> AsyncGenerator[Gateway]:
    """Keep connections to the payment gateway while the service runs."""
    async with aiohttp.ClientSession() as http:
        yield Gateway(http, Settings())


@service.on(timeout=_LIMIT)
async def capture(
    order: StockReserved, context: Context, gateway: Gateway
) -> PaymentCaptured | PaymentDeclined:
    """Charge the card with the order's total."""
    try:
        payment_id = await gateway.charge(
            key=context.key, reference=order.order_id, card=order.card, amount=order.total
        )
    except DeclinedError as declined:
        return PaymentDeclined(order_id=order.order_id, reason=str(declined))
    return PaymentCaptured(
        order_id=order.order_id,
        customer=order.customer,
        lines=order.lines,
        payment_id=payment_id,
        amount=order.total,
    )


@capture.undo
async def refund(
    cause: OrderCancelled, paid: PaymentCaptured, context: Context, gateway: Gateway
) -> PaymentRefunded:
    """Give the money back in full."""
    await gateway.refund(key=context.key, payment_id=paid.payment_id)
    return PaymentRefunded(order_id=paid.order_id, payment_id=paid.payment_id, amount=paid.amount)


@service.on(timeout=_LIMIT)
async def charge(
    wanted: CapturePayment, context: Context, gateway: Gateway
) -> PaymentTaken | PaymentRefused:
    """Charge the card for whatever a conductor asks it for."""
    try:
        payment_id = await gateway.charge(
            key=context.key, reference=wanted.reference, card=wanted.card, amount=wanted.amount
        )
    except DeclinedError as declined:
        return PaymentRefused(reference=wanted.reference, reason=str(declined))
    return PaymentTaken(reference=wanted.reference, payment_id=payment_id, amount=wanted.amount)


@charge.undo
async def give_back(
    cause: RefundPayment, paid: PaymentTaken, context: Context, gateway: Gateway
) -> PaymentReturned:
    """Give the money back in full, as the conductor says."""
    await gateway.refund(key=context.key, payment_id=paid.payment_id)
    return PaymentReturned(reference=paid.reference, payment_id=paid.payment_id, amount=paid.amount)


@service.on(timeout=_LIMIT)
async def charge_trip(
    booked: LegsBooked, context: Context, gateway: Gateway
) -> TripPaid | TripNotPaid:
    """Charge the card with the total of a choreographed trip."""
    try:
        payment_id = await gateway.charge(
            key=context.key, reference=booked.trip_id, card=booked.card, amount=booked.total
        )
    except DeclinedError as declined:
        return TripNotPaid(trip_id=booked.trip_id, reason=str(declined))
    return TripPaid(
        trip_id=booked.trip_id,
        bookings=booked.bookings,
        payment_id=payment_id,
        amount=booked.total,
    )


@charge_trip.undo
async def refund_trip(
    cause: TripCancelled, paid: TripPaid, context: Context, gateway: Gateway
) -> TripRefunded:
    """Give the money of the trip back in full."""
    await gateway.refund(key=context.key, payment_id=paid.payment_id)
    return TripRefunded(trip_id=paid.trip_id, payment_id=paid.payment_id, amount=paid.amount)
