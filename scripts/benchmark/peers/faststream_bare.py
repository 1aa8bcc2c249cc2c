"""FastStream as its documentation shows it, no database."""

from __future__ import annotations

from typing import Any

import aio_pika
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue

from benchmark import hop

PREFETCH = 100
QUEUE = RabbitQueue(hop.NAME, durable=True, declare=False)
EXCHANGE = RabbitExchange(hop.NAME, type=ExchangeType.TOPIC, durable=True, declare=False)


async def run(job: hop.Job, watch: hop.Stopwatch) -> None:
    """Consume, publish with confirm, ack."""
    broker = RabbitBroker(
        job.amqp_url, default_channel=Channel(prefetch_count=PREFETCH), logger=None
    )

    @broker.subscriber(QUEUE)
    @broker.publisher(exchange=EXCHANGE, routing_key=hop.RESERVED, persist=True)
    async def reserve(order: hop.Placed) -> hop.Reserved:
        return hop.Reserved(order_id=order.order_id)

    count_acks(watch)
    await broker.connect()
    watch.start()
    await broker.start()
    await watch.done.wait()
    await broker.stop()


def count_acks(watch: hop.Stopwatch) -> None:
    """Count a message when it is acked, which FastStream does last."""
    ack = aio_pika.IncomingMessage.ack

    async def counted(message: aio_pika.IncomingMessage, **given: Any) -> None:
        await ack(message, **given)
        watch.count()

    aio_pika.IncomingMessage.ack = counted  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    hop.measure(run)
