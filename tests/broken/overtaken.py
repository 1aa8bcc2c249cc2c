"""A conductor's undo comes before the step it undoes, which runs all the same.

The service takes the undo by a plain step; mended: by the step's undo, which leaves a tombstone.
"""

from __future__ import annotations

from datetime import timedelta

from broken.words import (
    Done,
    Failed,
    Go,
    Unwork,
    Unworked,
    Work,
    Worked,
    put_together,
    unsaid,
)
from choreo import Ask, Conductor, Failure, Service
from choreo.check import Choreography


def ask(go: Go) -> Work:
    unsaid()


def unask(work: Work) -> Unwork:
    unsaid()


def end(go: Go) -> Done:
    unsaid()


def fail(go: Go, failure: Failure) -> Failed:
    unsaid()


def choreography(*, mended: bool) -> Choreography:
    shop, helper = Service("shop"), Service("helper")
    Conductor(
        shop,
        "job",
        starts=Go,
        steps=[
            Ask(ask, good=Worked, undo=unask, undone=Unworked, within=timedelta(minutes=5)),
        ],
        ends=end,
        fails=fail,
    )

    if mended:

        @helper.on
        def work(asked: Work) -> Worked:
            unsaid()

        @work.undo
        def unwork(cause: Unwork, worked: Worked) -> Unworked:
            unsaid()
    else:

        @helper.on(final="the other step takes it back")
        def work_blindly(asked: Work) -> Worked:
            unsaid()

        @helper.on(final="it takes the other step back")
        def unwork_blindly(asked: Unwork) -> Unworked:
            unsaid()

    ends = {"done": Done, "failed": Failed}
    name = f"overtaken_{mended}".lower()
    return put_together(name, shop, helper, ends=ends, fails=["failed"])
