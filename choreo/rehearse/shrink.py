"""Makes a schedule that goes wrong smaller: as few decisions as still go wrong in the same way.

Source: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002 (ddmin).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from choreo.rehearse.schedule import Decision
from choreo.rehearse.stage import Outcome, Stage

#: At most so many schedules are played for it.
TRIES = 400
#: What only says in which order things happen.
_ORDER = ("step", "turn", "slowness")


class Shrinking:
    """Looks for the smallest schedule that goes wrong as one does."""

    def __init__(self, stage: Stage, outcome: Outcome, enough: Callable[[], bool]) -> None:
        """It ends as soon as it is `enough`."""
        #: The smallest so far.
        self.best = outcome
        self._stage = stage
        self._kinds = {one.kind for one in outcome.wrong}
        self._enough = enough
        self._tries = TRIES

    def run(self) -> None:
        """Leave out kinds of decisions first, then halves, quarters, and so on, of what is left."""
        # Given as decisions it must go wrong as well: then randomness plays no part any more.
        if not self._goes_wrong(self.best.decisions):
            return
        self._goes_wrong([one for one in self.best.decisions if one.kind not in _ORDER])
        for kind in dict.fromkeys(one.kind for one in self.best.decisions):
            self._goes_wrong([one for one in self.best.decisions if one.kind != kind])
        pieces = 2
        while self._tries > 0 and not self._enough() and len(self.best.decisions) > 1:
            if self._leaves_out_one_of(pieces):
                pieces = max(2, pieces - 1)
            elif pieces >= len(self.best.decisions):
                break
            else:
                pieces = min(len(self.best.decisions), pieces * 2)

    def _leaves_out_one_of(self, pieces: int) -> bool:
        decisions = self.best.decisions
        size = -(-len(decisions) // pieces)
        return any(
            self._goes_wrong([*decisions[:begin], *decisions[begin + size :]])
            for begin in range(0, len(decisions), size)
        )

    def _goes_wrong(self, decisions: Sequence[Decision]) -> bool:
        """Whether these still do; then they are the best so far, as far as they happened."""
        if self._tries <= 0 or self._enough():
            return False
        self._tries -= 1
        outcome = self._stage.play(self.best.seed, decisions)
        if self._kinds.isdisjoint(one.kind for one in outcome.wrong):
            return False
        if len(outcome.decisions) <= len(self.best.decisions):
            self.best = outcome
        return True
