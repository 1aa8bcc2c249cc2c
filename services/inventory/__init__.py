"""Inventory: hold stock for an order; give it back if the order dies."""

from __future__ import annotations

from choreo import Connection, Reject, Service
from contracts.inventory import (
    HoldStock,
    ReleaseStock,
    StockHeld,
    StockLacking,
    StockRejected,
    StockReleased,
    StockReserved,
    StockShipped,
)
from contracts.orders import OrderCancelled, OrderFulfilled, OrderPlaced

from . import stock

service = Service("inventory", tables=stock.tables)


@service.setup
def stock_up(db: Connection) -> None:
    """Fill the shelves with articles that were never there."""
    stock.seed(db)


@service.on
def reserve(order: OrderPlaced, db: Connection) -> StockReserved | StockRejected:
    """Hold every line of the order, or none."""
    if missing := stock.hold(db, order.order_id, order.lines):
        return StockRejected(order_id=order.order_id, missing=missing)
    return StockReserved(
        order_id=order.order_id,
        customer=order.customer,
        card=order.card,
        lines=order.lines,
        total=order.total,
    )


@reserve.undo
def release(cause: OrderCancelled, held: StockReserved, db: Connection) -> StockReleased:
    """Give back what the order held."""
    return _give_back(held, db)


@service.on
def hold(wanted: HoldStock, db: Connection) -> StockHeld | StockLacking:
    """Hold every line of a conducted order, or none."""
    if missing := stock.hold(db, wanted.order_id, wanted.lines):
        return StockLacking(order_id=wanted.order_id, missing=missing)
    return StockHeld(order_id=wanted.order_id, lines=wanted.lines)


@hold.undo
def let_go(cause: ReleaseStock, held: StockHeld, db: Connection) -> StockReleased:
    """Give back what the conducted order held."""
    return _give_back(held, db)


@service.on(final="what has left the house does not come back by itself")
def ship(order: OrderFulfilled, db: Connection) -> StockShipped:
    """Let what the order held leave the house."""
    if not stock.ship(db, order.order_id):
        raise Reject(f"order {order.order_id} is fulfilled, but holds nothing to ship")
    return StockShipped(order_id=order.order_id)


def _give_back(held: StockReserved | StockHeld, db: Connection) -> StockReleased:
    if not stock.give_back(db, held.order_id):
        raise Reject(f"order {held.order_id} holds nothing to give back")
    return StockReleased(order_id=held.order_id, lines=held.lines)
