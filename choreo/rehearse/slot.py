"""The processes of a service: each starts, dies, is told to stop, and comes back."""

from __future__ import annotations

from functools import partial
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

from choreo.assembly import LAST_S
from choreo.errors import CannotRunError, describe
from choreo.rehearse.instance import Instance, Part
from choreo.rehearse.loop import KilledError

if TYPE_CHECKING:
    from choreo.rehearse.play import Play

#: A process that found no broker is started again after so long, as a supervisor would.
_AGAIN_S = 5.0
#: Who leaves by itself so often is not started any more; in a long outage it may be thirty times.
_MOST_EXITS = 200


class Slot:
    """A place for one process of a service: the one that runs there, or comes there next."""

    def __init__(self, play: Play, part: Part, name: str, *, is_shared: bool) -> None:
        self.part = part
        self.name = name
        self.instance: Instance | None = None
        self._play = play
        self.is_shared = is_shared
        self._starts = 0
        #: How often an instance left by itself.
        self._exits = 0

    @property
    def running(self) -> Instance:
        """The instance that runs."""
        if self.instance is None:
            raise LookupError(f"{self.name} is down")
        return self.instance

    @property
    def is_quiet(self) -> bool:
        """Whether it does nothing by itself."""
        return self.instance is None or self.instance.is_quiet

    @property
    def can_start(self) -> bool:
        """Whether there is none, and it is worth while to start one."""
        return self.instance is None and self._exits < _MOST_EXITS

    def start(self) -> None:
        """Start an instance, unless one runs here."""
        if not self.can_start:
            return
        self._starts += 1
        instance = Instance(
            self._play, self, f"{self.name}#{self._starts}", is_shared=self.is_shared
        )
        self.instance = instance
        instance.start().add_done_callback(partial(self._ended, instance))

    def die(self, where: str, down_s: float, arriving: int) -> None:
        """Kill it, without a last word; the next comes after a while."""
        self._play.told("crash", f"{self.name} dies ({where}), and is back after {down_s:g} s")
        self._leave(down_s, arriving)

    def stop(self, down_s: float) -> None:
        """Tell it to stop, as a deployment does; the next comes a while after it has left."""
        self._play.told("stop", f"{self.name} is told to stop")
        instance = self.running
        instance.stop(down_s)

        def kill() -> None:
            if self.instance is instance:
                self._play.faults.stalled.discard(self.name)  # it may be suspended
                self._left("does not stop, and is killed", down_s)

        self._play.later(self._play.settings.grace_s + LAST_S, kill)

    def exit(self, error: SystemExit) -> None:
        """Its own code ended the process, which no code of a service may."""
        *_, (frame, line) = walk_tb(error.__traceback__)
        where = f"{frame.f_code.co_filename}:{line}"
        self._play.findings.append(f"{self.name} left by sys.exit({error.code!r}), at {where}")
        self._leave(_AGAIN_S, 0)

    def _leave(self, down_s: float, arriving: int) -> None:
        instance, self.instance = self.running, None
        instance.kill(arriving)
        self._play.graves.append(instance.actor)
        self._play.later(down_s, self.start)

    def _left(self, how: str, down_s: float) -> None:
        """It is gone because it was told to stop."""
        text = f"{self.name} {how}, and is back after {down_s:g} s"
        self._play.events.append((self._play.loop.time(), text))
        self._leave(down_s, 0)

    def _ended(self, instance: Instance, task: Any) -> None:
        """It left by itself, which is right only if it was told to or cannot run."""
        error = task.exception()
        if self.instance is not instance or isinstance(error, KilledError):
            return
        if error is None and instance.down_s is not None:
            left = instance.left()
            self._play.findings += (f"{self.name} has stopped with {what}" for what in left)
            self._left("has stopped", instance.down_s)
            return
        why = "without an error" if error is None else describe(error)
        if not isinstance(error, CannotRunError):
            self._play.findings.append(f"{self.name} died: {why}")
        self._exits += 1
        if self._exits == _MOST_EXITS:
            self._play.findings.append(f"{self.name} cannot be started, again and again: {why}")
        self._leave(_AGAIN_S, 0)
