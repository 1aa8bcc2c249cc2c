"""Messages on their way in and out, frame by frame where many go at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import time
from typing import Any

import aiormq
from aiormq import Channel
from aiormq.abc import ChannelFrame, DeliveredMessage

from choreo.rabbitmq.frames import frames
from choreo.seams import Delivery, Origin, Outgoing

Confirm = asyncio.Future[Any]

_NATIVE = ("content_type", "content_encoding", "delivery_mode", "priority", "reply_to",
           "expiration", "timestamp", "user_id")  # fmt: skip


async def write(channel: Channel, messages: Sequence[Outgoing]) -> dict[str, Confirm]:
    """Write messages at once; gives for each the future of its confirm, by message id.

    `Channel.basic_publish` is one task, one lock and one system call a message: at full load
    that is a third of the process's time. This is the same for many.
    """
    now = time()
    size = channel.max_content_size
    payload = b"".join(
        [part for one in messages for part in frames(one, channel.number, size, now)]
    )
    ids = [one.envelope.id for one in messages]
    return dict(zip(ids, await put(channel, payload, ids), strict=True))


async def put(channel: Channel, payload: bytes, ids: Sequence[str | None]) -> list[Confirm]:
    """Write the frames of messages with these ids; gives for each the future of its confirm."""
    confirms: list[Confirm] = []
    async with channel.lock:
        await channel.write_queue.put(ChannelFrame(payload, should_close=False))
        # Counted only now that nothing can fail any more: the broker counts what reaches it.
        for identifier in ids:
            channel.delivery_tag += 1
            confirm: Confirm = channel.create_future()
            channel.confirmations[channel.delivery_tag] = confirm
            if identifier is not None:
                channel.message_id_delivery_tag[identifier] = channel.delivery_tag
            confirms.append(confirm)
    return confirms


async def confirmed(channel: Channel, confirms: Mapping[str, Confirm]) -> None:
    """Wait until the broker has taken or refused each."""
    await asyncio.wait(confirms.values())
    for identifier in confirms:
        channel.message_id_delivery_tag.pop(identifier, None)


def refusals(
    messages: Sequence[Outgoing], confirms: Mapping[str, Confirm], reason: str
) -> dict[str, str]:
    """Why each message that the broker did not take was not taken; `reason`: it said nothing."""
    found = {}
    for message in messages:
        confirm = confirms.get(message.envelope.id)
        if confirm is None or not confirm.done():
            found[message.envelope.id] = reason
        elif confirm.cancelled() or confirm.exception() is not None:
            found[message.envelope.id] = _refusal(message, confirm)
    return found


def _refusal(message: Outgoing, confirm: Confirm) -> str:
    error = None if confirm.cancelled() else confirm.exception()
    if isinstance(error, aiormq.exceptions.PublishError):
        return f"no queue hears {message.routing_key} on {message.exchange}: is its service there?"
    return "the connection was lost" if error is None else str(error) or type(error).__name__


def delivery_of(message: DeliveredMessage, origin: Origin | None = None) -> Delivery:
    """What arrived; `origin` is what tells later where it may be acked."""
    frame: Any = message.delivery
    properties = message.header.properties
    return Delivery(
        body=message.body,
        message_id=properties.message_id,
        wire_type=properties.message_type,
        correlation_id=properties.correlation_id,
        app_id=properties.app_id,
        headers=properties.headers or {},
        properties={
            name: value for name in _NATIVE if (value := getattr(properties, name)) is not None
        },
        exchange=frame.exchange,
        routing_key=frame.routing_key,
        redelivered=bool(frame.redelivered),
        tag=frame.delivery_tag,
        channel=origin,
    )
