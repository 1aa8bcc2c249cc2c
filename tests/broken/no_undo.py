"""A step has neither an undo nor a reason why it needs none; mended: it has a reason."""

from __future__ import annotations

from broken.words import Done, Go, put_together, unsaid
from choreo import Service
from choreo.check import Choreography


def choreography(*, mended: bool) -> Choreography:
    shop = Service("shop")

    @shop.on(final="it is done at once" if mended else None)
    def take(go: Go) -> Done:
        unsaid()

    return put_together(f"no_undo_{mended}".lower(), shop, ends={"done": Done})
