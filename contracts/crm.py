"""What the crm context says: it knows a customer."""

from choreo import Event

from .customers import CustomerId


class ProfileOpened(Event, topic="crm.profile_opened", subject="customer_id"):
    """There is a profile of a customer who registered."""

    customer_id: CustomerId
