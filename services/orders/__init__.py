"""Orders: take an order in, and decide how it ends."""

from __future__ import annotations

from datetime import timedelta

from choreo import Connection, Reject, Service
from contracts.inventory import StockRejected
from contracts.orders import (
    CancelOrder,
    FulfilOrder,
    OpenOrder,
    OrderCancelled,
    OrderFulfilled,
    OrderOpened,
    OrderPlaced,
    OrderRejected,
    PlaceOrder,
)
from contracts.payments import PaymentDeclined
from contracts.shipping import ShipmentBooked, ShipmentFailed

from . import book
from .settings import Settings

settings = Settings()
service = Service("orders", tables=book.tables)


@service.setup
def price(db: Connection) -> None:
    """Fill the price list where it has gaps."""
    book.seed(db)


@service.on(final="an order is closed, not unmade: fulfil or cancel decides how it ends")
def place(wanted: PlaceOrder, db: Connection) -> OrderPlaced | OrderRejected:
    """Price the order and open it, or refuse it at the door."""
    total = _open(wanted, db)
    if isinstance(total, OrderRejected):
        return total
    return OrderPlaced(
        order_id=wanted.order_id,
        customer=wanted.customer,
        card=wanted.card,
        lines=wanted.lines,
        total=total,
    )


@service.on(final="an order ends once")
def fulfil(booked: ShipmentBooked, db: Connection) -> OrderFulfilled | None:
    """End the order well, unless it has ended."""
    if book.close(db, booked.order_id, "fulfilled") is None:
        return None
    return OrderFulfilled(order_id=booked.order_id, shipment_id=booked.shipment_id)


@service.on(final="an order ends once")
def cancel(
    cause: StockRejected | PaymentDeclined | ShipmentFailed, db: Connection
) -> OrderCancelled | None:
    """End the order badly, unless it has ended."""
    return _cancel(db, cause.order_id, _reason(cause))


@service.on
def open_order(wanted: OpenOrder, db: Connection) -> OrderOpened | OrderRejected:
    """Price a conducted order and open it, or refuse it at the door."""
    total = _open(wanted, db)
    if isinstance(total, OrderRejected):
        return total
    return OrderOpened(order_id=wanted.order_id, total=total)


@open_order.undo
def call_off(cause: CancelOrder, opened: OrderOpened, db: Connection) -> OrderCancelled:
    """End a conducted order badly, as its conductor says."""
    cancelled = _cancel(db, opened.order_id, cause.reason)
    if cancelled is None:
        raise Reject(f"order {opened.order_id} has ended already, so it cannot be cancelled")
    return cancelled


@service.on(final="an order ends once")
def complete(wanted: FulfilOrder, db: Connection) -> OrderFulfilled:
    """End a conducted order well, as its conductor says."""
    if book.close(db, wanted.order_id, "fulfilled") is None:
        raise Reject(f"order {wanted.order_id} is not open, so it cannot be fulfilled")
    return OrderFulfilled(order_id=wanted.order_id, shipment_id=wanted.shipment_id)


@service.deadline(
    OrderPlaced,
    within=timedelta(seconds=settings.deadline_s),
    until=OrderFulfilled | OrderCancelled,
)
def expire(placed: OrderPlaced, db: Connection) -> OrderCancelled | None:
    """End an order that nobody has ended in time."""
    return _cancel(db, placed.order_id, f"not fulfilled within {settings.deadline_s:g} s")


def _open(wanted: PlaceOrder | OpenOrder, db: Connection) -> int | OrderRejected:
    """Open the order and tell its total, or why it is refused."""
    if book.knows(db, wanted.order_id):
        return OrderRejected(
            order_id=wanted.order_id, reason=f"the order id {wanted.order_id} is taken"
        )
    prices = book.prices(db, wanted.lines)
    if unknown := [line.sku for line in wanted.lines if line.sku not in prices]:
        skus = ", ".join(dict.fromkeys(unknown))
        return OrderRejected(order_id=wanted.order_id, reason=f"not in the catalogue: {skus}")
    total = sum(prices[line.sku] * line.quantity for line in wanted.lines)
    book.open_order(db, wanted.order_id, wanted.customer, total)
    return total


def _cancel(db: Connection, order_id: str, reason: str) -> OrderCancelled | None:
    customer = book.close(db, order_id, "cancelled", reason)
    if customer is None:
        return None
    return OrderCancelled(order_id=order_id, customer=customer, reason=reason)


def _reason(cause: StockRejected | PaymentDeclined | ShipmentFailed) -> str:
    if isinstance(cause, StockRejected):
        lacking = (f"{one.sku} ({one.available} of {one.wanted})" for one in cause.missing)
        return f"out of stock: {', '.join(lacking)}"
    return cause.reason
