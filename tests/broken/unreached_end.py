"""A flow names an end that no run of it comes to; mended: it does not."""

from __future__ import annotations

from broken.words import Done, Failed, Go, GoElsewhere, put_together, unsaid
from choreo import Service
from choreo.check import Choreography


def choreography(*, mended: bool) -> Choreography:
    shop = Service("shop")

    @shop.on(final="it is done at once")
    def take(go: Go) -> Done:
        unsaid()

    @shop.on(final="it is done at once")
    def take_elsewhere(go: GoElsewhere) -> Done | Failed:
        unsaid()

    ends = {"done": Done, "failed": Failed}
    return put_together(
        f"unreached_end_{mended}".lower(),
        shop,
        ends={"done": Done} if mended else ends,
        also={GoElsewhere: ends},
    )
