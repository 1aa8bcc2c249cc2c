"""What the notifications context says: a mail was sent."""

from typing import Literal

from choreo import Event

from .customers import CustomerId


class EmailSent(Event, topic="notifications.email_sent", subject="reference"):
    """A mail went out; it cannot be unsent."""

    about: Literal["order", "trip", "account"]
    #: The id of that order or trip, or of the account's customer.
    reference: str
    customer_id: CustomerId
    to: str
    subject_line: str
