"""One simulated process of a service: the production lifecycle over simulated seams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from structlog.typing import FilteringBoundLogger

from choreo.assembly import assemble
from choreo.identity import Ids
from choreo.plan import Plan
from choreo.rehearse.broker import SimulatedBroker
from choreo.rehearse.database import InstanceDatabase, MemoryDatabase
from choreo.rehearse.loop import Actor, Loop
from choreo.rehearse.memory import ProcessMemory
from choreo.service import AdapterFactory
from choreo.transaction import Tools
from choreo.work import Call

if TYPE_CHECKING:
    from choreo.rehearse.play import Play
    from choreo.rehearse.slot import Slot

#: When a rehearsal begins, in seconds since 1970: always on the same day.
EPOCH_S = 1_900_000_000.0


class VirtualClock:
    """See `choreo.seams.Clock`: the time of the loop that runs."""

    loop: Loop | None = None

    def now(self) -> float:
        """Seconds since 1970."""
        return EPOCH_S + (0.0 if self.loop is None else self.loop.time())


@dataclass(frozen=True, slots=True)
class Part:
    """A service in its part: what all its instances share, in every schedule."""

    plan: Plan
    database: MemoryDatabase
    memory: ProcessMemory
    #: The names of the flows that may come to it, and of those whose ends depend on it.
    flows: frozenset[str]
    matters: frozenset[str]

    @property
    def name(self) -> str:
        """The service's name."""
        return self.plan.service.name


class Silence:
    """A log that nobody reads: a rehearsal shows in its own way what happened."""

    def _nothing(self, *_: object, **__: object) -> None:
        pass

    debug = info = warning = error = exception = critical = _nothing


_SILENCE = cast("FilteringBoundLogger", Silence())


class Instance:
    """Runs one service until it is killed, or has stopped; another takes its place then."""

    def __init__(self, play: Play, slot: Slot, name: str, *, is_shared: bool) -> None:
        self.actor = Actor(name, slot)
        #: How long nobody comes after it once it has stopped, in virtual seconds; None: it runs.
        self.down_s: float | None = None
        self._told = asyncio.Event()
        self.broker = SimulatedBroker(play.rabbit, name, play.settings, play.clock.now)
        self._loop = play.loop
        self._part = slot.part
        self._database = InstanceDatabase(
            slot.part.database,
            self.actor,
            fault=partial(play.faults.of_database, slot),
            pace=partial(play.faults.pace, slot),
            breaks=partial(play.faults.of_statement, slot),
            is_shared=is_shared,
        )
        ids = Ids(play.clock, play.random)
        tools = Tools(slot.part.plan, play.settings, ids, play.random, name)
        self._parts = assemble(
            tools,
            {},  # whom it hears of: no queue is ever missing here
            broker=self.broker,
            database=self._database,
            clock=play.clock,
            log=_SILENCE,
            adapters={
                kind: _always(play.stand_ins[kind]) for kind in slot.part.plan.service.adapters
            },
        )

    def start(self) -> asyncio.Task[None]:
        """Begin to run; the task ends where a process would leave."""
        self._part.memory.lose()
        return self._loop.spawn(self.actor, self._parts.run(self._told))

    def stop(self, down_s: float) -> None:
        """Tell it to stop; the task ends once it has left in order."""
        self.down_s = down_s
        self._told.set()

    def left(self) -> list[str]:
        """What it has in hand although it stopped in order: others would wait for its lease."""
        return [] if self._database.has_failed else self._part.database.in_hand_of(self.actor.name)

    @property
    def is_quiet(self) -> bool:
        """Whether it does nothing by itself that time brings to an end."""
        return self.broker.is_quiet and not self._database.under_way and self.down_s is None

    @property
    def calls(self) -> Collection[Call]:
        """The calls outside that are under way."""
        return self._parts.calls.under_way.values()

    def kill(self, arriving: int = 0) -> None:
        """Let it be gone; of what it had written to the broker so much still arrives."""
        self.broker.crash(arriving)
        self.actor.is_alive = False
        self.actor.ready.clear()


def _always(stand_in: Any) -> AdapterFactory:
    @asynccontextmanager
    async def factory() -> AsyncGenerator[Any]:
        yield stand_in

    return factory
