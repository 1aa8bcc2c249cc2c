"""Sends commands into a running system and follows what they start to its end."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from choreo import CannotRunError, Command, Event, Service
from choreo.follow import Follower, owed
from choreo.identity import Ids
from choreo.outgoing import first
from choreo.rabbitmq import RabbitMQ
from choreo.seams import SystemClock
from choreo.tree import Entry, Flow
from contracts.accounts import AccountRegistered, AccountRejected
from contracts.orders import OrderCancelled, OrderFulfilled, OrderRejected
from contracts.travel import (
    ConfirmationRejected,
    TripCancelled,
    TripConfirmed,
    TripRejected,
    TripReserved,
)

#: The outcome of a flow that has not ended, and of one that was refused at the door.
OPEN, REJECTED = "open", "rejected"
#: What ends a flow, and what that outcome is called.
_ENDS: dict[type[Event], str] = {
    AccountRegistered: "registered",
    AccountRejected: REJECTED,
    OrderFulfilled: "fulfilled",
    OrderCancelled: "cancelled",
    OrderRejected: REJECTED,
    TripReserved: "reserved",
    TripRejected: REJECTED,
    ConfirmationRejected: REJECTED,
    TripConfirmed: "confirmed",
    TripCancelled: "cancelled",
}
_OUTCOMES = {kind.__address__.wire_type: outcome for kind, outcome in _ENDS.items()}
#: How long to wait for what must come after an end (mails, undos),
_SETTLE_S = 30.0
#: and for silence, since who need not speak cannot be waited for.
_QUIET_S = 0.3
_GROUP = 200

#: Commands, each of which is sent once the one before it has led to something good.
Chain = Sequence[Command]


class NobodyHearsError(Exception):
    """The broker returned a command, because no queue takes it."""


@dataclass(frozen=True)
class Sender:
    """A running system, as somebody outside sees it."""

    broker: RabbitMQ
    follower: Follower
    services: Sequence[Service]
    _ids: Ids = field(default_factory=lambda: Ids(SystemClock(), random.SystemRandom()))

    async def carry_out(
        self,
        chains: Sequence[Chain],
        *,
        within_s: float,
        on_ended: Callable[[int], None] = lambda _: None,
    ) -> list[Flow]:
        """Send the commands, side by side, and follow the flow of each until it has come to rest.

        `within_s` limits each link of the chains. `on_ended` is told of how many more have ended.
        Raises NobodyHearsError if no service is there to take a command.
        """
        flows: list[Flow] = []
        while chains:
            begun = await self._start([chain[0] for chain in chains])
            flows += begun
            await self._ended(begun, within_s, on_ended)
            chains = [
                chain[1:]
                for chain, flow in zip(chains, begun, strict=True)
                if chain[1:] and outcome_of(flow) not in (OPEN, REJECTED)
            ]
        return flows

    async def _start(self, commands: Sequence[Command]) -> list[Flow]:
        flows: list[Flow] = []
        for at in range(0, len(commands), _GROUP):
            made = [
                first(one, self._ids, time.time(), "/scripts") for one in commands[at:][:_GROUP]
            ]
            group = {one.envelope.id: one for one in made}
            flows += [
                self.follower.follow(flow_id, starts_with=one.routing_key)
                for flow_id, one in group.items()
            ]
            for flow_id, reason in (await self.broker.publish(made)).items():
                topic = group[flow_id].routing_key.removesuffix(".v1")
                if reason.startswith(("no queue hears", "NOT_FOUND")):
                    raise NobodyHearsError(
                        f"no queue hears {topic}: start the services with 'choreo up'"
                    )
                raise CannotRunError(f"{topic} was not published: {reason}")
        return flows

    async def _ended(
        self, flows: Sequence[Flow], within_s: float, on_ended: Callable[[int], None]
    ) -> None:
        """Wait until all came to their ends and to rest, or the time is over.

        What is still being retried may come later.
        """
        running = list(flows)

        def all_ended() -> bool:
            before = len(running)
            running[:] = [flow for flow in running if end_of(flow) is None]
            on_ended(before - len(running))
            return not running

        if await self.follower.until(all_ended, within_s=within_s):
            running[:] = flows

            def all_answered() -> bool:
                running[:] = [flow for flow in running if owed(flow, self.services)]
                return not running

            await self.follower.until(all_answered, within_s=_SETTLE_S)
            await self.follower.quiet(for_s=_QUIET_S, within_s=_SETTLE_S)


def fresh(what: str) -> str:
    """An id that nobody has yet."""
    return f"{what}-{uuid.uuid4().hex[:12]}"


def end_of(flow: Flow) -> Entry | None:
    """The event with which the flow ended."""
    return next((one for one in flow.entries.values() if one.envelope.type in _OUTCOMES), None)


def outcome_of(flow: Flow) -> str:
    """How the flow ended."""
    end = end_of(flow)
    return OPEN if end is None else _OUTCOMES[end.envelope.type]


def reason_of(flow: Flow) -> str | None:
    """Why it ended so, where its last event says that."""
    end = end_of(flow)
    return end.body.get("reason") if end is not None and isinstance(end.body, dict) else None
