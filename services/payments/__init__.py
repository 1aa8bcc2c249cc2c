"""Payments: charge the card of an order; refund it if the order dies."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta

import aiohttp

from choreo import Context, Service
from contracts.inventory import StockReserved
from contracts.orders import OrderCancelled
from contracts.payments import PaymentCaptured, PaymentDeclined, PaymentRefunded

from .gateway import DeclinedError, Gateway, Settings

service = Service("payments")


@service.adapter
async def open_gateway() -> AsyncGenerator[Gateway]:
    """Keep connections to the payment gateway while the service runs."""
    async with aiohttp.ClientSession() as http:
        yield Gateway(http, Settings())


@service.on(timeout=timedelta(seconds=10))
async def capture(
    order: StockReserved, context: Context, gateway: Gateway
) -> PaymentCaptured | PaymentDeclined:
    """Charge the card with the order's total."""
    try:
        payment_id = await gateway.charge(
            key=context.key, order_id=order.order_id, card=order.card, amount=order.total
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
