"""Declares exchanges, queues, bindings and the journal."""

from __future__ import annotations

from aiormq import Channel
from pamqp.common import FieldValue

from choreo.settings import Settings
from choreo.topology import JOURNAL, Topology

#: A broker's own limit would also drop innocent messages that were merely prefetched when a
#: connection was lost; attempts are counted in the database.
DELIVERY_LIMIT = 1_000_000_000
QUEUE_ARGUMENTS: dict[str, FieldValue] = {
    "x-queue-type": "quorum",
    "x-delivery-limit": DELIVERY_LIMIT,
}


def journal_arguments(settings: Settings) -> dict[str, FieldValue]:
    """What makes the journal a stream that keeps as much as is set."""
    return {
        "x-queue-type": "stream",
        "x-max-age": settings.journal_max_age,
        "x-max-length-bytes": settings.journal_max_bytes,
    }


async def declare(channel: Channel, topology: Topology, settings: Settings) -> None:
    """Declare what is missing; raises what RabbitMQ says if something is there in another form."""
    await channel.queue_declare(JOURNAL, durable=True, arguments=journal_arguments(settings))
    for exchange in topology.event_exchanges:
        await channel.exchange_declare(exchange, exchange_type="topic", durable=True)
        await channel.queue_bind(JOURNAL, exchange, "#")
    for exchange in topology.command_exchanges:
        await channel.exchange_declare(exchange, exchange_type="topic", durable=True)
    for queue in topology.queues:
        await channel.queue_declare(queue, durable=True, arguments=QUEUE_ARGUMENTS)
    for binding in topology.bindings:
        await channel.queue_bind(binding.queue, binding.exchange, binding.routing_key)
