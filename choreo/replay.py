"""Sends events of the past, which the journal keeps, to one service again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NoReturn

from choreo import envelope, plan, progress, rabbitmq, topology
from choreo.errors import CannotRunError, UndecodableError
from choreo.rabbitmq import RabbitMQ
from choreo.seams import Delivery
from choreo.service import Service
from choreo.settings import Settings
from choreo.work import Letter, Unit, judge

#: Of the retention, the share after which a service may forget before it handles what is sent.
_SURE = 0.99
#: By so much may the clocks of a service and of the broker differ.
_SKEW = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are to be sent again, and to whom."""

    service: Service
    #: None: all that the journal keeps.
    since: datetime | None
    until: datetime | None = None
    #: How the flow's id ends.
    flow: str = ""
    #: Also what the service may have forgotten.
    force: bool = False


@dataclass(slots=True)
class Tally:
    """What was done."""

    looked_at: int = 0
    sent: int = 0
    #: Heard by the service, and no message that it could read.
    unreadable: int = 0


class Dates:
    """Tells when events of the journal happened; they are shown to it in their order."""

    def __init__(self) -> None:
        self._at = 0.0

    def of(self, delivery: Delivery) -> float:
        """Seconds since 1970; an event that does not say is as old as the one before it."""
        with suppress(UndecodableError):
            found = envelope.read(delivery, self._at)
            self._at = envelope.moment(found.time).timestamp()
        return self._at


def remembered_since(settings: Settings, now: float) -> float:
    """What happened after that, in seconds since 1970, a service surely remembers."""
    return now - settings.retention_days * 86400 * _SURE


def places(wanted: topology.Topology) -> frozenset[tuple[str, str]]:
    """Where the queues of a topology listen, as exchange and routing key."""
    return frozenset((one.exchange, one.routing_key) for one in wanted.bindings)


async def replay(
    url: str, settings: Settings, broker: RabbitMQ, wanted: Wanted, *, dry_run: bool
) -> Tally:
    """Send what is wanted to the service's queue, byte for byte; with `dry_run` only look.

    Raises CannotRunError at an event that the service may have forgotten: it would have its
    effect again.
    """
    queue, tally = wanted.service.name, Tally()
    if await broker.missing([queue]):
        raise CannotRunError(f"no queue {queue}: run 'choreo declare', or start the service")
    choice = _Choice(settings, wanted, tally)
    async with rabbitmq.past(url, start=wanted.since - _SKEW if wanted.since else 0) as past:
        with progress.shown("reading the journal", past.last) as tell:
            async for events in past:
                chosen = choice.of([delivery for _, delivery in events])
                if chosen and not dry_run:
                    unfit = await broker.send_again(queue, chosen)
                    tally.unreadable += len(unfit)
                    tally.sent -= len(unfit)
                tally.looked_at += len(events)
                tell(events[0][0], events[-1][0])
    return tally


class _Choice:
    """Chooses among the events of the journal."""

    def __init__(self, settings: Settings, wanted: Wanted, tally: Tally) -> None:
        self._settings = settings
        self._wanted = wanted
        self._tally = tally
        self._plan = plan.make(wanted.service)
        self._places = places(topology.of([wanted.service]))
        self._dates = Dates()
        self._since = wanted.since.timestamp() if wanted.since else 0.0
        self._until = wanted.until.timestamp() if wanted.until else float("inf")
        self._remembered = 0.0 if wanted.force else remembered_since(settings, time.time())

    def of(self, events: Sequence[Delivery]) -> list[Delivery]:
        """Those that are to be sent; counts them."""
        chosen = [one for one in events if self._is_wanted(one)]
        self._tally.sent += len(chosen)
        return chosen

    def _is_wanted(self, delivery: Delivery) -> bool:
        at = self._dates.of(delivery)
        if (delivery.exchange, delivery.routing_key) not in self._places:
            return False
        item = judge(self._plan, delivery, at, self._settings.max_body_bytes)[0]
        found = item.envelope if isinstance(item, Unit | Letter) else None
        of_flow = (found.flow if found else "").endswith(self._wanted.flow)
        if not (of_flow and self._since <= at < self._until):
            return False
        if isinstance(item, Letter):
            self._tally.unreadable += 1
            return False
        if at < self._remembered:
            self._refuse(at)
        return True

    def _refuse(self, at: float) -> NoReturn:
        name, days = self._wanted.service.name, self._settings.retention_days
        sent = f"{self._tally.sent} later ones were sent" if self._tally.sent else "nothing is sent"
        raise CannotRunError(
            f"an event of {envelope.timestamp(at)} is older than what {name} surely remembers "
            f"({days:g} days, CHOREO_RETENTION_DAYS): if {name} had it, it would have its effect "
            f"again; {sent}. Choose a later --since, or --force if {name} never had it"
        )
