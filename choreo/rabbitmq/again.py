"""Publishes what was delivered once more, as it came, to one queue alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pamqp.frame
from aiormq import Channel
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from choreo.rabbitmq.messages import put
from choreo.seams import Delivery

#: Headers with which the broker would send it to other queues, too.
_COPIES = ("CC", "BCC")


async def write_again(
    channel: Channel, queue: str, deliveries: Sequence[Delivery]
) -> list[Delivery]:
    """Publish deliveries as they came, and wait until the broker has them all.

    Gives those that cannot be: a stranger may have sent what AMQP does not allow. Not by
    `Channel.basic_publish`: that gives a message an id that had none.
    """
    written, ids, unfit = [], [], []
    for one in deliveries:
        try:
            every = frames(queue, one, channel.max_content_size)
            written.append(b"".join([pamqp.frame.marshal(each, channel.number) for each in every]))
        except (ValueError, TypeError):
            unfit.append(one)
        else:
            ids.append(one.message_id)
    try:
        await asyncio.gather(*await put(channel, b"".join(written), ids))
    finally:
        for identifier in filter(None, ids):
            channel.message_id_delivery_tag.pop(identifier, None)
    return unfit


def frames(queue: str, delivery: Delivery, largest: int) -> Iterator[Any]:
    """A delivery for one queue alone; its body goes in pieces."""
    headers = {name: value for name, value in delivery.headers.items() if name not in _COPIES}
    # The broker takes a user's name from that user alone.
    native = {name: value for name, value in delivery.properties.items() if name != "user_id"}
    properties = Basic.Properties(
        headers=headers or None,
        message_id=delivery.message_id,
        message_type=delivery.wire_type,
        correlation_id=delivery.correlation_id,
        app_id=delivery.app_id,
        **native,
    )
    yield Basic.Publish(exchange="", routing_key=queue, mandatory=True)
    yield ContentHeader(body_size=len(delivery.body), properties=properties)
    for at in range(0, len(delivery.body), largest):
        yield ContentBody(delivery.body[at : at + largest])
