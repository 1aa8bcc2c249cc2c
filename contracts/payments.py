"""What the payments context says: money is captured, declined, or refunded."""

from choreo import Event

from .money import Cents
from .orders import Customer, Line, OrderId


class PaymentCaptured(Event, topic="payments.captured", subject="order_id"):
    """The card was charged."""

    order_id: OrderId
    customer: Customer
    lines: tuple[Line, ...]
    payment_id: str
    amount: Cents


class PaymentDeclined(Event, topic="payments.declined", subject="order_id"):
    """The card was not charged, and never will be for this order."""

    order_id: OrderId
    reason: str


class PaymentRefunded(Event, topic="payments.refunded", subject="order_id"):
    """The charge was given back in full."""

    order_id: OrderId
    payment_id: str
    amount: Cents
