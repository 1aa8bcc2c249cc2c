"""Reserves and confirms test trips in a running system and follows each to its end."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated

import program
import typer
from following import follow
from sending import fresh

from choreo import CannotRunError
from contracts.customers import Customer
from contracts.travel import ConfirmReservation, Leg, ReserveTrip

_START = date.today() + timedelta(days=30)
_DAYS = f"{_START}", f"{_START + timedelta(days=7)}"
_LEGS = ["airline:ROME-1", "hotel:ROOM-1", "car:CAR-1"]


def main(
    *,
    leg: Annotated[
        list[str],
        typer.Option(
            metavar="PROVIDER:OFFER[:FROM:TO]",
            help="A booking, by default for a week in a month; may be repeated.",
        ),
    ] = _LEGS,
    card: Annotated[str, typer.Option(help="4000-0002 is declined.")] = "4242-4242",
    member: Annotated[bool, typer.Option("--member", help="The customer gets points.")] = False,
    choreographed: Annotated[
        bool, typer.Option("--choreographed", help="Without a conductor.")
    ] = False,
    count: Annotated[int, typer.Option(min=1, help="Book so many such trips at once.")] = 1,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds to wait for the end of each of the two flows.")
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Reserve a trip in a running system ('choreo up'), confirm it, and follow it to its end.

    All bookings are made and the card is charged, or nothing is. Reserving and confirming are a
    flow each; what is rejected is not confirmed.

    For example:

        scripts/book-trip --card 4000-0002 --choreographed

        scripts/book-trip --member --leg hotel:ROOM-1 --leg car:CAR-NEVER

    What is on offer: python -m sandboxes.airline --help, and sandboxes.hotel, sandboxes.car.

    Exit code 0: every flow came to an end. 1: one did not, or a message of it became a dead
    letter. 2: an option is wrong, or there is no broker.
    """
    with program.options("leg"):
        legs = tuple(map(_leg, leg))
    with program.options():
        customer = Customer(
            customer_id="test-customer",
            email="customer@example.com",
            address="1 Main Street",
            member=member,
        )
        way = "choreographed" if choreographed else "conducted"
        trips = [
            (
                ReserveTrip(trip_id=one, customer=customer, legs=legs, way=way),
                ConfirmReservation(trip_id=one, card=card),
            )
            for one in (fresh("trip") for _ in range(count))
        ]
    follow(trips, "flows", script="book-trip", timeout_s=timeout, as_json=as_json)


def _leg(text: str) -> Leg:
    match text.split(":"):
        case [provider, offer]:
            start, end = _DAYS
        case [provider, offer, start, end]:
            pass
        case _:
            example = ":".join((_LEGS[0], *_DAYS))
            raise CannotRunError(f"--leg: {text!r} is no PROVIDER:OFFER[:FROM:TO], as {example}")
    return Leg.model_validate({"provider": provider, "offer": offer, "start": start, "end": end})


if __name__ == "__main__":
    program.run("book-trip", main)
