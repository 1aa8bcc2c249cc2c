"""What the orders context says: an order is placed, then fulfilled, cancelled or rejected.

An order is choreographed (`PlaceOrder`) or conducted (`ProcessOrder`): the command that starts it
chooses. Its ends are the same.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from choreo import Command, Event

from .customers import Customer
from .money import Card, Cents
from .words import PLAIN

OrderId = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$")]


class Line(BaseModel):
    """One line of an order: so many of one article."""

    model_config = ConfigDict(frozen=True)

    sku: Annotated[str, Field(min_length=1, max_length=64, pattern=PLAIN)]
    quantity: Annotated[int, Field(ge=1, le=10_000)]


Lines = Annotated[tuple[Line, ...], Field(min_length=1, max_length=100)]


class PlaceOrder(Command, topic="orders.place", subject="order_id"):
    """Ask for an order that the services carry out by themselves."""

    order_id: OrderId
    customer: Customer
    card: Card
    lines: Lines


class ProcessOrder(Command, topic="orders.process", subject="order_id"):
    """Ask for an order that a conductor carries out."""

    order_id: OrderId
    customer: Customer
    card: Card
    lines: Lines


class OpenOrder(Command, topic="orders.open", subject="order_id"):
    """Ask the order book to check, price and open an order that is conducted."""

    order_id: OrderId
    customer: Customer
    lines: Lines


class FulfilOrder(Command, topic="orders.fulfil", subject="order_id"):
    """Ask the order book to end a conducted order well."""

    order_id: OrderId
    shipment_id: str


class CancelOrder(Command, topic="orders.cancel", subject="order_id"):
    """Ask the order book to end a conducted order badly."""

    order_id: OrderId
    reason: str


class OrderPlaced(Event, topic="orders.placed", subject="order_id"):
    """An order was accepted and priced; it is open, and whoever has a part in it begins."""

    order_id: OrderId
    customer: Customer
    card: str
    lines: tuple[Line, ...]
    total: Cents


class OrderOpened(Event, topic="orders.opened", subject="order_id"):
    """A conducted order was accepted and priced; it is open, and its conductor goes on."""

    order_id: OrderId
    total: Cents


class OrderPaid(Event, topic="orders.paid", subject="order_id"):
    """The money of a conducted order came in."""

    order_id: OrderId
    customer: Customer
    lines: tuple[Line, ...]
    amount: Cents


class OrderRejected(Event, topic="orders.rejected", subject="order_id"):
    """The order was refused at the door; nothing was begun."""

    order_id: OrderId
    reason: str


class OrderFulfilled(Event, topic="orders.fulfilled", subject="order_id"):
    """The order ended well: paid, and a shipment is booked."""

    order_id: OrderId
    shipment_id: str


class OrderCancelled(Event, topic="orders.cancelled", subject="order_id"):
    """The order ended badly; whatever was done for it is undone, or is to be."""

    order_id: OrderId
    customer: Customer
    reason: str
