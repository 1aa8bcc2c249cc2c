"""`choreo declare`: create every exchange, queue and binding."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from rich.table import Table

from choreo import discovery, topology
from choreo.cli import frame
from choreo.rabbitmq import RabbitMQ
from choreo.service import Service
from choreo.settings import Settings
from choreo.topology import JOURNAL, Topology


def declare() -> None:
    """Create every exchange, queue and binding that the services need, the journal first.

    What is there already stays as it is, so it can be run at any time, and before the services:
    then no event is lost because its reader was not there yet.
    """
    settings = frame.prepare()
    made = asyncio.run(_declare(settings, discovery.services(settings)))
    _show(made)


async def create(broker: RabbitMQ, services: Iterable[Service]) -> Topology:
    """Declare what these services need; raises CannotRunError if something is in the way."""
    wanted = topology.of(services)
    await broker.declare(wanted)
    return wanted


async def _declare(settings: Settings, services: Iterable[Service]) -> Topology:
    async with frame.broker(settings) as broker:
        return await create(broker, services)


def _show(made: Topology) -> None:
    table = Table("exchange", "kept in the journal", title="Exchanges", title_justify="left")
    for exchange in made.event_exchanges:
        table.add_row(exchange, "yes")
    for exchange in made.command_exchanges:
        table.add_row(exchange, "no: commands, for their owner alone")
    console = frame.console()
    console.print(table)
    table = Table("queue", "kind", "hears", title="Queues", title_justify="left")
    table.add_row(JOURNAL, "stream", "every event")
    for queue in made.queues:
        keys = [one.routing_key for one in made.bindings if one.queue == queue]
        table.add_row(queue, "quorum", ", ".join(sorted(keys)))
    console.print(table)
