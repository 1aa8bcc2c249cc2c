"""An end has a step undone, and the flow does not say that it then fails; mended: it does."""

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
    shop, helper, packer = Service("shop"), Service("helper"), Service("packer")

    @shop.on(final="it is only begun")
    def take(go: Go) -> Work:
        unsaid()

    @helper.on
    def work(asked: Work) -> Worked:
        unsaid()

    @work.undo
    def unwork(cause: Failed, worked: Worked) -> Unworked:
        unsaid()

    @packer.on(final="what is packed stays packed")
    def pack(worked: Worked) -> Packed | Refused:
        unsaid()

    @shop.on(final="a flow ends once")
    def end(answer: Packed | Refused) -> Done | Failed | None:
        unsaid()

    ends, fails = {"done": Done, "failed": Failed}, ["failed"] if mended else []
    name = f"undeclared_failure_{mended}".lower()
    return put_together(name, shop, helper, packer, ends=ends, fails=fails)
