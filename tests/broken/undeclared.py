"""Services speak in a contract that the contracts package does not declare; mended: it does."""

from __future__ import annotations

from broken.words import Done, Go, Told, put_together, unsaid
from choreo import Service
from choreo.check import Choreography


def choreography(*, mended: bool) -> Choreography:
    shop = Service("shop")

    @shop.on(final="it is only begun")
    def take(go: Go) -> tuple[Told, Done]:
        unsaid()

    undeclared = () if mended else (Told,)
    name = f"undeclared_{mended}".lower()
    return put_together(name, shop, ends={"done": Done}, undeclared=undeclared)
