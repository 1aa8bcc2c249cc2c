"""Registers accounts in a running system and follows each to its end."""

from __future__ import annotations

import re
from typing import Annotated

import program
import typer
from following import follow
from sending import fresh

from choreo import CannotRunError
from contracts.accounts import Preference, RegisterAccount

_PREFERENCE = re.compile(r"([^.=]+)\.([^=]+)=(.*)", re.DOTALL)


def main(
    *,
    name: Annotated[str, typer.Option(help="Of the customer.")] = "Ada Example",
    email: Annotated[
        str | None, typer.Option(help="Where mails go to.", show_default="one that nobody has")
    ] = None,
    address: Annotated[str, typer.Option(help="Where parcels go to.")] = "1 Main Street",
    member: Annotated[bool, typer.Option("--member", help="The customer gets points.")] = False,
    prefer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROVIDER.NAME=VALUE", help="A wish, as airline.seat=aisle; may be repeated."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Register so many at once.")] = 1,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the end.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Register an account in a running system ('choreo up') and follow it to its end.

    A mail address that is none, or that somebody has, is rejected: that is an end, too.

    For example:

        scripts/register --name "Grace Hopper" --member --prefer airline.seat=aisle

        scripts/register --email nobody

    Exit code 0: every registration came to an end. 1: one did not, or a message of it became a
    dead letter. 2: an option is wrong, or there is no broker.
    """
    with program.options("prefer"):
        preferences = tuple(map(_preference, prefer or ()))
    with program.options():
        customers = [fresh("customer") for _ in range(count)]
        accounts = [
            RegisterAccount(
                customer_id=one,
                name=name,
                email=f"{one}@example.com" if email is None else email,
                address=address,
                member=member,
                preferences=preferences,
            )
            for one in customers
        ]
    follow(
        [(one,) for one in accounts],
        "accounts",
        script="register",
        timeout_s=timeout,
        as_json=as_json,
    )


def _preference(text: str) -> Preference:
    if (parts := _PREFERENCE.fullmatch(text)) is None:
        raise CannotRunError(f"--prefer: {text!r} is no PROVIDER.NAME=VALUE, as airline.seat=aisle")
    provider, name, value = parts.groups()
    return Preference(provider=provider, name=name, value=value)


if __name__ == "__main__":
    program.run("register", main)
