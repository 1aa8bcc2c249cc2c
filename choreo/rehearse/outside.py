"""The outside world as a schedule decides: it answers, fails before or after acting, or hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from choreo.rehearse.project import Failing
from choreo.rehearse.schedule import Schedule

T = TypeVar("T")

FAULT = "outside"
#: How likely a call fails otherwise than with the first of what it can fail with.
_OTHER = 0.5
#: How long an answer may take, in virtual seconds; the first is the plain one.
_DELAYS_S = (0.02, 0.0, 1.0, 8.0)
#: What may be too long for whoever waits.
_NOTED_S = 5.0
_FAILS_BEFORE, _FAILS_AFTER, _HANGS_BEFORE, _HANGS_AFTER = range(1, 5)
#: A lost answer is what most mistakes are made about.
_DRAWN = (0, _FAILS_BEFORE, _FAILS_AFTER, _FAILS_AFTER, _FAILS_AFTER, _HANGS_BEFORE, _HANGS_AFTER)
_FAULTS = {
    _FAILS_BEFORE: "fails before it acts",
    _FAILS_AFTER: "acts, and its answer is lost",
    _HANGS_BEFORE: "hangs before it acts",
    _HANGS_AFTER: "acts, and hangs",
}


class Outside:
    """What a stand-in is given: keys that are honoured, and faults that the schedule decides."""

    def __init__(
        self,
        name: str,
        schedule: Schedule,
        chance: float,
        on_wrong: Callable[[str], None],
        on_fault: Callable[[str, str], None],
        *,
        fails: Sequence[Failing] = (ConnectionError,),
    ) -> None:
        self._name = name
        self._schedule = schedule
        self._chance = chance
        self._fails = fails
        self._on_wrong = on_wrong
        self._on_fault = on_fault
        self._known: dict[str, tuple[object, Any]] = {}

    async def once(self, key: str, request: object, act: Callable[[], T]) -> T:
        """Act once for each key: a repeated one gets the first answer again, or the first refusal.

        `act` does it, without waiting; what it raises is the answer as well. Raises what the
        stand-in `fails` with, where the schedule has it fail; a key that comes with another
        request is a finding.
        """
        fault = await self._before()
        known = self._known.get(key)
        if known is None:
            try:
                known = (request, act())
            except Exception as refusal:  # noqa: BLE001 - a refusal is an answer, and is kept
                known = (request, _Raised(refusal))
            self._known[key] = known
        elif known[0] != request:
            self._on_wrong(
                f"{self._name}: the key {key} was used for {known[0]}, and now for {request}"
            )
        await self._after(fault)
        answer = known[1]
        if isinstance(answer, _Raised):
            raise answer.error
        return answer

    async def ask(self, answer: Callable[[], T]) -> T:
        """Answer what changes nothing, and so needs no key."""
        fault = await self._before()
        found = answer()
        await self._after(fault)
        return found

    def perhaps(self, what: str, chance: float) -> bool:
        """Whether something happens that the outside world decides by itself."""
        return self._schedule.decide(what, self._name, chance) > 0

    def wrong(self, what: str) -> None:
        """Have something that must never happen told as a finding."""
        self._on_wrong(f"{self._name}: {what}")

    async def _before(self) -> int:
        slow = self._schedule.decide("slowness", self._name, self._chance, len(_DELAYS_S) - 1)
        fault = _DRAWN[self._schedule.decide(FAULT, self._name, self._chance, len(_DRAWN) - 1)]
        if _DELAYS_S[slow] >= _NOTED_S:
            self._on_fault("slow", f"{self._name} takes {_DELAYS_S[slow]:g} s")
        if fault:
            self._on_fault(FAULT, f"{self._name} {_FAULTS[fault]}")
        await asyncio.sleep(_DELAYS_S[slow])
        if fault == _FAILS_BEFORE:
            raise self._failing("is out of order")
        if fault == _HANGS_BEFORE:
            await for_ever()
        return fault

    async def _after(self, fault: int) -> None:
        if fault == _FAILS_AFTER:
            raise self._failing("did not answer")
        if fault == _HANGS_AFTER:
            await for_ever()

    def _failing(self, how: str) -> Exception:
        others = len(self._fails) - 1
        which = self._schedule.decide("failing", self._name, _OTHER, others) if others else 0
        return self._fails[which](f"{self._name} {how} (rehearsed)")


class _Raised:
    """A refusal, as it is kept."""

    def __init__(self, error: Exception) -> None:
        self.error = error


async def for_ever() -> None:
    """Hang."""
    await asyncio.get_running_loop().create_future()
