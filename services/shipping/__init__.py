"""Shipping: book a carrier for a paid order; recall the parcel if the order dies."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta

import aiohttp

from choreo import Context, Service
from contracts.orders import OrderCancelled, OrderFulfilled
from contracts.payments import PaymentCaptured
from contracts.shipping import (
    ShipmentBooked,
    ShipmentCollected,
    ShipmentFailed,
    ShipmentRecalled,
)

from .carrier import Carrier, Settings, UndeliverableError

service = Service("shipping")


@service.adapter
async def open_carrier() -> AsyncGenerator[Carrier]:
    """Keep connections to the carrier while the service runs."""
    async with aiohttp.ClientSession() as http:
        yield Carrier(http, Settings())


@service.on(timeout=timedelta(seconds=10))
async def book(
    paid: PaymentCaptured, context: Context, carrier: Carrier
) -> ShipmentBooked | ShipmentFailed:
    """Book a parcel to the customer's address; until it is collected it can be recalled."""
    try:
        shipment_id = await carrier.book(
            key=context.key, order_id=paid.order_id, address=paid.customer.address
        )
    except UndeliverableError as undeliverable:
        return ShipmentFailed(order_id=paid.order_id, reason=str(undeliverable))
    return ShipmentBooked(order_id=paid.order_id, shipment_id=shipment_id)


@book.undo
async def recall(
    cause: OrderCancelled, booked: ShipmentBooked, context: Context, carrier: Carrier
) -> ShipmentRecalled:
    """Take the booking back."""
    await carrier.recall(key=context.key, shipment_id=booked.shipment_id)
    return ShipmentRecalled(order_id=booked.order_id, shipment_id=booked.shipment_id)


@service.on(final="a collected parcel is out of our hands", timeout=timedelta(seconds=10))
async def collect(order: OrderFulfilled, context: Context, carrier: Carrier) -> ShipmentCollected:
    """Have the parcel collected, now that the order can no longer die."""
    await carrier.collect(key=context.key, shipment_id=order.shipment_id)
    return ShipmentCollected(order_id=order.order_id, shipment_id=order.shipment_id)
