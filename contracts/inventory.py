"""What the inventory context says: stock is held, shipped, or given back."""

from pydantic import BaseModel, ConfigDict

from choreo import Event

from .money import Cents
from .orders import Customer, Line, OrderId


class Missing(BaseModel):
    """An article of which too little is on the shelf."""

    model_config = ConfigDict(frozen=True)

    sku: str
    wanted: int
    available: int


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


class StockReleased(Event, topic="inventory.stock_released", subject="order_id"):
    """What was held for the order is back on the shelf."""

    order_id: OrderId
    lines: tuple[Line, ...]


class StockShipped(Event, topic="inventory.stock_shipped", subject="order_id"):
    """What was held for the order has left the house."""

    order_id: OrderId
