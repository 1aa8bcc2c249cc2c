"""What the accounts context says: a customer has an account."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from choreo import Command, Event

from .customers import CustomerId, Email


class Preference(BaseModel):
    """What a customer likes to have from a kind of provider."""

    model_config = ConfigDict(frozen=True)

    #: airline, hotel, car, ...
    provider: Annotated[str, Field(min_length=1, max_length=32)]
    name: Annotated[str, Field(min_length=1, max_length=64)]
    value: Annotated[str, Field(max_length=255)]


Preferences = Annotated[tuple[Preference, ...], Field(max_length=100)]


class RegisterAccount(Command, topic="accounts.register", subject="customer_id"):
    """Ask for an account."""

    customer_id: CustomerId
    name: Annotated[str, Field(max_length=200)]
    #: What is no mail address is a rejection.
    email: Annotated[str, Field(max_length=254)]
    address: Annotated[str, Field(max_length=500)]
    member: bool = False
    preferences: Preferences = ()


class AccountRegistered(Event, topic="accounts.registered", subject="customer_id"):
    """A customer has an account; nobody else has one with this mail address."""

    customer_id: CustomerId
    name: str
    email: Email
    address: str
    member: bool
    preferences: Preferences


class AccountRejected(Event, topic="accounts.rejected", subject="customer_id"):
    """There is no account, for this reason; nothing was begun."""

    customer_id: CustomerId
    reason: str
