"""What the shipping context says: a shipment is booked, collected, or recalled."""

from typing import Annotated

from pydantic import Field

from choreo import Command, Event

from .orders import OrderId
from .words import PLAIN


class BookShipment(Command, topic="shipping.book", subject="order_id"):
    """Ask for a parcel to be booked for a conducted order."""

    order_id: OrderId
    address: Annotated[str, Field(min_length=1, max_length=500, pattern=PLAIN)]


class RecallShipment(Command, topic="shipping.recall", subject="order_id"):
    """Ask for the parcel of a conducted order to be recalled."""

    order_id: OrderId


class ShipmentBooked(Event, topic="shipping.booked", subject="order_id"):
    """The carrier will come for the parcel; it can be recalled until it is collected."""

    order_id: OrderId
    shipment_id: str


class ShipmentFailed(Event, topic="shipping.failed", subject="order_id"):
    """The carrier does not take the parcel."""

    order_id: OrderId
    reason: str


class ShipmentArranged(Event, topic="shipping.arranged", subject="order_id"):
    """The answer to `BookShipment`: the carrier will come for the parcel."""

    order_id: OrderId
    shipment_id: str


class ShipmentRefused(Event, topic="shipping.refused", subject="order_id"):
    """The answer to `BookShipment`: the carrier does not take the parcel."""

    order_id: OrderId
    reason: str


class ShipmentCollected(Event, topic="shipping.collected", subject="order_id"):
    """The carrier has the parcel; there is no way back."""

    order_id: OrderId
    shipment_id: str


class ShipmentRecalled(Event, topic="shipping.recalled", subject="order_id"):
    """The booking was taken back before collection."""

    order_id: OrderId
    shipment_id: str
