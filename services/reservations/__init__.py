"""Reservations: take a trip in, and decide how it ends; conduct it, if that is what is wanted."""

from __future__ import annotations

from datetime import timedelta

from choreo import Ask, Conductor, Connection, Context, Failure, Reject, Service
from contracts.payments import (
    CapturePayment,
    PaymentRefused,
    PaymentReturned,
    PaymentTaken,
    RefundPayment,
    TripNotPaid,
    TripPaid,
)
from contracts.providers import (
    BookLeg,
    CancelLeg,
    LegBooked,
    LegCancelled,
    LegRefused,
    LegsFailed,
    QuoteTrip,
    TripNotOffered,
    TripQuoted,
)
from contracts.travel import (
    BookTrip,
    ConfirmationRejected,
    ConfirmReservation,
    ReservationConfirmed,
    ReserveTrip,
    TripCancelled,
    TripConfirmed,
    TripRejected,
    TripReserved,
)

from . import trips
from .settings import Settings

settings = Settings()
service = Service("reservations", tables=trips.tables)
_WITHIN = timedelta(seconds=settings.answer_s)


# A trip is reserved: it is asked what it costs, and nothing is booked.


@service.on(final="a trip that is reserved binds nobody")
def reserve(wanted: ReserveTrip, db: Connection, context: Context) -> QuoteTrip | TripRejected:
    """Have the trip priced, or refuse it at the door."""
    if reason := _unfit(wanted, db, context):
        return TripRejected(trip_id=wanted.trip_id, reason=reason)
    trips.ask(db, wanted)
    return QuoteTrip(trip_id=wanted.trip_id, legs=wanted.legs)


@service.on(final="a trip that is reserved binds nobody")
def keep(quoted: TripQuoted, db: Connection) -> TripReserved | None:
    """Keep the trip at these prices until it is confirmed."""
    return trips.reserve(db, quoted.trip_id, quoted.prices)


@service.on(final="a trip that was refused was never begun")
def refuse(cause: TripNotOffered, db: Connection) -> TripRejected | None:
    """Refuse a trip of which something is not to be had."""
    return _refuse(db, cause.trip_id, cause.reason)


@service.deadline(QuoteTrip, within=_WITHIN, until=TripQuoted | TripNotOffered)
def quote_late(wanted: QuoteTrip, db: Connection) -> TripRejected | None:
    """Refuse a trip that nobody prices in time."""
    return _refuse(db, wanted.trip_id, f"no price within {settings.answer_s:g} s")


def _unfit(wanted: ReserveTrip, db: Connection, context: Context) -> str | None:
    """Why there can be no such trip, if that is so."""
    if trips.state(db, wanted.trip_id) is not None:
        return f"the trip id {wanted.trip_id} is taken"
    if not wanted.legs:
        return "a trip needs at least one leg"
    for number, leg in enumerate(wanted.legs, 1):
        if leg.end < leg.start:
            return f"leg {number} ends on {leg.end}, before it starts on {leg.start}"
        if leg.start < context.time.date():
            return f"leg {number} starts on {leg.start}, which is past"
    return None


def _refuse(db: Connection, trip_id: str, reason: str) -> TripRejected | None:
    if not trips.move(db, trip_id, "asked", "rejected", reason):
        return None
    return TripRejected(trip_id=trip_id, reason=reason)


# It is confirmed: from here it is conducted or choreographed, as its reservation said.


@service.on(final="a trip that is confirmed is ended, not unmade")
def confirm(
    wanted: ConfirmReservation, db: Connection
) -> BookTrip | ReservationConfirmed | ConfirmationRejected:
    """Have a reserved trip booked and paid."""
    if not trips.move(db, wanted.trip_id, "reserved", "confirmed"):
        return ConfirmationRejected(trip_id=wanted.trip_id, reason=_why_not(db, wanted.trip_id))
    trip = trips.reserved(db, wanted.trip_id)
    if trip.way == "conducted":
        return BookTrip(
            trip_id=trip.trip_id,
            customer=trip.customer,
            legs=trip.legs,
            prices=trip.prices,
            card=wanted.card,
        )
    return ReservationConfirmed(
        trip_id=trip.trip_id,
        customer=trip.customer,
        legs=trip.legs,
        prices=trip.prices,
        total=trip.total,
        card=wanted.card,
    )


def _why_not(db: Connection, trip_id: str) -> str:
    state = trips.state(db, trip_id)
    if state is None:
        return f"there is no trip {trip_id}"
    return {
        "asked": f"the trip {trip_id} has no price yet",
        "reserved": f"the trip {trip_id} is not confirmed",
        "rejected": f"the trip {trip_id} was rejected",
        "cancelled": f"the trip {trip_id} was cancelled",
    }.get(state, f"the trip {trip_id} is confirmed already")


# Conducted: this service decides what comes next.


def book(trip: BookTrip, db: Connection) -> tuple[BookLeg, ...]:
    """Have every leg booked, side by side."""
    if not trips.move(db, trip.trip_id, "confirmed", "booking"):
        raise Reject(f"trip {trip.trip_id} is not to be booked: {_why_not(db, trip.trip_id)}")
    return BookLeg.each(trip.trip_id, trip.legs)


def unbook(asked: BookLeg) -> CancelLeg:
    """Have one leg given up."""
    return CancelLeg(leg_id=asked.leg_id, trip_id=asked.trip_id)


def pay(trip: BookTrip) -> CapturePayment:
    """Have the card charged with what the legs cost."""
    return CapturePayment(reference=trip.trip_id, card=trip.card, amount=sum(trip.prices))


def refund(asked: CapturePayment) -> RefundPayment:
    """Have the money given back."""
    return RefundPayment(reference=asked.reference)


def finish(
    trip: BookTrip, legs: tuple[LegBooked, ...], paid: PaymentTaken, db: Connection
) -> TripConfirmed:
    """End the trip well: all is booked and paid."""
    trips.move(db, trip.trip_id, "booking", "booked")
    return TripConfirmed(
        trip_id=trip.trip_id,
        customer=trip.customer,
        bookings=tuple(leg.booking for leg in legs),
        payment_id=paid.payment_id,
        amount=paid.amount,
    )


def give_up(trip: BookTrip, failure: Failure, db: Connection) -> TripCancelled:
    """End the trip badly: all that was done is undone."""
    trips.move(db, trip.trip_id, "booking", "cancelled", failure.reason)
    return TripCancelled(trip_id=trip.trip_id, customer=trip.customer, reason=failure.reason)


conductor = Conductor(
    service,
    "trip",
    starts=BookTrip,
    steps=[
        Ask(
            book,
            good=LegBooked,
            bad=LegRefused,
            undo=unbook,
            undone=LegCancelled,
            within=_WITHIN,
        ),
        Ask(
            pay,
            good=PaymentTaken,
            bad=PaymentRefused,
            undo=refund,
            undone=PaymentReturned,
            within=_WITHIN,
        ),
    ],
    ends=finish,
    fails=give_up,
)


# Choreographed: providers and payments know their parts; this service says how it ended.


@service.on(final="a trip ends once")
def conclude(paid: TripPaid, db: Connection) -> TripConfirmed | None:
    """End the trip well, unless it has ended."""
    if not trips.move(db, paid.trip_id, "confirmed", "booked"):
        return None
    return TripConfirmed(
        trip_id=paid.trip_id,
        customer=trips.reserved(db, paid.trip_id).customer,
        bookings=paid.bookings,
        payment_id=paid.payment_id,
        amount=paid.amount,
    )


@service.on(final="a trip ends once")
def abandon(cause: LegsFailed | TripNotPaid, db: Connection) -> TripCancelled | None:
    """End the trip badly, unless it has ended."""
    return _cancel(db, cause.trip_id, cause.reason)


@service.deadline(ReservationConfirmed, within=_WITHIN, until=TripConfirmed | TripCancelled)
def expire(trip: ReservationConfirmed, db: Connection) -> TripCancelled | None:
    """End a choreographed trip that nobody has ended in time."""
    return _cancel(db, trip.trip_id, f"not booked and paid within {settings.answer_s:g} s")


def _cancel(db: Connection, trip_id: str, reason: str) -> TripCancelled | None:
    if not trips.move(db, trip_id, "confirmed", "cancelled", reason):
        return None
    customer = trips.reserved(db, trip_id).customer
    return TripCancelled(trip_id=trip_id, customer=customer, reason=reason)
