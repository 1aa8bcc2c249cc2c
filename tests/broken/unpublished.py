"""A service waits for an event that nobody publishes; mended: somebody does."""

from __future__ import annotations

from broken.words import Done, Go, Told, put_together, unsaid
from choreo import Service
from choreo.check import Choreography


def choreography(*, mended: bool) -> Choreography:
    shop, helper = Service("shop"), Service("helper")

    @helper.on(final="it is only kept")
    def keep(told: Told) -> None:
        unsaid()

    if mended:

        @shop.on(final="it is only begun")
        def take_and_tell(go: Go) -> tuple[Told, Done]:
            unsaid()
    else:

        @shop.on(final="it is only begun")
        def take(go: Go) -> Done:
            unsaid()

    return put_together(f"unpublished_{mended}".lower(), shop, helper, ends={"done": Done})
