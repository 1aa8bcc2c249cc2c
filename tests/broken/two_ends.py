"""A service ends a flow by each of two answers; mended: it says nothing if the flow has ended."""

from __future__ import annotations

from broken.words import Done, Failed, Go, Told, Work, Worked, put_together, unsaid
from choreo import Service
from choreo.check import Choreography


def choreography(*, mended: bool) -> Choreography:
    shop, helper = Service("shop"), Service("helper")

    @shop.on(final="it is only begun")
    def take(go: Go) -> Work:
        unsaid()

    @helper.on(final="it cannot be undone")
    def work(asked: Work) -> tuple[Worked, Told]:
        unsaid()

    if mended:

        @shop.on(final="a flow ends once")
        def end_once(worked: Worked) -> Done | None:
            unsaid()

        @shop.on(final="a flow ends once")
        def fail_once(told: Told) -> Failed | None:
            unsaid()
    else:

        @shop.on(final="a flow ends")
        def end(worked: Worked) -> Done:
            unsaid()

        @shop.on(final="a flow ends")
        def fail(told: Told) -> Failed:
            unsaid()

    ends = {"done": Done, "failed": Failed}
    return put_together(f"two_ends_{mended}".lower(), shop, helper, ends=ends)
