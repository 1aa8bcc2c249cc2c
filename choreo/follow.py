"""Follows flows through the journal, and knows whose answer is still owed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from choreo import rabbitmq, tree
from choreo.contract import Command
from choreo.errors import CannotRunError, UndecodableError
from choreo.seams import Delivery
from choreo.service import Handler, Service, Step
from choreo.signature import MessageType
from choreo.tree import Entry, Flow


class Follower:
    """The flows that somebody wants to know of, as far as the journal tells of them."""

    def __init__(self) -> None:
        self.flows: dict[str, Flow] = {}
        self._news = asyncio.Event()
        self._lost = False

    def follow(self, flow_id: str, *, starts_with: str | None = None) -> Flow:
        """Collect a flow from now on: call it before its first message is published."""
        return self.flows.setdefault(flow_id, Flow(flow_id, starts_with=starts_with))

    async def until(self, done: Callable[[], bool], *, within_s: float) -> bool:
        """Wait until it is so; False if that took too long. Raises CannotRunError on a lost link.

        It is asked again after each event of a flow that is followed.
        """
        try:
            async with asyncio.timeout(within_s):
                while not done():
                    if self._lost:
                        raise CannotRunError("the connection to the broker was lost: start again")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return done()
        return True

    async def quiet(self, *, for_s: float, within_s: float) -> None:
        """Wait until no news came for a while, but not longer than `within_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while True:
                    self._news.clear()
                    await asyncio.wait_for(self._news.wait(), for_s)

    async def read(self, deliveries: AsyncIterator[Delivery]) -> None:
        """Take in what the journal tells, until the connection is lost."""
        try:
            async for delivery in deliveries:
                self._take(delivery)
        finally:
            self._lost = True
            self._news.set()

    def _take(self, delivery: Delivery) -> None:
        try:
            entry = tree.read(delivery, time.time())
        except UndecodableError:
            return  # what cannot be read belongs to no flow
        flow = self.flows.get(entry.envelope.flow)
        if flow is not None and flow.add(entry):
            self._news.set()


@asynccontextmanager
async def following(url: str) -> AsyncGenerator[Follower, None]:
    """Read the journal while the block lasts; what is published inside it is not missed.

    Raises CannotRunError if there is no broker or no journal yet.
    """
    async with rabbitmq.journal(url) as deliveries:
        follower = Follower()
        reading = asyncio.create_task(follower.read(deliveries))
        try:
            yield follower
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading


def owed(flow: Flow, services: Iterable[Service], *, certain: bool = True) -> list[str]:
    """Who must still answer what happened in the flow, in words; not who gave up.

    Without `certain`, also who may have had nothing to say (`-> ... | None`) and who may have
    answered with a command: that shows only in what the command leads to.
    """
    services = list(services)
    entries = list(flow.entries.values())
    happened = {entry.id: entry.envelope.type for entry in entries}
    for command in flow.commands.values():
        happened.setdefault(command.id, command.type)
    if flow.starts_with is not None:
        happened.setdefault(flow.id, flow.starts_with)
    types = set(happened.values())
    answered = {(one.envelope.causation, one.gave_up or one.envelope.source) for one in entries}
    asked = {(command.cause, command.type) for command in flow.commands.values()}
    found: list[str] = []
    for step in (step for service in services for step in service.steps):
        undo = step.taken_back_by
        if undo is not None and types.isdisjoint(_wire_types(undo.signature.consumes)):
            undo = None
        handler = undo or step
        if certain and _may_go_unheard(handler):
            continue
        if undo is not None:
            # From now on the step may stay silent, and what it announced is to be taken back.
            missing = _not_taken_back(step, undo, entries)
        elif types & _wire_types(step.unless):
            continue
        else:
            heard = _wire_types(step.signature.consumes)
            missing = [
                f"has not answered {wire_type.removesuffix('.v1')}"
                for message_id, wire_type in happened.items()
                if wire_type in heard
                and (message_id, step.source) not in answered
                and asked.isdisjoint((message_id, one) for one in _sent(step, services))
            ]
        found += (f"service {handler.service.name}: {handler.name} {what}" for what in missing)
    return found


def _may_go_unheard(handler: Handler[..., Any]) -> bool:
    """Whether the journal may tell nothing of what it did."""
    signature = handler.signature
    return signature.may_be_silent or any(issubclass(one, Command) for one in signature.publishes)


def _sent(handler: Handler[..., Any], services: Sequence[Service]) -> set[str]:
    """The commands that a handler may send, and those that may be sent because of them."""
    found: set[MessageType] = set()
    waiting = [handler]
    while waiting:
        commands = {one for one in waiting.pop().signature.publishes if issubclass(one, Command)}
        new = commands - found
        found |= new
        waiting += (
            one
            for service in services
            for one in service.handlers.values()
            if not new.isdisjoint(one.signature.consumes)
        )
    return _wire_types(found)


def _not_taken_back(
    step: Step[..., Any], undo: Handler[..., Any], entries: list[Entry]
) -> list[str]:
    causes, outcomes = (
        _wire_types(kinds) for kinds in (undo.signature.consumes, undo.signature.outcomes)
    )
    reach = {one.envelope.subject for one in entries if one.envelope.type in causes}
    undone = {
        one.envelope.subject for one in entries if undo.source in (one.envelope.source, one.gave_up)
    }
    return [
        f"has not taken back {one.name}"
        for one in entries
        if one.envelope.source == step.source
        and one.envelope.type in outcomes
        and (None in reach or one.envelope.subject in reach)
        and one.envelope.subject not in undone
    ]


def _wire_types(kinds: Iterable[MessageType]) -> set[str]:
    return {kind.__address__.wire_type for kind in kinds}
