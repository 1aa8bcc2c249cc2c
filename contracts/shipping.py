"""What the shipping context says: a shipment is booked, collected, or recalled."""

from choreo import Event

from .orders import OrderId


class ShipmentBooked(Event, topic="shipping.booked", subject="order_id"):
    """The carrier will come for the parcel; it can be recalled until it is collected."""

    order_id: OrderId
    shipment_id: str


class ShipmentFailed(Event, topic="shipping.failed", subject="order_id"):
    """The carrier does not take the parcel."""

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
