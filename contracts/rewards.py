"""What the rewards context says: points are granted to members, or revoked."""

from choreo import Event

from .customers import CustomerId
from .orders import OrderId
from .travel import TripId


class PointsGranted(Event, topic="rewards.granted", subject="order_id"):
    """A member was given points for a paid order."""

    order_id: OrderId
    customer_id: CustomerId
    points: int


class PointsRevoked(Event, topic="rewards.revoked", subject="order_id"):
    """The points of a cancelled order were taken back."""

    order_id: OrderId
    customer_id: CustomerId
    points: int


class TripPointsGranted(Event, topic="rewards.trip_granted", subject="trip_id"):
    """A member was given points for a confirmed trip."""

    trip_id: TripId
    customer_id: CustomerId
    points: int
