"""The client library bare: a task per message, no database."""

from __future__ import annotations

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from benchmark import hop

PREFETCH = 100


async def run(job: hop.Job, watch: hop.Stopwatch) -> None:
    """Consume, publish with confirm, ack."""
    async with await aio_pika.connect_robust(job.amqp_url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        exchange = await channel.get_exchange(hop.NAME)
        queue = await channel.get_queue(hop.NAME)

        async def reserve(message: AbstractIncomingMessage) -> None:
            order = hop.Placed.model_validate_json(message.body)
            body = hop.Reserved(order_id=order.order_id).model_dump_json().encode()
            await exchange.publish(
                aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT),
                hop.RESERVED,
            )
            await message.ack()
            watch.count()

        watch.start()
        await queue.consume(reserve)
        await watch.done.wait()


if __name__ == "__main__":
    hop.measure(run)
