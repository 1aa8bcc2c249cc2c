"""What the travel context says: a trip is reserved, then confirmed, cancelled or rejected.

A trip is conducted or choreographed: the command that starts it chooses. Its ends are the same.
"""

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from choreo import Command, Event

from .customers import Customer
from .money import Card, Cents
from .words import PLAIN

TripId = Annotated[str, Field(min_length=1, max_length=48, pattern=r"^[A-Za-z0-9_.:-]+$")]
#: One booking of a trip: the trip's id and a number.
LegId = Annotated[str, Field(min_length=1, max_length=64, pattern=PLAIN)]
#: Who decides the next step.
Way = Literal["conducted", "choreographed"]


class Leg(BaseModel):
    """One booking that a trip wants: an offer of a provider, from a day to a day."""

    model_config = ConfigDict(frozen=True)

    #: airline, hotel, car, ...
    provider: Annotated[str, Field(min_length=1, max_length=32, pattern=PLAIN)]
    offer: Annotated[str, Field(min_length=1, max_length=64, pattern=PLAIN)]
    start: date
    end: date


class Booking(BaseModel):
    """One booking that a trip has."""

    model_config = ConfigDict(frozen=True)

    leg_id: LegId
    provider: str
    offer: str
    booking_id: str
    price: Cents


class ReserveTrip(Command, topic="travel.reserve", subject="trip_id"):
    """Ask for a trip; nothing is booked before it is confirmed."""

    trip_id: TripId
    customer: Customer
    #: In the order in which they are wanted; none, or dates out of order, is a rejection.
    legs: Annotated[tuple[Leg, ...], Field(max_length=20)]
    way: Way = "conducted"


class ConfirmReservation(Command, topic="travel.confirm", subject="trip_id"):
    """Confirm a reserved trip, with the card that is to pay for it."""

    trip_id: TripId
    card: Card


class BookTrip(Command, topic="travel.book", subject="trip_id"):
    """Have a confirmed reservation conducted: all is booked and paid, or nothing is."""

    trip_id: TripId
    customer: Customer
    legs: tuple[Leg, ...]
    #: Of each leg.
    prices: tuple[Cents, ...]
    card: str


class TripReserved(Event, topic="travel.reserved", subject="trip_id"):
    """The trip can be had at these prices; it waits for its confirmation."""

    trip_id: TripId
    customer: Customer
    legs: tuple[Leg, ...]
    prices: tuple[Cents, ...]
    total: Cents
    way: Way


class TripRejected(Event, topic="travel.rejected", subject="trip_id"):
    """The trip was refused at the door; nothing was begun."""

    trip_id: TripId
    reason: str


class ConfirmationRejected(Event, topic="travel.confirmation_rejected", subject="trip_id"):
    """There is nothing to confirm; nothing was begun."""

    trip_id: TripId
    reason: str


class ReservationConfirmed(Event, topic="travel.reservation_confirmed", subject="trip_id"):
    """The customer wants the choreographed trip; whoever has a part in it begins."""

    trip_id: TripId
    customer: Customer
    legs: tuple[Leg, ...]
    prices: tuple[Cents, ...]
    total: Cents
    card: str


class TripConfirmed(Event, topic="travel.confirmed", subject="trip_id"):
    """The trip ended well: everything is booked and paid."""

    trip_id: TripId
    customer: Customer
    bookings: tuple[Booking, ...]
    payment_id: str
    amount: Cents


class TripCancelled(Event, topic="travel.cancelled"):
    """The trip ended badly; whatever was done for it is undone, or is to be.

    It has no subject: it reaches every booking of its flow.
    """

    trip_id: TripId
    customer: Customer
    reason: str
