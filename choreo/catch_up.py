"""Lets a service take the journal in before what comes: `choreo run SERVICE --from-start`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, bindparam
from structlog.typing import FilteringBoundLogger

from choreo import progress, rabbitmq
from choreo.rabbitmq import PREFETCH, RabbitMQ, explain
from choreo.rabbitmq.link import is_cancelled
from choreo.replay import Dates, places, remembered_since
from choreo.seams import Database, Delivery
from choreo.settings import Settings
from choreo.store.tables import catch_up, inbox
from choreo.topology import Topology

#: So long after the queue is bound, what was routed before that has reached the journal.
SEAM_S = 1.0
AGAIN_S = 1.0
_ANY = sa.select(inbox.c.message_id).limit(1)
_GO_ON = catch_up.update().values(offset=bindparam("reached"), at=bindparam("now"))


@dataclass(slots=True)
class Stand:
    """How far a service has caught up."""

    #: All up to this offset is handled.
    offset: int
    #: What is older (seconds since 1970) is left out, as it may be forgotten.
    oldest: float
    #: Whether it began before, in this process or another.
    is_resumed: bool


class FromStart(RabbitMQ):
    """A broker that first hands over what the journal keeps, and then what comes.

    The queue is bound before the journal's end is looked for, so that what comes meanwhile waits in
    it. What is in both is known by its id the second time.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        name: str,
        log: FilteringBoundLogger,
        database: Database,
    ) -> None:
        super().__init__(url, settings, name, log)
        self._database = database
        self._dates = Dates()
        self._reading: asyncio.Task[None] | None = None
        #: How many deliveries of the journal are not committed.
        self._in_hand = 0
        self._committed = asyncio.Event()
        self._left_out = 0

    async def consume(
        self,
        topology: Topology,
        queue: str,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        on_hearing: Callable[[int | None], None],
    ) -> None:
        """Begin with the journal; what comes is taken when its end is reached."""
        await self.declare(topology)
        stand = await self._database.run(partial(_begin, self._settings))
        if stand.is_resumed or stand.oldest:
            self._log.info("not the first start: what it has handled has no effect again")
        live = partial(super().consume, topology, queue, prefetch, on_delivery, on_hearing)
        self._reading = asyncio.create_task(self._catch_up(topology, stand, on_delivery, live))

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Also count what came from the journal."""
        self._in_hand -= sum(one.channel is None for one in deliveries)
        if not self._in_hand:
            self._committed.set()
        super().settle(deliveries)

    async def cancel(self) -> None:
        """Stop receiving, from the journal as well."""
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._log.warning("stopped before it had caught up: start it with --from-start again")
        await super().cancel()

    async def _catch_up(
        self,
        topology: Topology,
        stand: Stand,
        on_delivery: Callable[[Delivery], None],
        live: Callable[[], Any],
    ) -> None:
        """Read the journal, however often the broker goes away, then what comes."""
        self._log.info("catching up from the journal", after_offset=stand.offset)
        await asyncio.sleep(SEAM_S)
        heard = places(topology)
        while True:
            try:
                await self._read(heard, stand, on_delivery)
                await self._database.run(partial(_end, stand.offset))
                await live()
            except (Exception, asyncio.CancelledError) as error:
                if is_cancelled():
                    raise
                reason = explain(error, self._url)
                self._log.error("cannot catch up, trying again", error=reason, after_s=AGAIN_S)
                await asyncio.sleep(AGAIN_S)
            else:
                break
        self._log.info("caught up", until=stand.offset)
        if self._left_out:
            self._log.warning(
                "events that the service may have forgotten were left out: if it never had them, "
                "send them with 'choreo replay --force'", count=self._left_out,
            )  # fmt: skip

    async def _read(
        self,
        heard: frozenset[tuple[str, str]],
        stand: Stand,
        on_delivery: Callable[[Delivery], None],
    ) -> None:
        # One of these may have killed a process: such are taken alone.
        suspect_until = stand.offset + 2 * PREFETCH if stand.is_resumed else -1
        async with rabbitmq.past(self._url, start=stand.offset + 1) as past:
            with progress.shown("catching up", past.last, self._log) as tell:
                async for events in past:
                    wanted = []
                    for offset, delivery in events:
                        if (delivery.exchange, delivery.routing_key) in heard:
                            delivery.redelivered = offset <= suspect_until
                            wanted.append(delivery)
                    await self._hand_over(self._remembered(wanted, stand.oldest), on_delivery)
                    stand.offset = events[-1][0]
                    await self._database.run(partial(_go_on, stand.offset))
                    tell(events[0][0], stand.offset)

    def _remembered(self, deliveries: Sequence[Delivery], oldest: float) -> list[Delivery]:
        """Leave out what the service may have had and forgotten."""
        kept = [one for one in deliveries if not oldest or self._dates.of(one) >= oldest]
        self._left_out += len(deliveries) - len(kept)
        return kept

    async def _hand_over(
        self, deliveries: Sequence[Delivery], on_delivery: Callable[[Delivery], None]
    ) -> None:
        """Hand deliveries over, and wait until all are committed."""
        if deliveries:
            self._in_hand = len(deliveries)
            self._committed.clear()
            for one in deliveries:
                on_delivery(one)
            await self._committed.wait()


def _begin(settings: Settings, db: Connection, now: float) -> Stand:
    """Where to begin, or to go on; from now on it is known that it was begun."""
    row = db.execute(sa.select(catch_up)).first()
    remembered = remembered_since(settings, now)
    if row is None:
        oldest = 0.0 if db.execute(_ANY).first() is None else remembered
        db.execute(catch_up.insert(), {"offset": -1, "oldest": oldest, "at": now})
        return Stand(-1, oldest, is_resumed=False)
    # One that was left lately has forgotten nothing since.
    is_fresh = row.at is not None and row.at > remembered
    oldest = row.oldest if is_fresh else remembered
    db.execute(catch_up.update().values(oldest=oldest, at=now))
    return Stand(row.offset, oldest, is_resumed=True)


def _go_on(reached: int, db: Connection, now: float) -> None:
    db.execute(_GO_ON, {"reached": reached, "now": now})


def _end(reached: int, db: Connection, _: float) -> None:
    db.execute(_GO_ON, {"reached": reached, "now": None})
