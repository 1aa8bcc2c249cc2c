"""What the notifications context says: a mail was sent."""

from choreo import Event

from .customers import CustomerId


class EmailSent(Event, topic="notifications.email_sent", subject="reference"):
    """A mail went out; it cannot be unsent."""

    #: What it was about: an order, a trip, an account.
    reference: str
    customer_id: CustomerId
    to: str
    subject_line: str
