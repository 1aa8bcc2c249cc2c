"""Providers: ask what the legs of a trip cost, book them outside, and take bookings back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta

import aiohttp

from choreo import Ask, Conductor, Context, Failure, Service
from contracts.providers import (
    BookLeg,
    CancelLeg,
    LegBooked,
    LegCancelled,
    LegRefused,
    LegsBooked,
    LegsFailed,
    QuoteTrip,
    TripNotOffered,
    TripQuoted,
)
from contracts.travel import ReservationConfirmed, TripCancelled

from .outside import NotOfferedError, Providers, Settings

service = Service("providers")


@service.adapter
async def open_providers() -> AsyncGenerator[Providers]:
    """Keep connections to the providers while the service runs."""
    async with aiohttp.ClientSession() as http:
        yield Providers(http, Settings())


@service.on(final="asking changes nothing", timeout=timedelta(seconds=10))
async def quote(wanted: QuoteTrip, providers: Providers) -> TripQuoted | TripNotOffered:
    """Tell what every leg costs, or which one is nothing that is offered."""
    try:
        prices = await providers.prices(wanted.legs)
    except NotOfferedError as not_offered:
        return TripNotOffered(trip_id=wanted.trip_id, reason=str(not_offered))
    return TripQuoted(trip_id=wanted.trip_id, prices=prices)


@service.on(timeout=timedelta(seconds=10))
async def book(wanted: BookLeg, context: Context, providers: Providers) -> LegBooked | LegRefused:
    """Book one leg with its provider; until it is used it can be cancelled."""
    leg = wanted.leg
    try:
        booked = await providers.book(
            key=context.key, trip_id=wanted.trip_id, leg_id=wanted.leg_id, leg=leg
        )
    except NotOfferedError as not_offered:
        return LegRefused(
            leg_id=wanted.leg_id,
            trip_id=wanted.trip_id,
            provider=leg.provider,
            reason=str(not_offered),
        )
    return LegBooked(
        leg_id=wanted.leg_id,
        trip_id=wanted.trip_id,
        provider=leg.provider,
        offer=leg.offer,
        booking_id=booked.booking_id,
        price=booked.price,
    )


@book.undo
async def cancel(
    cause: CancelLeg | TripCancelled, booked: LegBooked, context: Context, providers: Providers
) -> LegCancelled:
    """Give the place back."""
    await providers.cancel(key=context.key, provider=booked.provider, booking_id=booked.booking_id)
    return LegCancelled(
        leg_id=booked.leg_id,
        trip_id=booked.trip_id,
        provider=booked.provider,
        booking_id=booked.booking_id,
    )


# A conducted step inside a choreographed trip: this context books all its legs, or says that it
# cannot. What it booked is undone by the choreography, as any step is: by `cancel` above.


def gather(trip: ReservationConfirmed) -> tuple[BookLeg, ...]:
    """Have every leg booked, side by side."""
    return BookLeg.each(trip.trip_id, trip.legs)


def deliver(trip: ReservationConfirmed, legs: tuple[LegBooked, ...]) -> LegsBooked:
    """Announce that every leg is booked, and what is to be paid for them."""
    return LegsBooked(
        trip_id=trip.trip_id,
        bookings=tuple(leg.booking for leg in legs),
        total=trip.total,
        card=trip.card,
    )


def fail(trip: ReservationConfirmed, failure: Failure) -> LegsFailed:
    """Announce that some leg cannot be had."""
    return LegsFailed(trip_id=trip.trip_id, reason=failure.reason)


legs = Conductor(
    service,
    "legs",
    starts=ReservationConfirmed,
    steps=[
        Ask(
            gather,
            good=LegBooked,
            bad=LegRefused,
            within=timedelta(seconds=Settings().answer_s),
            final="TripCancelled undoes it",
        )
    ],
    ends=deliver,
    fails=fail,
)
