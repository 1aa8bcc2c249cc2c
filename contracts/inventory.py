"""What the inventory context says: stock is held, shipped, or given back."""

from pydantic import BaseModel, ConfigDict

from choreo import Command, Event

from .customers import Customer
from .money import Cents
from .orders import Line, Lines, OrderId


class Missing(BaseModel):
    """An article of which too little is on the shelf."""

    model_config = ConfigDict(frozen=True)

    sku: str
    wanted: int
    available: int


class HoldStock(Command, topic="inventory.hold", subject="order_id"):
    """Ask for every line of a conducted order to be held."""

    order_id: OrderId
    lines: Lines


class ReleaseStock(Command, topic="inventory.release", subject="order_id"):
    """Ask for what a conducted order holds to be given back."""

    order_id: OrderId


class StockReserved(Event, topic="inventory.stock_reserved", subject="order_id"):
    """Every line of the order is held."""

    order_id: OrderId
    customer: Customer
    card: str
    lines: tuple[Line, ...]
    total: Cents


class StockRejected(Event, topic="inventory.stock_rejected", subject="order_id"):
    """Some line cannot be held, so none is."""

    order_id: OrderId
    missing: tuple[Missing, ...]


class StockHeld(Event, topic="inventory.stock_held", subject="order_id"):
    """The answer to `HoldStock`: every line is held."""

    order_id: OrderId
    lines: tuple[Line, ...]


class StockLacking(Event, topic="inventory.stock_lacking", subject="order_id"):
    """The answer to `HoldStock`: some line cannot be held, so none is."""

    order_id: OrderId
    missing: tuple[Missing, ...]


class StockReleased(Event, topic="inventory.stock_released", subject="order_id"):
    """What was held for the order is back on the shelf."""

    order_id: OrderId
    lines: tuple[Line, ...]


class StockShipped(Event, topic="inventory.stock_shipped", subject="order_id"):
    """What was held for the order has left the house."""

    order_id: OrderId
