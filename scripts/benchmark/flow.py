"""How long a whole order takes in an unloaded system, beside what the broker alone would take."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage, AbstractQueue

from benchmark import hop
from benchmark.stage import QUORUM
from choreo import discovery, topology
from choreo.errors import CannotRunError
from choreo.identity import Ids
from choreo.log import logger
from choreo.outgoing import first
from choreo.rabbitmq import RabbitMQ, connected
from choreo.seams import SystemClock
from choreo.settings import load
from choreo.supervisor import Supervisor
from choreo.topology import JOURNAL
from contracts.customers import Customer
from contracts.orders import Line, OrderFulfilled, PlaceOrder

#: All that has a part in an order: what else there is would take time from it.
SERVICES = ("orders", "inventory", "payments", "shipping", "rewards", "notifications")
SANDBOXES = ("gateway", "carrier")
#: The messages that follow from each other: PlaceOrder, OrderPlaced, StockReserved,
#: PaymentCaptured, ShipmentBooked, OrderFulfilled.
HOPS = 6
START_S, LONGEST_S = 120.0, 30.0
#: Between two orders, so that each finds the system at rest.
PAUSE_S = 0.1
WARM_UP = 20
#: Settings of these would lead the services to a person's own databases, mail server or gateway.
FOREIGN = ("CHOREO_", "ORDERS_", "PAYMENTS_", "SHIPPING_")
CUSTOMER = Customer(
    customer_id="ann", email="ann@example.com", address="1 Main Street", member=True
)
_QUEUE = f"{hop.NAME}.latency"


@dataclass(frozen=True)
class Times:
    """What was measured, in seconds."""

    #: From publishing PlaceOrder until OrderFulfilled is delivered, for each order.
    orders: Sequence[float]
    #: From publishing a message until it is delivered and acked, for each.
    raw_hops: Sequence[float]


async def measure(amqp_url: str, folder: Path, orders: int, say: Callable[[str], None]) -> Times:
    """Place orders one after the other in a system of its own, and time them.

    Raises CannotRunError if the broker has queues of the services already.
    """
    settings = load(var=folder)
    wanted = topology.of(discovery.service(settings, name) for name in SERVICES)
    async with await aio_pika.connect(amqp_url) as connection:
        await _refuse_if_used(connection, (JOURNAL, *wanted.queues))
        channel = await connection.channel()
        try:
            say("starting the sandboxes and the services")
            async with _system(amqp_url, folder):
                queue = await channel.declare_queue(_QUEUE, durable=True, arguments=dict(QUORUM))
                address = OrderFulfilled.__address__
                await queue.bind(address.exchange, address.wire_type)
                arrivals = Arrivals()
                await queue.consume(arrivals.take)
                say(f"{orders} raw hops, then {orders} orders, one after the other")
                raw_hops = await _raw_hops(queue, arrivals, orders)
                return Times(await _orders(amqp_url, arrivals, folder, orders), raw_hops)
        finally:
            for name in (_QUEUE, JOURNAL, *wanted.queues):
                await channel.queue_delete(name)
            for name in (*wanted.event_exchanges, *wanted.command_exchanges):
                await channel.exchange_delete(name)


class Arrivals:
    """Times how long it takes until what was published is delivered."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[float] = asyncio.Queue()

    async def take(self, message: AbstractIncomingMessage) -> None:
        """Take a delivery."""
        await message.ack()
        self._arrived.put_nowait(time.perf_counter())

    async def after(self, publishing: Coroutine[Any, Any, None]) -> float:
        """Publish, and wait for the delivery that follows from it."""
        began = time.perf_counter()
        published = asyncio.create_task(publishing)
        try:
            async with asyncio.timeout(LONGEST_S):
                arrived = await self._arrived.get()
                await published
        except TimeoutError:
            raise CannotRunError(
                f"an order was not fulfilled within {LONGEST_S:g} s: is the machine too busy?"
            ) from None
        return arrived - began


async def _raw_hops(queue: AbstractQueue, arrivals: Arrivals, count: int) -> list[float]:
    """Publish to the queue itself."""
    exchange = queue.channel.default_exchange

    async def publish() -> None:
        message = aio_pika.Message(b"{}", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await exchange.publish(message, queue.name)

    times = [await arrivals.after(publish()) for _ in range(WARM_UP + count)]
    return times[WARM_UP:]


async def _orders(amqp_url: str, arrivals: Arrivals, folder: Path, count: int) -> list[float]:
    """Place orders that end well."""
    ids = Ids(SystemClock(), random.SystemRandom())

    async def place(broker: RabbitMQ) -> None:
        order = PlaceOrder(
            order_id=ids.next(),
            customer=CUSTOMER,
            card="4242-4242",
            lines=(Line(sku="TEA-1", quantity=1),),
        )
        await broker.publish([first(order, ids, time.time(), f"/{hop.NAME}")])

    times: list[float] = []
    async with connected(amqp_url, load(var=folder), hop.NAME, logger(hop.NAME)) as broker:
        for _ in range(WARM_UP + count):
            times.append(await arrivals.after(place(broker)))
            await asyncio.sleep(PAUSE_S)
    return times[WARM_UP:]


@asynccontextmanager
async def _system(amqp_url: str, folder: Path) -> AsyncGenerator[None]:
    """Run what an order needs, each as a process of its own, while the block lasts."""
    starting = set(SERVICES)
    ready = asyncio.Event()
    said: list[str] = []

    def hear(name: str, line: str) -> None:
        said.append(f"{name} | {line}")
        if '"event": "consuming"' in line:
            starting.discard(name)
        if not starting:
            ready.set()

    env = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    env |= {"CHOREO_AMQP_URL": amqp_url, "CHOREO_VAR": str(folder), "CHOREO_LOG_FORMAT": "json"}
    env["CHOREO_CONTRACTS"] = "services"  # the agreement names subscribers that do not run here
    async with (
        Supervisor(hear, grace_s=60) as sandboxes,
        Supervisor(hear, grace_s=60) as services,
    ):
        for name in SANDBOXES:
            await sandboxes.start(name, [sys.executable, "-m", f"sandboxes.{name}"], env=env)
        for name in SERVICES:
            await services.start(name, [sys.executable, "-m", "choreo", "run", name], env=env)
        try:
            await asyncio.wait_for(ready.wait(), START_S)
        except TimeoutError:
            last = "\n".join(said[-10:])
            raise CannotRunError(f"the services did not start; they said:\n{last}") from None
        yield


async def _refuse_if_used(connection: AbstractConnection, queues: Sequence[str]) -> None:
    """Other instances of the services would take the orders away; raises CannotRunError."""
    for name in queues:
        channel = await connection.channel()  # the broker closes it when there is no such queue
        with suppress(aio_pika.exceptions.ChannelNotFoundEntity):
            await channel.declare_queue(name, passive=True)
            raise CannotRunError(
                f"the broker of CHOREO_AMQP_URL has a queue {name!r} already: name an unused "
                "virtual host, or unset it for a private broker"
            )
