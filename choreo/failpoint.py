"""Named points at which a test can kill the process: the boundaries of a delivery.

`CHOREO_FAILPOINTS` names a folder with a file for each service that is to die: a line for each
time, `point` or `point:3` (the third time that it is reached). A process reads the first line when
it starts, and takes it out of the file before it dies, so that it goes on when it is started
again. A rehearsal, where a process is simulated, has itself told of each point instead. Otherwise
a point is one look at whether anybody wants to know.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

#: Each point, and where the delivery stands there.
POINTS = {
    "received": "deliveries are taken, nothing is done",
    "claimed": "the inbox does not know it, its handler has not run",
    "handled": "the handlers of a batch have run, nothing is written down",
    "written": "all is written, nothing is committed",
    "committed": "committed, and neither acked nor published",
    "before_ack": "about to ack",
    "acked": "acked, as far as this process knows",
    "outbox_read": "about to publish",
    "published": "on its way to the broker, not confirmed",
    "confirmed": "the broker has it, the outbox still holds it",
    "forgotten": "the outbox has forgotten what was confirmed",
    "call_begun": "an outside call is begun, and not made",
    "called": "an outside call is made, its result not kept",
    "undoing": "an undo is about to run",
    "undone": "an undo has run, nothing is committed",
    "due": "what is due was handed out",
    "deadline": "a deadline is about to run",
    "failed": "a failure is recorded",
    "parked": "a dead letter is made, nothing is committed",
    "swept": "what a dead process left was taken over",
    "conducting": "a run of a conductor is begun, nothing is committed",
    "conducted": "a conductor has taken an answer in, nothing is committed",
}
#: Those that only a service with a conductor comes to.
CONDUCTED = {"conducting", "conducted"}


class _Watch:
    """Who is told of each point that is reached, if anybody."""

    told: Callable[[str], None] | None = None


def watch(told: Callable[[str], None] | None) -> None:
    """Have every point that is reached told, from now on; None ends that."""
    _Watch.told = told


def reach(point: str) -> None:
    """Die here, if that is wanted."""
    if _Watch.told is not None:
        _Watch.told(point)


def arm(service: str) -> None:
    """Take the next line of the service's file, if there is one."""
    folder = os.environ.get("CHOREO_FAILPOINTS")
    if not folder:
        return
    file = Path(folder) / service
    line = next(iter(file.read_text().splitlines()), "") if file.exists() else ""
    wanted, _, times = line.partition(":")
    if not wanted:
        return
    if wanted not in POINTS:
        raise ValueError(f"{file}: no failpoint {wanted!r}")
    left = int(times or 1)

    def told(point: str) -> None:
        nonlocal left
        if point == wanted:
            left -= 1
            # Two threads pass points: only the one that counts to the end takes a line out.
            if left == 0:
                _die(file)

    watch(told)


def _die(file: Path) -> None:
    rest = file.read_text().splitlines(keepends=True)[1:]
    # Who looks at the file meanwhile must not take it for empty.
    draft = file.with_suffix(".new")
    draft.write_text("".join(rest))
    draft.replace(file)
    os.kill(os.getpid(), signal.SIGKILL)
