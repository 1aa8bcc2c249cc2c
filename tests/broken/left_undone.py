"""A step is undone when the flow fails, but not when its time is up; mended: then, too."""

from __future__ import annotations

from datetime import timedelta

from broken.words import (
    Done,
    Expired,
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
    shop, helper, packer = Service("shop"), Service("helper"), Service("packer")

    @shop.on(final="it is only begun")
    def take(go: Go) -> Work:
        unsaid()

    @helper.on
    def work(asked: Work) -> Worked:
        unsaid()

    if mended:

        @work.undo
        def unwork(cause: Failed | Expired, worked: Worked) -> Unworked:
            unsaid()
    else:

        @work.undo
        def unwork_if_failed(cause: Failed, worked: Worked) -> Unworked:
            unsaid()

    @packer.on(final="what is packed stays packed", unless=Expired)
    def pack(worked: Worked) -> Packed | Refused:
        unsaid()

    @shop.on(final="a flow ends once")
    def end(answer: Packed | Refused) -> Done | Failed | None:
        unsaid()

    @shop.deadline(Work, within=timedelta(minutes=5), until=Done | Failed | Expired)
    def expire(asked: Work) -> Expired | None:
        unsaid()

    ends = {"done": Done, "failed": Failed, "expired": Expired}
    name = f"left_undone_{mended}".lower()
    return put_together(name, shop, helper, packer, ends=ends, fails=["failed", "expired"])
