"""Shipping: book a carrier for a paid order; recall the parcel if the order dies."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta

import aiohttp

from choreo import Context, Service
from contracts.orders import OrderCancelled, OrderFulfilled
from contracts.payments import PaymentCaptured
from contracts.shipping import (
    BookShipment,
    RecallShipment,
    ShipmentArranged,
    ShipmentBooked,
    ShipmentCollected,
    ShipmentFailed,
    ShipmentRecalled,
    ShipmentRefused,
)

from .carrier import Carrier, Settings, UndeliverableError

service = Service("shipping")
_LIMIT = timedelta(seconds=10)


@service.adapter
async def open_carrier() -> AsyncGenerator[Carrier]:
    """Keep connections to the carrier while the service runs."""
    async with aiohttp.ClientSession() as http:
        yield Carrier(http, Settings())


@service.on(timeout=_LIMIT)
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


@service.on(timeout=_LIMIT)
async def arrange(
    wanted: BookShipment, context: Context, carrier: Carrier
) -> ShipmentArranged | ShipmentRefused:
    """Book a parcel for a conducted order; until it is collected it can be recalled."""
    try:
        shipment_id = await carrier.book(
            key=context.key, order_id=wanted.order_id, address=wanted.address
        )
    except UndeliverableError as undeliverable:
        return ShipmentRefused(order_id=wanted.order_id, reason=str(undeliverable))
    return ShipmentArranged(order_id=wanted.order_id, shipment_id=shipment_id)


@arrange.undo
async def call_back(
    cause: RecallShipment, booked: ShipmentArranged, context: Context, carrier: Carrier
) -> ShipmentRecalled:
    """Take the booking of a conducted order back."""
    await carrier.recall(key=context.key, shipment_id=booked.shipment_id)
    return ShipmentRecalled(order_id=booked.order_id, shipment_id=booked.shipment_id)


@service.on(final="a collected parcel is out of our hands", timeout=_LIMIT)
async def collect(order: OrderFulfilled, context: Context, carrier: Carrier) -> ShipmentCollected:
    """Have the parcel collected, now that the order can no longer die."""
    await carrier.collect(key=context.key, shipment_id=order.shipment_id)
    return ShipmentCollected(order_id=order.order_id, shipment_id=order.shipment_id)
