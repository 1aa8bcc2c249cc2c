"""Two services end a flow, each by what it knows; mended: one tells the other, which decides."""

from __future__ import annotations

from datetime import timedelta

from broken.words import Done, Expired, Go, Told, Work, Worked, put_together, unsaid
from choreo import Service
from choreo.check import Choreography

_WITHIN = timedelta(minutes=5)


def choreography(*, mended: bool) -> Choreography:
    shop, helper = Service("shop"), Service("helper")

    @shop.on(final="it is only begun")
    def take(go: Go) -> Work:
        unsaid()

    @helper.on(final="it cannot be undone", unless=Expired)
    def work(asked: Work) -> Worked:
        unsaid()

    @shop.on(final="a flow ends once")
    def end(worked: Worked) -> Done | None:
        unsaid()

    if mended:

        @helper.deadline(Work, within=_WITHIN, until=Done | Expired)
        def tell(asked: Work) -> Told:
            unsaid()

        @shop.on(final="a flow ends once")
        def give_up(told: Told) -> Expired | None:
            unsaid()
    else:

        @helper.deadline(Work, within=_WITHIN, until=Done | Expired)
        def expire(asked: Work) -> Expired | None:
            unsaid()

    ends = {"done": Done, "expired": Expired}
    return put_together(f"two_deciders_{mended}".lower(), shop, helper, ends=ends)
