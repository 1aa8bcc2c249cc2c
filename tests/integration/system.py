"""Whole processes as in production: services and their outside world, and all that they say.

`System` runs them and records what passes; `audit` says whether everything is as it must be.
"""

from __future__ import annotations

import asyncio
import mailbox
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aio_pika
import cast
import pytest
import sqlalchemy as sa
from processes import PATIENCE_S, Processes, environment
from record import MARK, TAP, Record
from stage import TABLES, until
from starts import Start

from audits import ledgers
from audits.ledgers import Books
from choreo import log as logs
from choreo import rabbitmq, topology
from choreo.envelope import Envelope, timestamp
from choreo.identity import Ids
from choreo.outgoing import first
from choreo.seams import Outgoing, SystemClock
from choreo.service import Route
from choreo.settings import Settings
from choreo.store.database import connect
from contracts.travel import ConfirmReservation, ReserveTrip

_FINAL = ("done", "cancelled", "parked")
#: For everything that some hundred flows lead to, the longest lease of a dead process included.
ENDED_S = 120.0
SHOWN_LINES = 150
T = TypeVar("T")


class System(Processes, Record):
    """Runs the processes, begins flows, and tells what came of them."""

    def __init__(
        self,
        url: str,
        database_url: str,
        var: Path,
        services: Sequence[str] = cast.ORDERS,
        **given: object,
    ) -> None:
        """`given`: variables of the processes' environment."""
        Record.__init__(self, url)
        env = environment(url, database_url, var, **given)
        Processes.__init__(self, services, cast.sandboxes(services), var, env)
        self.database_url = database_url
        self.settings = Settings(
            amqp_url=url, database_url=database_url, var=var, publish_timeout_s=PATIENCE_S
        )
        #: Every flow begun, by its id.
        self.placed: dict[str, Start] = {}
        self.ids = Ids(SystemClock(), random.Random())
        self._cast = cast.services(services)
        self._engines = {name: connect(self.settings.database_of(name)) for name in services}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start nothing but the outside world."""
        async with AsyncExitStack() as stack:
            self._broker = await stack.enter_async_context(
                rabbitmq.connected(self.url, self.settings, "system", logs.logger("system"))
            )
            # Of all, whether they run or not: an event waits until all that it is for can hear it.
            everybody = cast.services(cast.ALL).values()
            for service in everybody:
                await self._broker.declare(topology.of([service]))
            exchanges = topology.of(everybody).command_exchanges
            await stack.enter_async_context(self.listening(exchanges))
            await stack.enter_async_context(self.running())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        for engine in self._engines.values():
            engine.dispose()
        if error is not None:
            for said in self.logs[-SHOWN_LINES:]:
                print(f"{said.name:14}| {said.text}")

    # Messages.

    async def place(self, *placed: Start, times: int = 1) -> list[str]:
        """Begin flows, with a command that comes more than once where wanted; gives their ids."""
        outgoing = [first(one, self.ids, time.time(), "/system/test") for one in placed]
        flows = [one.envelope.id for one in outgoing]
        self.placed.update(zip(flows, placed, strict=True))
        for _ in range(times):
            await self.publish(*outgoing)
        return flows

    async def place_in_turn(self, *placed: Start) -> list[str]:
        """Begin flows; a trip that is confirmed among them is reserved before any other begins."""
        confirmed = {one.trip_id for one in placed if isinstance(one, ConfirmReservation)}
        trips = [one for one in placed if isinstance(one, ReserveTrip) and one.trip_id in confirmed]
        flows = await self.place(*trips) if trips else []
        await self._each_ends(flows)
        return flows + await self.place(*(one for one in placed if one not in trips))

    async def under_way(self, kind: Callable[..., Sequence[Start]], many: int) -> None:
        """Begin so many flows of a kind that not all have ended when every service is at it.

        Where this process was held up they may have: then it begins as many again.
        """
        speak = [name for name, service in self._cast.items() if service.published]
        for _ in range(5):
            wanted = self.announced + Counter(dict.fromkeys(speak, 10))
            await self.place_in_turn(*kind(many, prefix=f"{len(self.placed)}-"))
            await until(
                lambda wanted=wanted: self.announced >= wanted,  # type: ignore[misc]
                "every service has begun",
                PATIENCE_S,
            )
            if len(self.ends) < len(self.placed):
                return
        raise AssertionError("all have ended, time and again: begin more of them at once")

    async def publish(self, *messages: Outgoing) -> None:
        """Publish any messages, in this order."""
        assert await self._broker.publish(messages) == {}

    async def reverse(self, service: str) -> None:
        """Put what waits in the queue of a stopped service into reverse order."""
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            queue = await channel.get_queue(service)
            waiting = []
            while message := await queue.get(fail=False):
                waiting.append(message)
            for message in reversed(waiting):
                await channel.default_exchange.publish(message, service)
                await message.ack()

    # What came of it.

    async def ended(self, within_s: float = ENDED_S) -> None:
        """Wait until every flow came to an end, and then until nothing more can happen."""
        await self._each_ends(list(self.placed), within_s)
        await self.settled(within_s)

    async def _each_ends(self, flows: Sequence[str], within_s: float = ENDED_S) -> None:
        def still_open() -> list[str]:
            return [f"{flow} ({self.placed[flow]})" for flow in flows if flow not in self.ends]

        try:
            await until(lambda: not still_open(), "every flow ends", within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; {still_open()} are open: {self.unrest()}") from None

    async def settled(self, within_s: float = ENDED_S) -> None:
        """Wait until nothing more can happen.

        So it is when all that was heard is handled, nobody has anything left to publish or to do
        later, the queues are empty, and a mark that was sent after all that was heard next.
        """
        end = time.monotonic() + within_s
        while True:
            known = len(self.heard)
            unrest = self.unrest() or await self.queued()
            if not unrest:
                await self._mark()
                if len(self.heard) == known:
                    return
            if time.monotonic() > end:
                raise AssertionError(f"not settled within {within_s:g} s: {unrest}")
            await asyncio.sleep(0.05)

    def unrest(self) -> list[str]:
        """What is still to be done, in words."""
        found: list[str] = []
        for name in self.services:
            routes = self.routes(name)
            with self._engines[name].begin() as db:
                inbox = TABLES["inbox"].c
                rows = db.execute(sa.select(inbox.message_id, inbox.handler, inbox.status)).all()
                left = {one: db.scalar(sa.select(sa.func.count()).select_from(TABLES[one]))
                        for one in ("outbox", "due")}  # fmt: skip
            done = {(message_id, key) for message_id, key, status in rows if status in _FINAL}
            lacking = Counter(
                route.key
                for one, _ in self.heard.values()
                for route in routes.get(one.type, ())
                if (one.id, route.key) not in done
            )
            found += [f"{name}.{key} has not handled {many}" for key, many in lacking.items()]
            found += [f"{many} rows in the {one} of {name}" for one, many in left.items() if many]
        return found

    async def queued(self) -> list[str]:
        """Which queues hold messages."""
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            found = {
                name: (await channel.declare_queue(name, passive=True)).declaration_result
                for name in self.services
            }
        return [
            f"{one.message_count} in queue {name}" for name, one in found.items()
            if one.message_count
        ]  # fmt: skip

    async def _mark(self) -> None:
        """Send a mark through the journal and one through the tap, and wait until both arrive."""
        marks = []
        for exchange, key in ((topology.CHOREO, MARK), ("", TAP)):
            identifier = self.ids.next()
            at = timestamp(time.time())
            envelope = Envelope(identifier, MARK, "/system/test", at, identifier)
            marks.append(Outgoing(exchange, key, envelope, b"{}"))
        await self.publish(*marks)
        sent = {one.envelope.id for one in marks}
        await until(lambda: sent <= self.marks, "marks in the journal and the tap", PATIENCE_S)

    def rows(self, service: str, table: sa.Table | str) -> list[dict[str, Any]]:
        """A table of a service's database."""
        chosen = TABLES[table] if isinstance(table, str) else table
        return self.reading(
            service, lambda db: [dict(row) for row in db.execute(sa.select(chosen)).mappings()]
        )

    def reading(self, service: str, work: Callable[[sa.Connection], T]) -> T:
        """Give the connection of a service's database to something that reads it."""
        with self._engines[service].begin() as db:
            return work(db)

    def routes(self, service: str) -> dict[str, tuple[Route, ...]]:
        """What a service does with each message that it hears, by wire type."""
        routes = self._cast[service].routes()
        return {kind.__address__.wire_type: found for kind, found in routes.items()}

    def books(self) -> dict[str, Books]:
        """The ledgers of the outside world, by order or trip."""
        return ledgers.read(self.var, self.sandboxes)

    def mails(self) -> list[str]:
        """The Message-IDs of the mails that were sent."""
        return mailbox.mails(self.var)


SystemMaker = Callable[..., System]


@pytest.fixture(name="system")
def system_fixture(
    amqp_url: str, database_url: str, create_databases: Callable[..., None], tmp_path: Path
) -> SystemMaker:
    """Makes a system in a corner of its own: `async with system(CHOREO_BATCH=1) as running`."""

    def make(services: Sequence[str] = cast.ORDERS, **given: object) -> System:
        create_databases(*services)
        return System(amqp_url, database_url, tmp_path, services, **given)

    return make
