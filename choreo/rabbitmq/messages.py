"""Messages on their way in and out, frame by frame where many go at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import aiormq
from aiormq import Channel
from aiormq.abc import ChannelFrame, DeliveredMessage
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from choreo.seams import Delivery, Outgoing

Confirm = asyncio.Future[Any]

_NATIVE = ("content_type", "content_encoding", "delivery_mode", "priority", "reply_to",
           "expiration", "timestamp", "user_id")  # fmt: skip


async def write(channel: Channel, messages: Sequence[Outgoing]) -> dict[str, Confirm]:
    """Write messages at once; gives for each the future of its confirm, by message id.

    `Channel.basic_publish` is one task, one lock and one system call a message: at full load
    that is a third of the process's time. This is the same for many.
    """
    confirms: dict[str, Confirm] = {}
    now = datetime.now(UTC)
    async with channel.lock:
        frames: list[Any] = []
        for message in messages:
            properties = _properties(message, now)
            channel.delivery_tag += 1
            confirm: Confirm = channel.create_future()
            channel.confirmations[channel.delivery_tag] = confirm
            channel.message_id_delivery_tag[message.envelope.id] = channel.delivery_tag
            confirms[message.envelope.id] = confirm
            frames.append(
                Basic.Publish(
                    exchange=message.exchange,
                    routing_key=message.routing_key,
                    mandatory=message.mandatory,
                )
            )
            frames.append(ContentHeader(body_size=len(message.body), properties=properties))
            size = channel.max_content_size
            frames.extend(
                ContentBody(message.body[at : at + size])
                for at in range(0, len(message.body), size)
            )
        await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames))

    def forget(identifier: str, _: Confirm) -> None:
        channel.message_id_delivery_tag.pop(identifier, None)

    for identifier, confirm in confirms.items():
        confirm.add_done_callback(partial(forget, identifier))
    return confirms


def _properties(message: Outgoing, now: datetime) -> Basic.Properties:
    envelope = message.envelope
    return Basic.Properties(
        content_type="application/json",
        delivery_mode=2,
        message_id=envelope.id,
        correlation_id=envelope.flow,
        message_type=envelope.type,
        app_id=envelope.service,
        timestamp=now,
        headers=dict(envelope.headers()),
    )


def is_refused(confirm: Confirm) -> bool:
    """Whether the broker did not take the message."""
    return confirm.cancelled() or confirm.exception() is not None


def refusal(message: Outgoing, confirm: Confirm) -> str:
    """Why the broker did not take the message."""
    error = None if confirm.cancelled() else confirm.exception()
    if isinstance(error, aiormq.exceptions.PublishError):
        return f"no queue hears {message.routing_key} on {message.exchange}: is its service there?"
    return "the connection was lost" if error is None else str(error) or type(error).__name__


def delivery_of(message: DeliveredMessage, origin: object = None) -> Delivery:
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
