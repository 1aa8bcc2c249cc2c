"""A service may say nothing, and then nobody ends the flow; mended: it refuses."""

from __future__ import annotations

from broken.words import Done, Failed, Go, Refused, Work, Worked, put_together, unsaid
from choreo import Service
from choreo.check import Choreography


def choreography(*, mended: bool) -> Choreography:
    shop, helper = Service("shop"), Service("helper")

    @shop.on(final="it is only begun")
    def take(go: Go) -> Work:
        unsaid()

    if mended:

        @helper.on(final="it cannot be undone")
        def work(asked: Work) -> Worked | Refused:
            unsaid()
    else:

        @helper.on(final="it cannot be undone")
        def perhaps_work(asked: Work) -> Worked | Refused | None:
            unsaid()

    @shop.on(final="a flow ends once")
    def end(answer: Worked | Refused) -> Done | Failed:
        unsaid()

    ends = {"done": Done, "failed": Failed}
    return put_together(f"no_end_{mended}".lower(), shop, helper, ends=ends)
