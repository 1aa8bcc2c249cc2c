"""One schedule, played: services run, messages move, things go wrong, and then all settles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextvars import copy_context
from dataclasses import replace
from math import inf
from random import Random
from typing import Any

from choreo import failpoint
from choreo.envelope import PREFIX
from choreo.errors import CannotRunError, describe
from choreo.rehearse.broker import Step, declare
from choreo.rehearse.customers import Customers
from choreo.rehearse.faults import Faults, lasts_s
from choreo.rehearse.instance import Part, VirtualClock
from choreo.rehearse.letters import Letters
from choreo.rehearse.loop import Actor, KilledError, LivelockError, Loop, actor
from choreo.rehearse.outside import Outside
from choreo.rehearse.project import Project
from choreo.rehearse.rabbit import Rabbit
from choreo.rehearse.schedule import Schedule
from choreo.rehearse.slot import Slot
from choreo.rehearse.states import States
from choreo.settings import Settings
from choreo.topology import Topology

#: Faults stop after so many steps, or so long, in virtual seconds; what is skipped does not count.
CALM_STEPS, CALM_S = 1500, 200.0
#: In so many steps nobody is but who never comes to rest: messages that make each other.
MOST_STEPS = 10_000
#: Then everything must settle within so many virtual seconds, or come to a state that is new.
SETTLES_S = 900.0
#: Of a rest that would outlast the faults only its beginning and its end are played, so long each.
_REST_S = 60.0
#: When a service does something by itself next, in seconds since 1970; what is unsent is under way.
_NEXT = "SELECT min(at) FROM (SELECT at FROM choreo_due UNION ALL SELECT 0 FROM choreo_outbox)"
_SOURCE = f"{PREFIX}source"
#: How likely the services are not there that no end depends on: none of the others would notice.
_ABSENT = 0.75


class Play:
    """Everything of one schedule."""

    def __init__(
        self,
        project: Project,
        *,
        parts: Sequence[Part],
        settings: Settings,
        clock: VirtualClock,
        schedule: Schedule,
        topology: Topology,
        undone: AbstractSet[str],
    ) -> None:
        """`undone`: the names of the flows in which something may be undone."""
        self.undone = undone
        self._project = project
        self.schedule = schedule
        self._topology = topology
        self.settings = settings
        self.parts = parts
        self.clock = clock
        self.findings: list[str] = []
        #: How often each kind of fault happened, and the failpoints that were reached.
        self.counts: Counter[str] = Counter()
        self.points: set[str] = set()
        #: Who published anything, as `/service/handler`.
        self.sources: set[str] = set()
        #: The faults as they happened, with the virtual second.
        self.events: list[tuple[float, str]] = []
        self.random = Random(f"randomness {schedule.seed}")  # noqa: S311 - no secret
        self.loop = clock.loop = Loop(self._turn, self.findings.append, _exited)
        self.rabbit = Rabbit(clock.now)
        self.faults = Faults(self)
        self.slots: list[Slot] = []
        #: The services that run, and that may change what they keep.
        self.playing: list[Part] = []
        #: The names of the services that no end depends on, and of those that take no part in it.
        self.bystanders: set[str] = set()
        self.absent: set[str] = set()
        #: What is left of the dead.
        self.graves: list[Actor] = []
        #: What happens by itself: the end of a fault, the next start of a process.
        self.world = Actor("world")
        self.stand_ins = {
            kind: _made(make, self._outside(kind)) for kind, make in project.stand_ins.items()
        }
        self.customers = Customers(self, project)
        self.states = States((), self.rabbit)
        self.letters = Letters(self)
        self._steps = 0
        #: When the last of them was, in the time of the loop.
        self._moved_at = 0.0
        #: How much virtual time was skipped.
        self._skipped_s = 0.0
        #: By when it must have settled, or come to more states than so many.
        self._settles_by_s, self._states = CALM_S + SETTLES_S, 0

    def run(self) -> None:
        """Play it to its end: settled, or stuck (which is a finding)."""
        failpoint.watch(self._reached)
        outer = actor.set(self.world)
        with self.loop.running():
            try:
                self._set_up()
                while self._go_on():
                    pass
            except LivelockError as livelock:
                self.findings.append(str(livelock))
            finally:
                actor.reset(outer)
                failpoint.watch(None)
                living = [one.instance.actor for one in self.slots if one.instance]
                for one in (self.world, *self.graves, *living):
                    self.findings += one.unnoticed()
                    one.close()

    def told(self, kind: str, what: str) -> None:
        """A fault happened."""
        self.counts[kind] += 1
        self.events.append((self.loop.time(), what))

    def later(self, after_s: float, act: Callable[[], object]) -> None:
        """Do something in the world after so many virtual seconds."""
        context = copy_context()
        context.run(actor.set, self.world)
        self.loop.call_later(after_s, act, context=context)

    def slot(self, name: str) -> Slot:
        """The place of this name."""
        return next(one for one in self.slots if one.name == name)

    def _outside(self, kind: type) -> Outside:
        name, chance = kind.__name__, self.faults.chance("outside")
        wrong, fails = self.findings.append, self._project.fails(kind)
        return Outside(name, self.schedule, chance, wrong, self._harmed, fails=fails)

    def _harmed(self, kind: str, what: str) -> None:
        self.told(kind, what)
        self.letters.harmed()

    def _set_up(self) -> None:
        told = {name for _, story in self.customers.stories for name in story.flows}
        are_absent = self.schedule.decide("absent", "", _ABSENT)
        for part in self.parts:
            if told.isdisjoint(part.flows):
                # Nothing will come to it: it need not run.
                part.database.stand_by()
                continue
            part.database.empty()
            if told.isdisjoint(part.matters):
                self.bystanders.add(part.name)
                if are_absent:
                    self.absent.add(part.name)
                    continue
            self.playing.append(part)
            twins = self.schedule.decide("twin", part.name, self.faults.chance("twin"))
            for number in range(1, 2 + twins):
                name = part.name if number == 1 else f"{part.name}.{number}"
                self.slots.append(Slot(self, part, name, is_shared=bool(twins)))
            if twins:
                self.told("twin", f"{part.name} has two instances")
        connection = self.rabbit.connect()
        declare(connection.channel(), self._heard(), self.settings)  # as `choreo up` does first
        connection.close()
        self.states = States(self.playing, self.rabbit)
        for slot in self.slots:
            slot.start()
        self.loop.drain()
        self.customers.begin()

    def _heard(self) -> Topology:
        """The topology, with queues for those that are absent, which nothing comes to."""
        bindings = [one for one in self._topology.bindings if one.queue not in self.absent]
        return replace(self._topology, bindings=tuple(bindings))

    def _go_on(self) -> bool:
        """Let the next thing happen; False at the end."""
        self.loop.drain()
        self.customers.look()
        self.states.look()
        if self._steps > CALM_STEPS or self._lived_s > CALM_S:
            self.schedule.is_calm = True
        if steps := self._possible():
            self._steps += 1
            self._moved_at = self.loop.time()
            if self._steps > MOST_STEPS:
                self.findings.append(
                    f"messages make each other for ever: {'; '.join(self._left())}"
                )
                return False
            if not self.faults.after_step(self._steps):
                chance = self.faults.chance("order")
                self._take(steps[self.schedule.choose("step", len(steps), chance)])
            return True
        if self._has_no_plans():
            # Time would bring nothing but the end of what went wrong.
            if self.faults.end() or self._raise():
                return True
            if self.rabbit.is_settled:
                return self.letters.send_back()
        if self.schedule.is_calm:
            self.letters.look()
        if not self._wait():
            self.findings.append(f"it does not settle: {'; '.join(self._left())}")
            return False
        return True

    def _take(self, step: Step) -> None:
        if step.kind == "arrive" and step.message is not None:
            self.sources.add(str(step.message.headers.get(_SOURCE)))
        step.take()

    def _possible(self) -> list[Step]:
        stalled = self.faults.stalled
        steps = self.customers.broker.steps()
        for slot in self.slots:
            if slot.instance is not None and slot.name not in stalled:
                slot.instance.broker.add_steps(steps)
        if self.loop.time() < self.faults.deaf_until:
            return [step for step in steps if step.kind != "deliver"]
        return steps

    def _has_no_plans(self) -> bool:
        """Whether no process is to do anything by itself, as time goes on."""
        return (
            self.customers.is_quiet
            and all(slot.is_quiet for slot in self.slots)
            and not any(part.database.has_plans for part in self.playing)
        )

    @property
    def _lived_s(self) -> float:
        """How much virtual time was played."""
        return self.loop.time() - self._skipped_s

    def _wait(self) -> bool:
        """Let time go on; False if it did for long enough, and nothing has come of it."""
        if self._lived_s > self._settles_by_s:
            before, self._states = self._states, len(set(self.states.trail))
            if self._states == before:
                return False
            self._settles_by_s = self._lived_s + SETTLES_S
        now, skipped_s = self.loop.time(), 0.0
        if now - self._moved_at > _REST_S and CALM_S < (rest_s := self._rest_s()) < inf:
            skipped_s = rest_s - _REST_S
            self._skipped_s += skipped_s
        return self.loop.advance(now + skipped_s)

    def _rest_s(self) -> float:
        """How long processes only see, again and again, that nothing is due; inf: for ever."""
        is_quiet = self.customers.is_quiet and not self.faults.are_under_way
        if not is_quiet or any(slot.instance is None or not slot.is_quiet for slot in self.slots):
            return 0.0
        deaf_s = self.faults.deaf_until - self.loop.time()
        if deaf_s <= 0 and not self.rabbit.is_settled:
            return 0.0  # somebody has a message in hand, and tries again
        if not self.schedule.is_calm and any(one.database.has_letters for one in self.playing):
            return 0.0  # somebody looks after it before long
        ends = [deaf_s] if deaf_s > 0 else []
        for part in self.playing:
            if not part.database.filled.is_empty("choreo_due", "choreo_outbox"):
                [at] = part.database.driver.execute(_NEXT).fetchone()
                ends += [] if at is None else [at - self.clock.now()]
        return min(ends, default=inf)

    def _raise(self) -> bool:
        """Start the processes that are down; False if none is."""
        down = [slot for slot in self.slots if slot.can_start]
        for slot in down:
            slot.start()
        return bool(down)

    def _left(self) -> list[str]:
        left = [f"{one.name} is down" for one in self.slots if one.instance is None]
        left += [
            f"{queue.count} messages wait in {name}"
            for name, queue in self.rabbit.queues.items()
            if name != "journal" and queue.count
        ]
        for part in self.parts:
            left += [f"{part.name} has {what}" for what in part.database.plans()]
        return left or ["nothing is due, and some answer is awaited"]

    def _turn(self, many: int) -> int:
        return self.schedule.choose("turn", many, self.faults.chance("order"))

    def _reached(self, point: str) -> None:
        """A process reaches a boundary of a delivery, and may die of it."""
        one = actor.get()
        self.points.add(point)
        slot: Slot | None = one.place
        if slot is not None and one.is_alive and (value := self.faults.at(slot, point)):
            slot.die(f"at {point}", lasts_s(value), value % 3)
            raise KilledError(f"{one.name} at {point}")


def _made(make: Callable[[Outside], Any], outside: Outside) -> Any:
    try:
        return make(outside)
    except Exception as error:
        name = f"{make.__module__}.{getattr(make, '__qualname__', make)}"
        raise CannotRunError(f"the stand-in {name} cannot be made: {describe(error)}") from error


def _exited(one: Actor, error: SystemExit) -> None:
    if one.place is None:  # the world's, or a customer's: no process that may leave
        raise error
    if one.is_alive:
        one.place.exit(error)
