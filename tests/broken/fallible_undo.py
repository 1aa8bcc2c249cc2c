"""An undo may say that it failed, and counts as undone; mended: it raises, and is tried again."""

from __future__ import annotations

from broken.words import (
    Done,
    Failed,
    Go,
    Refused,
    Told,
    Unworked,
    Work,
    Worked,
    put_together,
    unsaid,
)
from choreo import Service
from choreo.check import Choreography


def choreography(*, mended: bool) -> Choreography:
    shop, helper = Service("shop"), Service("helper")

    @shop.on(final="it is only begun")
    def take(go: Go) -> Work:
        unsaid()

    @helper.on
    def work(asked: Work) -> Worked | Refused:
        unsaid()

    if mended:

        @work.undo
        def unwork(cause: Failed, worked: Worked) -> Unworked:
            unsaid()
    else:

        @work.undo
        def try_to_unwork(cause: Failed, worked: Worked) -> Unworked | Told:
            unsaid()

    @shop.on(final="a flow ends once")
    def end(answer: Worked | Refused) -> Done | Failed | None:
        unsaid()

    ends = {"done": Done, "failed": Failed}
    name = f"fallible_undo_{mended}".lower()
    return put_together(name, shop, helper, ends=ends, fails=["failed"])
