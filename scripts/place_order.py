"""Places test orders in a running system and follows each to its end."""

from __future__ import annotations

from typing import Annotated

import program
import typer
from following import follow
from sending import fresh

from contracts.customers import Customer
from contracts.orders import Line, PlaceOrder, ProcessOrder


def main(
    *,
    sku: Annotated[str, typer.Option(help="TEA-1, MUG-1, BOOK-1, or RARE-1 (3 of it).")] = "TEA-1",
    quantity: Annotated[int, typer.Option(help="How many of it.")] = 1,
    card: Annotated[str, typer.Option(help="4000-0002 is declined.")] = "4242-4242",
    member: Annotated[bool, typer.Option("--member", help="The customer gets points.")] = False,
    address: Annotated[str, typer.Option(help="'nowhere' cannot be reached.")] = "1 Main Street",
    email: Annotated[str, typer.Option(help="Where mails go to.")] = "customer@example.com",
    conducted: Annotated[
        bool, typer.Option("--conducted", help="Let a conductor decide each next step.")
    ] = False,
    count: Annotated[int, typer.Option(min=1, help="Place so many such orders at once.")] = 1,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the end.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Place a test order in a running system ('choreo up') and follow it to its end.

    For example:

        scripts/place-order --sku TEA-1 --member --conducted

        scripts/place-order --card 4000-0002 --count 100

    More cards and addresses: python -m sandboxes.gateway --help, and sandboxes.carrier.

    Exit code 0: every order came to an end. 1: one did not, or a message of it became a dead
    letter. 2: an option is wrong, or there is no broker.
    """
    command = ProcessOrder if conducted else PlaceOrder
    with program.options():
        customer = Customer(
            customer_id="test-customer", email=email, address=address, member=member
        )
        lines = (Line(sku=sku, quantity=quantity),)
        orders = [
            command(order_id=fresh("order"), customer=customer, card=card, lines=lines)
            for _ in range(count)
        ]
    follow(
        [(one,) for one in orders],
        "orders",
        script="place-order",
        timeout_s=timeout,
        as_json=as_json,
    )


if __name__ == "__main__":
    program.run("place-order", main)
