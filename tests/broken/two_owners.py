"""Two services publish one event; mended: the second says it in a contract of its own."""

from __future__ import annotations

from broken.words import Done, Go, Told, Work, Worked, put_together, unsaid
from choreo import Service
from choreo.check import Choreography


def choreography(*, mended: bool) -> Choreography:
    shop, helper = Service("shop"), Service("helper")

    @shop.on(final="it is only begun")
    def take(go: Go) -> tuple[Told, Work, Done]:
        unsaid()

    if mended:

        @helper.on(final="it is only told")
        def work(asked: Work) -> Worked:
            unsaid()
    else:

        @helper.on(final="it is only told")
        def tell(asked: Work) -> Told:
            unsaid()

    return put_together(f"two_owners_{mended}".lower(), shop, helper, ends={"done": Done})
