"""What is refused is asked for again, for ever; mended: a deadline ends that."""

from __future__ import annotations

from datetime import timedelta

from broken.words import Done, Expired, Go, Refused, Work, Worked, put_together, unsaid
from choreo import Event, Service
from choreo.check import Choreography


def choreography(*, mended: bool) -> Choreography:
    shop, helper = Service("shop"), Service("helper")

    @shop.on(final="it is only begun")
    def take(go: Go) -> Work:
        unsaid()

    @helper.on(final="it cannot be undone", unless=Expired if mended else None)
    def work(asked: Work) -> Worked | Refused:
        unsaid()

    @shop.on(final="it is only asked for", unless=Expired if mended else None)
    def ask_again(refused: Refused) -> Work:
        unsaid()

    @shop.on(final="a flow ends once")
    def end(worked: Worked) -> Done | None:
        unsaid()

    ends: dict[str, type[Event]] = {"done": Done}
    if mended:
        ends["expired"] = Expired

        @shop.deadline(Work, within=timedelta(minutes=5), until=Done | Expired)
        def expire(asked: Work) -> Expired | None:
            unsaid()

    return put_together(f"endless_cycle_{mended}".lower(), shop, helper, ends=ends)
