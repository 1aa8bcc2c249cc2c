"""A service with one of everything, for the tests of a message's life to play with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from choreo import Connection, Context, Event, Service


class Booked(Event, topic="stage.booked", subject="seat"):
    trip: str
    seat: str


class Held(Event, topic="stage.held", subject="seat"):
    trip: str
    seat: str


class Freed(Event, topic="stage.freed", subject="seat"):
    trip: str
    seat: str


class Dropped(Event, topic="stage.dropped", subject="seat"):
    """One seat is given up."""

    seat: str


class TripDied(Event, topic="stage.trip_died"):
    """The whole trip is given up: no subject."""

    trip: str


class TripFailed(Event, topic="stage.trip_failed"):
    trip: str


class Charge(Event, topic="stage.charge", subject="seat"):
    trip: str
    seat: str


class Charged(Event, topic="stage.charged", subject="seat"):
    seat: str
    payment: str


class Declined(Event, topic="stage.declined", subject="seat"):
    seat: str


class Refunded(Event, topic="stage.refunded", subject="seat"):
    seat: str
    payment: str


class Greeted(Event, topic="stage.greeted"):
    seat: str


class Begun(Event, topic="stage.begun"):
    trip: str


class Opened(Event, topic="stage.opened"):
    trip: str


class Over(Event, topic="stage.over"):
    trip: str


class Late(Event, topic="stage.late"):
    trip: str


class Outside:
    """The outside world, as the test wants it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.answers: list[Any] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def call(self, what: str, key: str) -> str:
        self.calls.append((what, key))
        await self.gate.wait()
        answer = self.answers.pop(0) if self.answers else f"{what}-{key}"
        if isinstance(answer, Exception):
            raise answer
        return str(answer)


class Theatre:
    """A service with one of everything."""

    def __init__(self, *, expires: timedelta = timedelta(seconds=1)) -> None:
        self.outside = Outside()
        self.failures: dict[str, list[Exception]] = {}
        self.undo_failures: list[Exception] = []
        metadata = sa.MetaData()
        self.seats = sa.Table(
            "seats",
            metadata,
            sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
            sa.Column("seat", sa.String),
            sa.Column("what", sa.String),
        )
        self.service = Service("theatre", tables=metadata)
        self._declare(expires)

    def write(self, db: Connection, seat: str, what: str) -> None:
        db.execute(self.seats.insert(), {"seat": seat, "what": what})

    def _declare(self, expires: timedelta) -> None:  # noqa: C901 - all its handlers are declared in it
        service = self.service

        @service.adapter
        async def open_outside() -> AsyncGenerator[Outside, None]:
            yield self.outside

        @service.on
        def hold(booked: Booked, db: Connection) -> Held:
            self.write(db, booked.seat, "held")
            if failures := self.failures.get(booked.seat):
                raise failures.pop(0)
            return Held(trip=booked.trip, seat=booked.seat)

        @hold.undo
        def free(cause: TripDied | TripFailed | Dropped, held: Held, db: Connection) -> Freed:
            if self.undo_failures:
                raise self.undo_failures.pop(0)
            self.write(db, held.seat, "freed")
            return Freed(trip=held.trip, seat=held.seat)

        @service.on(timeout=timedelta(minutes=2))
        async def charge(wanted: Charge, outside: Outside, context: Context) -> Charged | Declined:
            answer = await outside.call("charge", context.key)
            if answer == "declined":
                return Declined(seat=wanted.seat)
            return Charged(seat=wanted.seat, payment=answer)

        @charge.undo
        async def refund(
            cause: TripDied | TripFailed | Dropped,
            paid: Charged,
            context: Context,
            outside: Outside,
        ) -> Refunded:
            await outside.call("refund", context.key)
            return Refunded(seat=paid.seat, payment=paid.payment)

        @service.on(final="a greeting cannot be taken back", unless=TripDied)
        def greet(held: Held, db: Connection) -> Greeted:
            return Greeted(seat=held.seat)

        @service.on(final="only opens")
        def begin(begun: Begun) -> Opened:
            return Opened(trip=begun.trip)

        @service.deadline(Opened, within=expires, until=Over)
        def expire(opened: Opened, db: Connection) -> Late:
            self.write(db, opened.trip, "late")
            return Late(trip=opened.trip)
