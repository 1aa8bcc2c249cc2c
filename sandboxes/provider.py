r"""What a provider of travel is: so many places of each offer, booked and given back.

    GET  /offers                  every offer: its price, its places in all, how many are free
    POST /bookings {"trip_id", "leg_id", "offer", "start", "end"}
                                  201 {"booking_id", "price", ...} or 422 {"error", "reason"}
    POST /bookings/{id}/cancel    200: its place is free again
    GET  /ledger                  every booking and cancellation ever made
    GET  /health                  200

Both POSTs need the header Idempotency-Key. An effect is committed before it is answered. A key
that is used again gets the first answer again and no second effect; with another request it gets
422 with "error": "key_reused". A booking is cancelled once, whatever the key. Prices are whole
cents. An offer has its places once, whatever the days.

What is slow or lost is so on the first try of a key only; SANDBOX_SLOW_S says how slow.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import NoReturn

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from sandboxes import server
from sandboxes.ledger import Answer, Effect, Ledger, refusal

_EXAMPLES = r"""
Examples:
    python -m sandboxes.{name}
    python -m sandboxes.{name} --port 8083 --ledger /tmp/{name}.db
    curl "$(cat var/{name}.url)/offers"
    curl "$(cat var/{name}.url)/bookings" -H 'Idempotency-Key: one' -d '{{"trip_id": "t-1",
        "leg_id": "t-1.1", "offer": "{offer}", "start": "2030-05-01", "end": "2030-05-08"}}'
"""


@dataclass(frozen=True, slots=True)
class Offer:
    """What one place costs, how many there are in all, and how it misbehaves."""

    price: int
    places: int
    slow: bool = False
    loses_answer: bool = False

    def __str__(self) -> str:
        if self.slow:
            return f"booked at once, answered after {server.SLOW_S:g} seconds"
        if self.loses_answer:
            return "booked, but the first answer is lost: the connection is cut"
        return "booked while there are places" if self.places else "always sold out"


class Booking(BaseModel):
    """The body of POST /bookings."""

    model_config = ConfigDict(strict=True)

    trip_id: str
    leg_id: str
    offer: str
    start: date
    end: date


class Provider:
    """The requests of a provider, decided over its ledger."""

    def __init__(self, ledger: Ledger, offers: Mapping[str, Offer]) -> None:
        self._ledger = ledger
        self._offers = offers

    async def show(self, _: web.Request) -> web.Response:
        """GET /offers."""
        return web.json_response(
            [
                {"offer": name, "price": one.price, "places": one.places, "free": self._free(name)}
                for name, one in self._offers.items()
            ]
        )

    async def book(self, request: web.Request) -> web.Response:
        """POST /bookings."""
        key, booking = server.key_of(request), await server.body_of(request, Booking)
        answer, first = self._ledger.once(
            key, f"book {booking.model_dump_json()}", lambda: self._book(key, booking)
        )
        offer = self._offers.get(booking.offer)
        if offer and first and offer.slow:
            await asyncio.sleep(server.SLOW_S)
        if offer and first and offer.loses_answer:
            return server.cut(request)
        return server.respond(answer)

    async def cancel(self, request: web.Request) -> web.Response:
        """POST /bookings/{id}/cancel."""
        key, booking_id = server.key_of(request), request.match_info["id"]
        answer, _ = self._ledger.once(
            key, f"cancel {booking_id}", lambda: self._cancel(key, booking_id)
        )
        return server.respond(answer)

    def _free(self, offer: str) -> int:
        """Count what the ledger says: so it is right after a restart too."""
        standing = self._ledger.count("booking", offer) - self._ledger.count("cancellation", offer)
        return self._offers[offer].places - standing

    def _book(self, key: str, booking: Booking) -> Answer:
        offer = self._offers.get(booking.offer)
        if offer is None:
            there = ", ".join(self._offers)
            return refusal(
                422, "unknown_offer", f"there is no offer {booking.offer!r}; there are {there}"
            )
        if self._free(booking.offer) <= 0:
            return refusal(422, "sold_out", f"{booking.offer} is sold out")
        booking_id = f"book_{uuid.uuid4().hex}"
        self._ledger.record(
            Effect("booking", key, booking.trip_id, booking_id, offer.price, booking.offer)
        )
        return Answer(201, {"booking_id": booking_id, "offer": booking.offer, "price": offer.price})

    def _cancel(self, key: str, booking_id: str) -> Answer:
        booked = self._ledger.find("booking", booking_id)
        if booked is None:
            return refusal(404, "unknown", f"there is no booking {booking_id!r}")
        if not self._ledger.find("cancellation", booking_id):
            self._ledger.record(replace(booked, kind="cancellation", key=key))
        return Answer(200, {"booking_id": booking_id, "offer": booked.offer})


def application(ledger: Ledger, offers: Mapping[str, Offer]) -> web.Application:
    """Build a provider with these offers over this ledger."""
    provider = Provider(ledger, offers)
    return server.application(
        ledger,
        [
            web.get("/offers", provider.show),
            web.post("/bookings", provider.book),
            web.post("/bookings/{id}/cancel", provider.cancel),
        ],
    )


def main(name: str, about: str, offers: Mapping[str, Offer]) -> NoReturn:
    """Run a provider under this name, with these offers, until SIGTERM or SIGINT."""
    _, _, rules = (__doc__ or "").partition("\n")
    head = f"    {'offer':<12}{'price':>8}{'places':>10}   what happens"
    table = (f"    {key:<12}{one.price:>8}{one.places:>10}   {one}" for key, one in offers.items())
    examples = _EXAMPLES.format(name=name, offer=next(iter(offers)))
    server.main(
        name,
        "\n".join([about, rules, head, *table, examples]),
        lambda ledger: application(ledger, offers),
    )
