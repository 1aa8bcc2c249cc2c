"""The whole order flow as in production: the services and their outside world, a process each.

`System` runs it and records what it announces; `audit` says whether everything is as it must be.
"""

from __future__ import annotations

import asyncio
import email
import json
import os
import random
import signal
import sqlite3
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aio_pika
import aiormq
import pytest
import sqlalchemy as sa
from stage import TABLES, until

from choreo import Service, rabbitmq, topology
from choreo import log as logs
from choreo.contract import Message
from choreo.envelope import Envelope, read, timestamp
from choreo.errors import CannotRunError
from choreo.identity import Ids
from choreo.outgoing import first
from choreo.seams import Delivery, Outgoing, SystemClock
from choreo.settings import Settings
from choreo.store.database import connect
from choreo.supervisor import Supervisor
from contracts.orders import (
    Customer,
    Line,
    OrderCancelled,
    OrderFulfilled,
    OrderRejected,
    PlaceOrder,
)
from sandboxes import carrier, gateway
from services import inventory, notifications, orders, payments, rewards, shipping

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, Service] = {
    module.service.name: module.service
    for module in (orders, inventory, payments, shipping, rewards, notifications)
}
SANDBOXES = ("gateway", "carrier")
ENDS = {
    kind.__address__.wire_type: name
    for kind, name in (
        (OrderFulfilled, "fulfilled"), (OrderCancelled, "cancelled"), (OrderRejected, "rejected"),
    )
}  # fmt: skip
_MARK = "system.mark.v1"
_FINAL = ("done", "cancelled", "parked")
#: For what takes a second, and many where the machine is busy with other things.
PATIENCE_S = 30.0
#: For everything that some hundred orders lead to, the longest lease of a dead process included.
ENDED_S = 120.0
SHOWN_LINES = 150


@dataclass(frozen=True, slots=True)
class Said:
    """A line that a process wrote."""

    name: str
    text: str
    #: What it says, if it is JSON.
    entry: dict[str, Any]


@dataclass(slots=True)
class Books:
    """What the outside world wrote down about one order."""

    charges: list[int] = field(default_factory=list)
    refunds: list[int] = field(default_factory=list)
    bookings: list[str] = field(default_factory=list)
    recalls: list[str] = field(default_factory=list)
    collections: list[str] = field(default_factory=list)


class System:
    """Runs the processes, places orders, and records logs and journal."""

    def __init__(self, url: str, database_url: str, var: Path, **given: object) -> None:
        """`given`: variables of the processes' environment."""
        self.url = url
        self.var = var
        self.env = environment(url, database_url, var, **given)
        self.settings = Settings(amqp_url=url, database_url=database_url, var=var)
        self.logs: list[Said] = []
        #: The journal, each event once.
        self.journal: dict[str, tuple[Envelope, Delivery]] = {}
        #: How many events each service has announced.
        self.announced: Counter[str] = Counter()
        #: How each flow ended; one that ended twice is wrong.
        self.ends: dict[str, list[str]] = defaultdict(list)
        #: Every order placed, by its flow.
        self.placed: dict[str, PlaceOrder] = {}
        self.ids = Ids(SystemClock(), random.Random())
        self._marks: set[str] = set()
        self._stack = AsyncExitStack()
        self._engines = {name: connect(self.settings.database_of(name)) for name in SERVICES}

    async def __aenter__(self) -> Self:
        """Start nothing but the outside world."""
        try:
            self.broker = await self._stack.enter_async_context(
                rabbitmq.connected(self.url, self.settings, "system", logs.logger("system"))
            )
            await self.broker.declare(topology.of(SERVICES.values()))
            recorder = asyncio.create_task(self._record())
            self._stack.push_async_callback(_cancelled, recorder)
            self.processes = await self._stack.enter_async_context(
                Supervisor(lambda name, line: self.logs.append(_said(name, line)))
            )
            for name in SANDBOXES:
                await self.processes.start(name, self.argv(f"sandboxes.{name}"), env=self.env)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        if error is not None:
            for said in self.logs[-SHOWN_LINES:]:
                print(f"{said.name:14}| {said.text}")

    # Processes.

    async def start(self, *names: str) -> None:
        """Start services, by default all, and wait until they consume.

        A name with a number behind it, like `inventory-2`, is another instance.
        """
        names = names or tuple(SERVICES)
        seen = len(self.logs)
        for name in names:
            module = f"services.{name.partition('-')[0]}"
            await self.processes.start(name, self.argv(module), env=self.env)
        await self.consuming(names, since=seen)
        await until(
            lambda: all((self.var / f"{one}.url").exists() for one in SANDBOXES), "the sandboxes"
        )

    async def consuming(self, names: Iterable[str], *, since: int) -> None:
        """Wait until these have said so in the log since a line of it."""
        expected = set(names)
        await until(
            lambda: expected <= {said.name for said in self.said("consuming", since)},
            f"{', '.join(expected)} consume", PATIENCE_S,
        )  # fmt: skip

    def kill(self, *names: str) -> None:
        """kill -9; the supervisor starts them again."""
        for name in names:
            self._signal(name, signal.SIGKILL)

    async def kill_for_good(self, name: str) -> None:
        """kill -9, and nobody starts it again."""
        self._signal(name, signal.SIGKILL)
        await self.processes.stop(name)

    async def stop(self, *names: str) -> None:
        """End services in good order, to start them later."""
        await asyncio.gather(*map(self.processes.stop, names))

    def terminate(self, *names: str) -> None:
        """Send SIGTERM; the supervisor starts them again once they have ended."""
        for name in names:
            self._signal(name, signal.SIGTERM)

    def _signal(self, name: str, number: signal.Signals) -> None:
        pid = self.processes.pid(name)
        assert pid is not None, f"{name} is down already"
        os.kill(pid, number)

    def argv(self, module: str) -> list[str]:
        """Runs a module as the processes of the system do."""
        return [sys.executable, "-m", module]

    def said(self, event: str, since: int = 0) -> list[Said]:
        """The lines of the log with this text."""
        return [said for said in self.logs[since:] if said.entry.get("event") == event]

    # Messages.

    async def place(self, *placed: PlaceOrder, times: int = 1) -> list[str]:
        """Publish orders, more than once where wanted; gives their flows."""
        outgoing = [first(one, self.ids, time.time(), "/system/test") for one in placed]
        flows = [one.envelope.id for one in outgoing]
        self.placed.update(zip(flows, placed, strict=True))
        for _ in range(times):
            await self.publish(*outgoing)
        return flows

    async def under_way(self, orders: list[PlaceOrder]) -> None:
        """Place so many orders that all services are still at it once each has begun."""
        least = {name: self.announced[name] + 10 for name in SERVICES}
        await self.place(*orders)
        await until(
            lambda: all(self.announced[one] >= many for one, many in least.items()),
            "every service has begun",
            PATIENCE_S,
        )
        assert len(self.ends) < len(self.placed), "all have ended already: place more of them"

    async def publish(self, *messages: Outgoing) -> None:
        """Publish any messages, in this order."""
        assert await self.broker.publish(messages) == {}

    def copies(self, *kinds: type[Message]) -> list[Outgoing]:
        """Events of the journal once more, with their own ids and headers."""
        types = {kind.__address__.wire_type for kind in kinds}
        return [
            Outgoing(delivery.exchange, delivery.routing_key, envelope, delivery.body)
            for envelope, delivery in self.journal.values()
            if not kinds or envelope.type in types
        ]

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

    async def _record(self) -> None:
        """Take in the journal, from its beginning again whenever the connection was lost."""
        while True:
            try:
                async with rabbitmq.journal(self.url, offset="first") as deliveries:
                    async for delivery in deliveries:
                        envelope = read(delivery, 0.0)
                        if envelope.type == _MARK:
                            self._marks.add(envelope.id)
                        elif envelope.id not in self.journal:
                            self.journal[envelope.id] = envelope, delivery
                            self.announced[envelope.service] += 1
                            if end := ENDS.get(envelope.type):
                                self.ends[envelope.flow].append(end)
            except (CannotRunError, aiormq.AMQPError, ConnectionError):
                await asyncio.sleep(0.1)

    # What came of it.

    def events(self, kind: type[Message] | None = None, *, source: str = "") -> list[Envelope]:
        """The envelopes of the journal, of a contract and of a service or handler."""
        wire_type = kind and kind.__address__.wire_type
        return [
            envelope
            for envelope, _ in self.journal.values()
            if wire_type in (None, envelope.type) and envelope.source.startswith(source)
        ]

    async def ended(self, within_s: float = ENDED_S) -> None:
        """Wait until every order came to an end, and then until nothing more can happen."""

        def open_orders() -> int:
            return len(self.placed.keys() - self.ends.keys())

        try:
            await until(lambda: not open_orders(), "every order ends", within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; {open_orders()} are open: {self.unrest()}") from None
        await self.settled(within_s)

    async def settled(self, within_s: float = ENDED_S) -> None:
        """Wait until every message is handled, and nothing is left to be sent or done later.

        Sound, without waiting for silence: what is confirmed stands in the journal before a mark
        that is published later, so once all that the journal holds is handled, every outbox is
        empty and the mark brings nothing new, there is nothing that could.
        """
        end = time.monotonic() + within_s
        while True:
            known = len(self.journal)
            unrest = self.unrest() or await self.queued()
            if not unrest:
                await self._mark()
                if len(self.journal) == known:
                    return
            if time.monotonic() > end:
                raise AssertionError(f"not settled within {within_s:g} s: {unrest}")
            await asyncio.sleep(0.05)

    def unrest(self) -> list[str]:
        """What is still to be done, in words."""
        found: list[str] = []
        for name, service in SERVICES.items():
            routes = {kind.__address__.wire_type: one for kind, one in service.routes().items()}
            with self._engines[name].begin() as db:
                inbox = TABLES["inbox"].c
                rows = db.execute(sa.select(inbox.message_id, inbox.handler, inbox.status)).all()
                left = {one: db.scalar(sa.select(sa.func.count()).select_from(TABLES[one]))
                        for one in ("outbox", "due")}  # fmt: skip
            done = {(message_id, key) for message_id, key, status in rows if status in _FINAL}
            heard = [(flow, PlaceOrder.__address__.wire_type) for flow in self.placed]
            heard += [(one.id, one.type) for one, _ in self.journal.values()]
            lacking = Counter(
                route.key
                for message_id, wire_type in heard
                for route in routes.get(wire_type, ())
                if (message_id, route.key) not in done
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
                for name in SERVICES
            }
        return [
            f"{one.message_count} in queue {name}" for name, one in found.items()
            if one.message_count
        ]  # fmt: skip

    async def _mark(self) -> None:
        identifier = self.ids.next()
        envelope = Envelope(identifier, _MARK, "/system/test", timestamp(time.time()), identifier)
        await self.publish(Outgoing(topology.CHOREO, _MARK, envelope, b"{}"))
        await until(lambda: identifier in self._marks, "a mark in the journal", PATIENCE_S)

    def rows(self, service: str, table: sa.Table | str) -> list[dict[str, Any]]:
        """A table of a service's database."""
        chosen = TABLES[table] if isinstance(table, str) else table
        with self._engines[service].begin() as db:
            return [dict(row) for row in db.execute(sa.select(chosen)).mappings()]

    def books(self) -> dict[str, Books]:
        """The ledgers of the gateway and of the carrier, by order."""
        found: dict[str, Books] = defaultdict(Books)
        for name in SANDBOXES:
            with closing(sqlite3.connect(self.var / f"{name}.db")) as db:
                effects = db.execute("SELECT kind, order_id, reference, amount FROM effects")
                for kind, order_id, reference, amount in effects:
                    entry = reference if amount is None else amount
                    getattr(found[order_id], f"{kind}s").append(entry)
        return found

    def mails(self) -> list[str]:
        """The Message-IDs of the mails that were sent."""
        files = (self.var / "mail").glob("*.eml")
        sent = (email.message_from_bytes(file.read_bytes())["Message-ID"] for file in files)
        return [one.removeprefix("<").removesuffix("@choreo>") for one in sent]


def an_order(
    number: object,
    *,
    sku: str = "TEA-1",
    quantity: int = 2,
    card: str = gateway.APPROVED,
    address: str = "1 High Street",
    member: bool = False,
    customer: str = "customer",
) -> PlaceOrder:
    """An order that would be fulfilled, but for what is said."""
    return PlaceOrder(
        order_id=f"order-{number}",
        customer=Customer(
            customer_id=customer, email=f"{customer}@example.org", address=address, member=member
        ),
        card=card,
        lines=(Line(sku=sku, quantity=quantity),),
    )


def mixed(count: int, *, prefix: str = "") -> list[PlaceOrder]:
    """Orders of every kind: all cards, addresses and articles, members and others."""
    cards = (gateway.APPROVED, gateway.APPROVED, gateway.DECLINED, gateway.APPROVED,
             gateway.FAILS_TWICE, gateway.LOSES_ANSWER, gateway.APPROVED)  # fmt: skip
    addresses = ("1 High Street", "2 High Street", carrier.UNDELIVERABLE, carrier.LOSES_ANSWER,
                 "3 High Street")  # fmt: skip
    skus = ("TEA-1", "MUG-1", "BOOK-1")
    return [
        an_order(
            f"{prefix}{number}",
            sku="RARE-1" if number % 20 == 0 else skus[number % 3],
            quantity=1 + number % 2,
            card=gateway.SLOW if number % 50 == 1 else cards[number % 7],
            address=carrier.SLOW if number % 50 == 4 else addresses[number % 5],
            member=number % 4 < 2,
            customer=f"customer-{number % 9}",
        )
        for number in range(count)
    ]


def environment(url: str, database_url: str, var: Path, **given: object) -> dict[str, str]:
    """What a service's process is told, as the tests want it; `given` on top of that."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CHOREO_")}
    return own | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
        "CHOREO_AMQP_URL": url,
        "CHOREO_DATABASE_URL": database_url,
        "CHOREO_VAR": str(var),
        "CHOREO_LOG_FORMAT": "json",
        "CHOREO_LEASE_S": "2",
        "CHOREO_RETRY_FIRST_S": "0.1",
        "CHOREO_RETRY_LONGEST_S": "1",
        "CHOREO_POLL_S": "0.2",
        "CHOREO_GRACE_S": "10",
        # Only an order that is to be late is late, however slow the machine.
        "ORDERS_DEADLINE_S": "3600",
        **{name: str(value) for name, value in given.items()},
    }


async def run(argv: list[str], env: dict[str, str]) -> tuple[int | None, str]:
    """Run a process to its end; gives its exit code and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *argv, env=env, cwd=ROOT, stdout=PIPE, stderr=STDOUT
    )
    try:
        written, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, written.decode()


SystemMaker = Callable[..., System]


@pytest.fixture(name="system")
def system_fixture(
    amqp_url: str, database_url: str, create_databases: Callable[..., None], tmp_path: Path
) -> SystemMaker:
    """Makes a system in a corner of its own: `async with system(CHOREO_BATCH=1) as running`."""
    create_databases(*SERVICES)
    return lambda **given: System(amqp_url, database_url, tmp_path, **given)


def _said(name: str, text: str) -> Said:
    try:
        entry = json.loads(text)
    except ValueError:
        entry = None
    return Said(name, text, entry if isinstance(entry, dict) else {})


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
