"""Every run of a small choreography, by brute force: each order of everything, nothing left out.

It shares no code with `choreo.check`, and is as plain as can be: it would share its mistakes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import timedelta
from itertools import product
from typing import Any

from check_brute_runs import (
    Conducts,
    Run,
    Said,
    cyclic,
    hearers,
    leads,
    may_say,
    stopped,
    subject,
)
from check_brute_world import World, copied, reaches

from choreo import Flow, Service
from choreo.service import Deadline, Handler, Route, Step

#: A cycle is followed so often.
_TURNS = 2


class TooManyError(Exception):
    """There are more states than a test may look at."""


class Brute:
    """All runs of a flow."""

    def __init__(self, services: list[Service], flow: Flow, lost: str | None, most: int) -> None:
        self.services = {one.name: one for one in services}
        self.flow, self.lost, self.most = flow, lost, most
        self.ends = set(flow.ends.values())
        self.faults: set[tuple[str, tuple[str, ...]]] = set()
        self.reached: set[str] = set()
        self.announced: set[Any] = set()
        self.states = 0
        self.routes: dict[str, list[tuple[Any, Route]]] = {
            one.name: [
                (kind, route)
                for kind, routes in one.routes().items()
                for route in routes
                if route.handler.conductor is None
            ]
            for one in services
        }
        self.failing = {flow.ends[word] for word in flow.fails}
        self.conducts = {
            it.name: it for one in services for it in map(Conducts, one.conductors.values())
        }
        # All that conductors of a service hear comes to them together, by one route.
        for one in services:
            for kind, routes in one.routes().items():
                if heard := [it for it in routes if it.handler.conductor is not None]:
                    self.routes[one.name].append((kind, heard[0]))
        self.cyclic, self.leads = cyclic(services), leads(services)

    def run(self) -> None:
        """Look at every moment once."""
        first = World()
        self.send(first, "", [(self.flow.starts, 0)], after=False)
        waiting, seen = [first], {first.key()}
        while waiting:
            world = waiting.pop()
            self.states += 1
            if self.states > self.most:
                raise TooManyError
            # What is later than services remember comes after all that is not.
            nexts = list(self.nexts(world)) or list(self.late(world, is_long=True))
            if not nexts:
                self.judge(world)
            for one in nexts:
                if one.key() not in seen:
                    seen.add(one.key())
                    if len(one.ends) < (2 if self.lost is None or one.is_late else 1):
                        waiting.append(one)

    def nexts(self, world: World) -> Iterator[World]:
        for place, (kind, about, after, service, number) in enumerate(world.under_way):
            route = self.routes[service][number][1]
            name = f"{service}.{route.handler.name}"
            buried = route.role == "step" and world.is_buried(name, about)
            if route.role == "step" and not buried and not self.may_run(world, name):
                continue
            message = (kind, about, after or kind in self.failing)
            if route.handler.conductor is None:
                yield from self.take(world, place, route, message, buried=buried)
            else:
                yield from self.conduct(world, place, service, message)
        yield from self.late(world, is_long=False)

    def late(self, world: World, *, is_long: bool) -> Iterator[World]:
        for armed in set(world.armed):
            name, kind, about, after = armed
            service, _, number = name.partition(".")
            handler = self.services[service].handlers[number]
            assert isinstance(handler, Deadline)
            if _is_long(handler.within) != is_long or not self.may_run(world, name):
                continue
            for said in self.choices(world, handler, kind, about):
                new = copied(world)
                self.forget(new, name, is_long=is_long)
                new.armed.remove(armed)
                self.reached.add(name)
                self.announce(new, name, said, after=after)
                self.turn(new, name, said)
                yield new
        for run in world.runs:
            conducts = self.conducts[run.conductor]
            for task in run.tasks:
                within = conducts.parts[task[0]].within
                if task[2] == "asked" and _is_long(within) == is_long:
                    name = conducts.taker(task, "late")
                    self.reached.add(name)
                    for later, said in conducts.settle(run, task, "late"):
                        new = copied(world)
                        self.forget(new, name, is_long=is_long)
                        self.move(new, name, run, later, said, after=False)
                        yield new

    def forget(self, world: World, name: str, *, is_long: bool) -> None:
        world.is_late |= is_long
        for done in world.done if is_long else ():
            if not done[0].startswith(f"{name.partition('.')[0]}."):
                done[5] = name

    def conduct(
        self, world: World, place: int, service: str, message: tuple[Any, int, bool]
    ) -> Iterator[World]:
        kind, about, after = message
        base, is_awaited = copied(world), False
        del base.under_way[place]
        for conducts in (one for one in self.conducts.values() if one.of.service.name == service):
            mine = [run for run in world.runs if run.conductor == conducts.name]
            found: list[tuple[Run | None, tuple[str, Any] | None]] = [
                (run, conducts.take(run, kind, about)) for run in mine
            ]
            if conducts.of.starts is kind and all(run.about != about for run in mine):
                found.append((None, (f"{service}.begin_{conducts.of.name}", conducts.begin(about))))
            for run, taken in found:
                for later, said in taken[1] if taken else ():
                    is_awaited = True
                    new = copied(base)
                    self.reached.add(taken[0] if taken else "")
                    self.move(new, taken[0] if taken else "", run, later, said, after=after)
                    yield new
        if not is_awaited:
            yield base

    def move(
        self, world: World, name: str, run: Run | None, later: Run, said: Said, *, after: bool
    ) -> None:
        world.runs = [*(one for one in world.runs if one is not run), later]
        fails = self.conducts[later.conductor].of.fails
        kinds = {kind for kind, _ in said}.intersection(fails.publishes if fails else ())
        if later.state == "failed":
            self.undeclared(kinds)
        self.announce(world, name, said, after=after)

    def undeclared(self, kinds: Collection[Any]) -> None:
        for word, end in self.flow.ends.items():
            if end in kinds and word not in self.flow.fails:
                self.faults.add(("undeclared-failure", (word,)))

    def may_run(self, world: World, name: str) -> bool:
        return name != self.lost and not (name in self.cyclic and world.turns[name] >= _TURNS)

    def turn(self, world: World, name: str, said: Said) -> None:
        """Count a turn of a cycle; one that goes on to itself for ever is a fault."""
        if name not in self.cyclic:
            return
        world.turns[name] += 1
        if world.turns[name] < _TURNS:
            return
        every = self.services.values()
        late = [self.handler(armed[0]) for armed in world.armed]
        for *_, service, number in world.under_way:
            route = self.routes[service][number][1]
            late += [route.handler] if route.role == "arm" else []
        for run in world.runs:
            of = self.conducts[run.conductor].of
            if run.state in ("running", "undoing"):
                late += [one for one in of.service.deadlines if one.conductor == of.name]
        ends = {kind for kind, _ in world.ends}
        ends |= self.ends.intersection(kind for one in late for kind in one.signature.publishes)
        first = set(hearers(every, [kind for kind, _ in said]))
        comes = first.union(*(self.leads[one] for one in first))
        if name in comes & cyclic(every, stopped(every, ends)):
            self.faults.add(("endless-cycle", (name,)))

    def handler(self, name: str) -> Handler[..., Any]:
        service, _, handler = name.partition(".")
        return self.services[service].handlers[handler]

    def take(
        self,
        world: World,
        place: int,
        route: Route,
        message: tuple[Any, int, bool],
        *,
        buried: bool,
    ) -> Iterator[World]:
        kind, about, after = message
        handler, service = route.handler, route.handler.service.name
        name = f"{service}.{handler.name}"
        stopped = f"{service}.{route.step.name}" if route.step else name
        base = copied(world)
        del base.under_way[place]
        if route.role in ("unless", "until"):
            base.graves.add((stopped, about))
            base.armed = [one for one in base.armed if not reaches(name, about, one)]
            yield base
        elif route.role == "arm":
            self.arm(base, handler, kind, about, after=after)
            yield base
        elif route.role == "undo":
            yield from self.undo(base, route, message)
        elif buried:
            yield base
        else:
            for said in self.choices(world, handler, kind, about):
                new = copied(base)
                self.reached.add(name)
                overtaken = any(one == name for one, _ in world.graves)
                new.done.append([name, about, said, False, overtaken, ""])
                self.look_at_pivot(world, handler, about, said, after=after)
                self.announce(new, name, said, after=after)
                self.turn(new, name, said)
                yield new

    def undo(self, base: World, route: Route, message: tuple[Any, int, bool]) -> Iterator[World]:
        kind, about, after = message
        undo, step = route.handler, route.step
        assert step is not None
        service = undo.service.name
        name = f"{service}.{step.name}"
        base.graves.add((name, about))
        owed: Said = []
        for one in base.done:
            accepted = [out for out in one[2] if out[0] in undo.signature.outcomes]
            if one[0] == name and not one[3] and about in (-1, one[1]) and accepted:
                one[3] = True
                owed += accepted
                if one[5]:
                    self.faults.add(("no-deadline", (one[5], f"{service}.{undo.name}", "30")))
        if owed:
            self.reached.add(f"{service}.{undo.name}")
            self.undeclared([kind])
        for chosen in product(self.choices(base, undo, kind, about), repeat=len(owed)):
            new, said = copied(base), Said()
            for choice, outcome in zip(chosen, owed, strict=True):
                for out, of_cause in choice:
                    same = subject(out) == subject(outcome[0])
                    said.append((out, outcome[1] if same else of_cause))
            self.announce(new, f"{service}.{undo.name}", said, after=after)
            yield new

    def choices(
        self, world: World, handler: Handler[..., Any], kind: Any, about: int
    ) -> list[Said]:
        found = may_say(handler.signature.returns, kind, about)
        ending = [one for one in found if any(out in self.ends for out, _ in one)]
        if [] not in found or not ending:
            return found
        if any(service == handler.service.name for _, service in world.ends):
            return [one for one in found if one not in ending]
        return [one for one in found if one]

    def announce(self, world: World, who: str, said: Said, *, after: bool) -> None:
        service = who.partition(".")[0]
        before = len(world.ends)
        self.send(world, service, said, after=after)
        if len(world.ends) > max(1, before):
            deciders = tuple(sorted({one for _, one in world.ends}))
            fault = ("two-deciders", deciders) if len(deciders) > 1 else ("two-ends", (who,))
            self.faults.add(fault)

    def send(self, world: World, service: str, said: Said, *, after: bool) -> None:
        for kind, about in said:
            world.said.add((kind, about))
            for name, routes in self.routes.items():
                for number, (heard, _) in enumerate(routes):
                    if heard is kind:
                        world.under_way.append((kind, about, after, name, number))
            if kind in self.ends and service:
                world.ends.append((kind, service))
                self.announced.add(kind)
            own = self.services[service] if service else None
            for one in own.deadlines if own else ():
                if kind in one.signature.consumes and one.conductor is None:
                    self.arm(world, one, kind, about, after=after)
                if kind in one.until and one.conductor is None:
                    name = f"{service}.{one.name}"
                    world.graves.add((name, about))
                    world.armed = [it for it in world.armed if not reaches(name, about, it)]

    def arm(
        self, world: World, handler: Handler[..., Any], kind: Any, about: int, *, after: bool
    ) -> None:
        assert isinstance(handler, Deadline)
        name = f"{handler.service.name}.{handler.name}"
        if not world.is_buried(name, about):
            world.armed.append((name, kind, about, after))

    def look_at_pivot(
        self, world: World, step: Handler[..., Any], about: int, said: Said, *, after: bool
    ) -> None:
        assert isinstance(step, Step)
        failed = [end for end, _ in world.ends if end in self.failing]
        name = f"{step.service.name}.{step.name}"
        acts = step.final is not None and (said or step.is_async)
        ends = any(kind in self.ends for kind, _ in said)
        heard = {(kind, of) for kind in step.unless for of in (-1, about)}
        if failed and acts and not (ends or after or world.said.intersection(heard)):
            self.faults.add(("pivot", (name, failed[0].__name__)))

    def judge(self, world: World) -> None:
        """Nothing more happens."""
        if self.lost is not None:
            held = any(
                f"{service}.{self.routes[service][number][1].handler.name}" == self.lost
                for _, _, _, service, number in world.under_way
            )
            if held and not world.ends:
                self.faults.add(("no-deadline", (self.lost,)))
            return
        if not (world.under_way or world.armed):  # else a cycle goes on
            self.judge_settled(world)

    def judge_settled(self, world: World) -> None:
        for run in (one for one in world.runs if one.has("undoing")):
            conducts = self.conducts[run.conductor]
            for task in (one for one in run.tasks if one[2] == "undoing"):
                about = (conducts.taker(task, "undone"), conducts.of.name)
                self.faults.add(("no-deadline", about))
        if any(one.has("undoing") for one in world.runs):
            return
        if not world.ends:
            self.faults.add(("no-end", ()))
        if any(kind in self.failing for kind, _ in world.ends):
            for name, _, said, is_undone, overtaken, _ in world.done:
                step = self.handler(name)
                undo = step.taken_back_by if isinstance(step, Step) else None
                outcomes = undo.signature.outcomes if undo else ()
                if not is_undone and any(kind in outcomes for kind, _ in said):
                    rule = "overtaken" if overtaken else "left-undone"
                    self.faults.add((rule, (name,)))


def _is_long(within: timedelta) -> bool:
    return within > timedelta(days=30)
