"""An event that nobody hears; mended: somebody does."""

from __future__ import annotations

from broken.words import Done, Go, Told, put_together, unsaid
from choreo import Service
from choreo.check import Choreography


def choreography(*, mended: bool) -> Choreography:
    shop = Service("shop")

    @shop.on(final="it is only begun")
    def take(go: Go) -> tuple[Told, Done]:
        unsaid()

    unwatched = () if mended else (Told,)
    return put_together(f"unheard_{mended}".lower(), shop, ends={"done": Done}, unwatched=unwatched)
