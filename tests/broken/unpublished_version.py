"""A service hears version 1 of what is published as version 2; mended: it hears version 2."""

from __future__ import annotations

from broken.words import Done, Go, Told, ToldMore, put_together, unsaid
from choreo import Service
from choreo.check import Choreography


def choreography(*, mended: bool) -> Choreography:
    shop, helper = Service("shop"), Service("helper")

    @shop.on(final="it is only begun")
    def take(go: Go) -> tuple[ToldMore, Done]:
        unsaid()

    if mended:

        @helper.on(final="it is only kept")
        def keep_more(told: ToldMore) -> None:
            unsaid()
    else:

        @helper.on(final="it is only kept")
        def keep(told: Told) -> None:
            unsaid()

    return put_together(f"version_{mended}".lower(), shop, helper, ends={"done": Done})
