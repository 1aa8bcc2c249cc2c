"""What the payments context says: money is captured, declined, or refunded."""

from typing import Annotated

from pydantic import Field

from choreo import Command, Event

from .customers import Customer
from .money import Card, Cents
from .orders import Line, OrderId
from .travel import Booking, TripId
from .words import PLAIN

#: What a payment is for, in the words of whoever asks for it: an order, a trip.
Reference = Annotated[str, Field(min_length=1, max_length=64, pattern=PLAIN)]


class CapturePayment(Command, topic="payments.capture", subject="reference"):
    """Ask for a card to be charged, for whatever it is."""

    reference: Reference
    card: Card
    amount: Cents


class RefundPayment(Command, topic="payments.refund", subject="reference"):
    """Ask for the charge that answered `CapturePayment` to be given back."""

    reference: Reference


class PaymentTaken(Event, topic="payments.taken", subject="reference"):
    """The answer to `CapturePayment`: the card was charged."""

    reference: Reference
    payment_id: str
    amount: Cents


class PaymentRefused(Event, topic="payments.refused", subject="reference"):
    """The answer to `CapturePayment`: the card was not charged, and never will be for this."""

    reference: Reference
    reason: str


class PaymentReturned(Event, topic="payments.returned", subject="reference"):
    """The charge that answered `CapturePayment` was given back in full."""

    reference: Reference
    payment_id: str
    amount: Cents


class PaymentCaptured(Event, topic="payments.captured", subject="order_id"):
    """The card was charged for an order."""

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
    """The charge for an order was given back in full."""

    order_id: OrderId
    payment_id: str
    amount: Cents


class TripPaid(Event, topic="payments.trip_paid", subject="trip_id"):
    """The card was charged for a choreographed trip."""

    trip_id: TripId
    bookings: tuple[Booking, ...]
    payment_id: str
    amount: Cents


class TripNotPaid(Event, topic="payments.trip_not_paid", subject="trip_id"):
    """The card was not charged, and never will be for this trip."""

    trip_id: TripId
    reason: str


class TripRefunded(Event, topic="payments.trip_refunded", subject="trip_id"):
    """The charge for a choreographed trip was given back in full."""

    trip_id: TripId
    payment_id: str
    amount: Cents
