"""What the orders context says: an order is placed, then fulfilled, cancelled or rejected."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from choreo import Command, Event

from .money import Cents

OrderId = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$")]
Email = Annotated[str, Field(max_length=254, pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]


class Line(BaseModel):
    """One line of an order: so many of one article."""

    model_config = ConfigDict(frozen=True)

    sku: Annotated[str, Field(min_length=1, max_length=64)]
    quantity: Annotated[int, Field(ge=1, le=10_000)]


class Customer(BaseModel):
    """Who orders, and where the parcel and the mail go."""

    model_config = ConfigDict(frozen=True)

    customer_id: Annotated[str, Field(min_length=1, max_length=64)]
    email: Email
    address: Annotated[str, Field(min_length=1, max_length=500)]
    member: bool = False


class PlaceOrder(Command, topic="orders.place", subject="order_id"):
    """Ask for an order to be placed."""

    order_id: OrderId
    customer: Customer
    card: Annotated[str, Field(min_length=1, max_length=64)]
    lines: Annotated[tuple[Line, ...], Field(min_length=1, max_length=100)]


class OrderPlaced(Event, topic="orders.placed", subject="order_id"):
    """An order was accepted and priced; it is open."""

    order_id: OrderId
    customer: Customer
    card: str
    lines: tuple[Line, ...]
    total: Cents


class OrderRejected(Event, topic="orders.rejected", subject="order_id"):
    """The order was refused at the door; nothing was begun."""

    order_id: OrderId
    reason: str


class OrderFulfilled(Event, topic="orders.fulfilled", subject="order_id"):
    """The order ended well: paid, and a shipment is booked."""

    order_id: OrderId
    shipment_id: str


class OrderCancelled(Event, topic="orders.cancelled", subject="order_id"):
    """The order ended badly; whatever was done for it is to be undone."""

    order_id: OrderId
    customer: Customer
    reason: str
