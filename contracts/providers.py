"""What the providers context says: outside providers offer legs of trips, book and cancel them."""

from collections.abc import Iterable
from typing import Self

from choreo import Command, Event

from .money import Cents
from .travel import Booking, Leg, LegId, TripId


class QuoteTrip(Command, topic="providers.quote", subject="trip_id"):
    """Ask what the legs of a trip cost; nothing is booked."""

    trip_id: TripId
    legs: tuple[Leg, ...]


class TripQuoted(Event, topic="providers.quoted", subject="trip_id"):
    """The answer to `QuoteTrip`: there is such a provider and offer for each leg, at this price."""

    trip_id: TripId
    prices: tuple[Cents, ...]


class TripNotOffered(Event, topic="providers.not_offered", subject="trip_id"):
    """The answer to `QuoteTrip`: some leg is nothing that is offered."""

    trip_id: TripId
    reason: str


class BookLeg(Command, topic="providers.book_leg", subject="leg_id"):
    """Ask for one leg of a trip to be booked."""

    leg_id: LegId
    trip_id: TripId
    leg: Leg

    @classmethod
    def each(cls, trip_id: str, legs: Iterable[Leg]) -> tuple[Self, ...]:
        """A command for each leg of a trip, with an id of its own."""
        return tuple(
            cls(leg_id=f"{trip_id}.{number}", trip_id=trip_id, leg=leg)
            for number, leg in enumerate(legs, 1)
        )


class CancelLeg(Command, topic="providers.cancel_leg", subject="leg_id"):
    """Ask for the booking of one leg of a conducted trip to be taken back."""

    leg_id: LegId
    trip_id: TripId


class LegBooked(Event, topic="providers.leg_booked", subject="leg_id"):
    """The provider keeps a place; it can be given up until it is used."""

    leg_id: LegId
    trip_id: TripId
    provider: str
    offer: str
    booking_id: str
    price: Cents

    @property
    def booking(self) -> Booking:
        """What the trip has by it."""
        return Booking(**self.model_dump(exclude={"trip_id"}))


class LegRefused(Event, topic="providers.leg_refused", subject="leg_id"):
    """The provider does not book it: there is no place left, or no such offer."""

    leg_id: LegId
    trip_id: TripId
    provider: str
    reason: str


class LegCancelled(Event, topic="providers.leg_cancelled", subject="leg_id"):
    """The booking was taken back; the place is free again."""

    leg_id: LegId
    trip_id: TripId
    provider: str
    booking_id: str


class LegsBooked(Event, topic="providers.legs_booked", subject="trip_id"):
    """Every leg of a choreographed trip is booked."""

    trip_id: TripId
    bookings: tuple[Booking, ...]
    total: Cents
    card: str


class LegsFailed(Event, topic="providers.legs_failed", subject="trip_id"):
    """Some leg of a choreographed trip cannot be had."""

    trip_id: TripId
    reason: str
