"""What the notifications context says: a mail was sent."""

from choreo import Event

from .orders import OrderId


class EmailSent(Event, topic="notifications.email_sent", subject="order_id"):
    """A mail went out; it cannot be unsent."""

    order_id: OrderId
    to: str
    subject_line: str
