"""What cannot be undone may still be done after the flow has failed; mended: not any more."""

from __future__ import annotations

from broken.words import (
    Done,
    Failed,
    Go,
    Packed,
    Refused,
    Unworked,
    Work,
    Worked,
    put_together,
    unsaid,
)
from choreo import Service
from choreo.check import Choreography


def choreography(*, mended: bool) -> Choreography:
    shop, helper, mailer = Service("shop"), Service("helper"), Service("mailer")

    @shop.on(final="it is only begun")
    def take(go: Go) -> Work:
        unsaid()

    @helper.on
    def work(asked: Work) -> tuple[Worked, Packed | Refused]:
        unsaid()

    @work.undo
    def unwork(cause: Failed, worked: Worked) -> Unworked:
        unsaid()

    @mailer.on(final="a sent mail cannot be unsent", unless=Failed if mended else None)
    async def confirm(worked: Worked) -> None:
        unsaid()

    @shop.on(final="a flow ends once")
    def end(answer: Packed | Refused) -> Done | Failed | None:
        unsaid()

    ends = {"done": Done, "failed": Failed}
    name = f"pivot_{mended}".lower()
    return put_together(name, shop, helper, mailer, ends=ends, fails=["failed"])
