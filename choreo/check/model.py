"""A choreography made ready for being played: who receives what, and what may come of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from choreo.check.ahead import Ahead, closure, members
from choreo.check.alternatives import NOTHING, Alternative, choices
from choreo.check.choreography import Choreography, name
from choreo.flow import Flow
from choreo.service import Deadline, Handler, Route, Service, Step
from choreo.signature import MessageType

Role = Literal["step", "undo", "unless", "arm", "until", "conduct"]


@dataclass(eq=False)
class Receiver:
    """One thing that a service does with a message; each may have it at another time."""

    number: int
    role: Role
    service: Service
    #: None for the conductors of a service, which have a message together.
    handler: Handler[..., Any] | None = None
    #: The number of the step or deadline that it is about; of no meaning for conductors.
    of: int = -1
    #: What it publishes is no end, stops nothing and touches no deadline of its service.
    is_plain: bool = False

    @property
    def name(self) -> str:
        """`service.handler`, or the service's name for its conductors."""
        return self.service.name if self.handler is None else name(self.handler)


@dataclass(eq=False)
class Watch:
    """What the play must know of a step at once."""

    number: int
    #: Whether something takes back what it does: its undo, or plain steps that stand for one.
    is_undone: bool
    #: The outcomes that are taken back; NOTHING where it is so even if it says nothing.
    accepted: frozenset[int]
    #: An effect that nothing takes back, and that is more than the service's own memory.
    is_final: bool
    #: Whether what takes it back are plain steps, which do not keep it from running.
    is_plainly: bool
    unless: frozenset[int]
    #: Kinds that stop it or take it back, and those that set it off, as bits.
    stoppers: int
    triggers: int
    #: Steps that a conductor has undone by this one.
    takes_back: tuple[int, ...] = ()
    receivers: set[int] = field(default_factory=set)
    stopped_by: set[int] = field(default_factory=set)


class Model:
    """What one flow of a choreography is played by: kinds and handlers are numbers here."""

    def __init__(self, choreography: Choreography, flow: Flow) -> None:
        self.choreography = choreography
        self.flow = flow
        known = [flow.starts, *choreography.hearers, *choreography.publishers, *flow.ends.values()]
        self.kinds: list[MessageType] = list(dict.fromkeys(known))
        self.index = {kind: number for number, kind in enumerate(self.kinds)}
        self.ends = {self.index[kind]: word for word, kind in flow.ends.items()}
        #: The ends before which all is undone, as the flow declares them.
        self.failing = frozenset(self.index[flow.ends[word]] for word in flow.fails)
        self.failing_mask = self.bits(flow.ends[word] for word in flow.fails)
        self.conductors = list(choreography.conductors)
        #: Every step and every deadline.
        self.handlers: list[Handler[..., Any]] = [
            one for service in choreography.services for one in (*service.steps, *service.deadlines)
        ]
        self.number = {handler: number for number, handler in enumerate(self.handlers)}
        self.receivers: list[Receiver] = []
        self.to: dict[int, list[Receiver]] = {}
        #: The handlers that were derived for conductors, by receiver and kind.
        self.conducted: dict[tuple[int, int], list[Handler[..., Any]]] = {}
        #: Who only listens: what it does changes nothing that can be told from outside.
        self.listeners: dict[int, list[str]] = {}
        #: The deadlines that a service's own messages arm, and those that they end.
        self.arms: dict[tuple[str, int], list[int]] = {}
        self.untils: dict[tuple[str, int], list[int]] = {}
        self.watches = {
            number: self._watch(number, one)
            for number, one in enumerate(self.handlers)
            if isinstance(one, Step)
        }
        for step, others in choreography.plain_undos.items():
            for other in others:
                self.watches[self.number[other]].takes_back += (self.number[step],)
                self.watches[self.number[other]].is_final = False
        self.told = frozenset(kind for one in self.watches.values() for kind in one.unless)
        self._receivers: dict[tuple[Role, object], Receiver] = {}
        for service in choreography.services:
            for kind, routes in service.routes().items():
                for route in routes:
                    self._receive(self.index[kind], route)
            self._own_deadlines(service)
        for one in self.receivers:
            one.is_plain = self._is_plain(one)
        self._alternatives: dict[tuple[int, int], tuple[Alternative, ...]] = {}
        self.aheads: dict[frozenset[str], Ahead] = {}
        start = self.index[flow.starts]
        #: Every kind that this flow may come to, as bits.
        self.comes = self.ahead().with_later(1 << start)
        self._cycles: dict[frozenset[int], frozenset[int]] = {}
        self.capped = self.on_cycles()

    def bits(self, kinds: Iterable[MessageType]) -> int:
        """A set of kinds as bits."""
        found = 0
        for kind in kinds:
            found |= 1 << self.index[kind]
        return found

    def deadline(self, number: int) -> Deadline[..., Any]:
        """A deadline by its number."""
        found = self.handlers[number]
        if not isinstance(found, Deadline):
            raise TypeError(f"{found!r} is no deadline")
        return found

    def step(self, number: int) -> Step[..., Any]:
        """A step by its number."""
        found = self.handlers[number]
        if not isinstance(found, Step):
            raise TypeError(f"{found!r} is no step")
        return found

    def is_long(self, within: timedelta) -> bool:
        """Whether services have forgotten the flow by then, but for the one that waits."""
        return within > self.choreography.memory

    def _watch(self, number: int, step: Step[..., Any]) -> Watch:
        undo = step.taken_back_by
        plain = self.choreography.plain_undos.get(step, set())
        stoppers = {kind for one in plain for kind in one.signature.consumes}
        stoppers |= {*step.unless, *(undo.signature.consumes if undo else ())}
        accepted = {self.index[kind] for kind in (undo.signature.outcomes if undo else ())}
        if plain:
            accepted |= {NOTHING, *(self.index[kind] for kind in step.signature.publishes)}
        remembers = not step.is_async and not step.signature.publishes
        return Watch(
            number,
            is_undone=bool(accepted),
            accepted=frozenset(accepted),
            is_final=step.final is not None and not (step.conductor or remembers or plain),
            is_plainly=bool(plain),
            unless=frozenset(self.index[kind] for kind in step.unless),
            stoppers=self.bits(stoppers),
            triggers=self.bits(step.signature.consumes),
        )

    # Who receives what.

    def _receive(self, kind: int, route: Route) -> None:
        handler, conducts = route.handler, route.handler.conductor is not None
        if not conducts and route.role == "step" and self._only_listens(handler):
            self.listeners.setdefault(kind, []).append(name(handler))
            return
        key: tuple[Role, object] = (
            ("conduct", handler.service) if conducts else (route.role, handler)
        )
        found = self._receivers.get(key)
        if found is None:
            found = Receiver(len(self.receivers), key[0], handler.service)
            self._receivers[key] = found
            self.receivers.append(found)
            if not conducts:
                self._tie(found, route)
        if found not in self.to.setdefault(kind, []):
            self.to[kind].append(found)
        if conducts:
            self.conducted.setdefault((found.number, kind), []).append(handler)

    def _tie(self, receiver: Receiver, route: Route) -> None:
        """Note which step or deadline a receiver is about."""
        about = route.step or route.handler
        receiver.handler, receiver.of = route.handler, self.number[about]
        if route.role == "step":
            watch = self.watches[receiver.of]
            watch.receivers.add(receiver.number)
            for taken in watch.takes_back:
                self.watches[taken].stopped_by.add(receiver.number)
        elif route.step is not None:
            self.watches[receiver.of].stopped_by.add(receiver.number)

    def _only_listens(self, handler: Handler[..., Any]) -> bool:
        watch = self.watches[self.number[handler]]
        acts = watch.is_undone or watch.takes_back or watch.is_final
        return not (handler.signature.publishes or acts)

    def _own_deadlines(self, service: Service) -> None:
        own = set(service.published)
        for one in service.deadlines:
            if one.conductor is None:
                for kind in own.intersection(one.signature.consumes):
                    self.arms.setdefault((service.name, self.index[kind]), []).append(
                        self.number[one]
                    )
                for kind in own.intersection(one.until):
                    self.untils.setdefault((service.name, self.index[kind]), []).append(
                        self.number[one]
                    )

    # What may come of what.

    def ahead(self, ended: frozenset[str] = frozenset()) -> Ahead:
        """What may come of what, once these services have ended the flow."""
        if ended not in self.aheads:
            self.aheads[ended] = Ahead(self, ended)
        return self.aheads[ended]

    def _is_plain(self, receiver: Receiver) -> bool:
        if receiver.handler is None:
            return False
        service = receiver.service.name
        said = [self.index[kind] for kind in receiver.handler.signature.publishes]
        return not any(
            kind in self.ends
            or kind in self.told
            or (service, kind) in self.arms
            or (service, kind) in self.untils
            for kind in said
        )

    def on_cycles(self, without: frozenset[int] = frozenset()) -> frozenset[int]:
        """Steps and deadlines that may set themselves off again, if some handlers did not run.

        An undo does so no more than once for each outcome, and keeps its step from running again;
        a conductor begins once about each subject.
        """
        if without not in self._cycles:
            self._cycles[without] = self._on_cycles(without)
        return self._cycles[without]

    def _on_cycles(self, without: frozenset[int]) -> frozenset[int]:
        ahead, goes_on = self.ahead(), dict[tuple[int, int], int]()
        for (number, kind), said in ahead.at_once.items():
            receiver = self.receivers[number]
            conductors = receiver.service.conductors.values() if receiver.handler is None else ()
            begins = any(one.starts is self.kinds[kind] for one in conductors)
            if not (begins or receiver.role == "undo" or receiver.of in without):
                goes_on[number, kind] = said
        later, found = closure(ahead.next_to(goes_on, without)), set[int]()
        for number, handler in enumerate(self.handlers):
            comes = said = self.bits(handler.signature.publishes)
            for one in members(said):
                comes |= later[one]
            if comes & self.bits(handler.signature.consumes) & self.comes:
                found.add(number)
        conducted = {number for number in found if self.handlers[number].conductor is not None}
        return frozenset(found - conducted - set(without))

    def without(self, steps: Collection[int]) -> Model:
        """The flow as it is if some of its leaves did not run."""
        found = copy(self)
        found.aheads = {}
        found.to = {
            kind: [one for one in receivers if one.of not in steps]
            for kind, receivers in self.to.items()
        }
        return found

    def leads_to(self, sent: Sequence[tuple[int, int]], handler: Handler[..., Any]) -> bool:
        """Whether messages may, at once or later, come to a handler."""
        comes = self.ahead().with_later(self.bits(self.kinds[kind] for kind, _ in sent))
        return bool(comes & self.bits(handler.signature.consumes))

    # What a handler may do.

    def alternatives(self, handler: Handler[..., Any], kind: int) -> tuple[Alternative, ...]:
        """What a handler may publish in answer to a kind of message."""
        key = (id(handler), kind)
        found = self._alternatives.get(key)
        if found is None:
            found = choices(handler.signature.returns, self.index, self.subject(kind))
            self._alternatives[key] = found
        return found

    def choices(
        self, handler: Handler[..., Any], kind: int, *, has_ended: bool
    ) -> Sequence[Alternative]:
        """What a handler may publish; one that may be silent ends a flow only once.

        A service that has announced an end says no other where it may say nothing; where it has
        not, a handler that may announce one is not silent.
        """
        every = self.alternatives(handler, kind)
        ending = [one for one in every if any(kind in self.ends for kind, _ in one)]
        if () not in every or not ending:
            return every
        return [one for one in every if (one not in ending if has_ended else one)]

    def subject(self, kind: int) -> str | None:
        """The field that tells what a message is about."""
        return self.kinds[kind].__address__.subject
