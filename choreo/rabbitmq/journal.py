"""Reads the journal: every event of the last days, in order of arrival."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
import aiormq
from aiormq.abc import DeliveredMessage

from choreo.errors import CannotRunError
from choreo.rabbitmq.link import CONNECT_TIMEOUT_S, address, explain
from choreo.rabbitmq.messages import delivery_of
from choreo.seams import Delivery
from choreo.topology import JOURNAL


@asynccontextmanager
async def journal(
    url: str, *, offset: str = "next"
) -> AsyncGenerator[AsyncIterator[Delivery], None]:
    """Read the journal as it grows; `offset`: "next" for what comes, "first" for all it keeps.

    Attached when the block is entered, so nothing that is published inside it is missed. The
    iterator ends when the connection is lost. Raises CannotRunError if there is no broker or
    no journal yet.
    """
    arrived: asyncio.Queue[Delivery | None] = asyncio.Queue()
    try:
        connection = aio_pika.Connection(address(url))
    except ValueError as error:
        raise CannotRunError(explain(error, url)) from error
    async with connection:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection.connect()
        except Exception as error:
            raise CannotRunError(explain(error, url)) from error
        opened = await connection.channel()
        channel = await opened.get_underlay_channel()

        async def on_message(message: DeliveredMessage) -> None:
            delivery = delivery_of(message)
            arrived.put_nowait(delivery)
            await channel.basic_ack(delivery.tag)

        channel.closing.add_done_callback(lambda _: arrived.put_nowait(None))
        await channel.basic_qos(prefetch_count=500)
        try:
            await channel.basic_consume(JOURNAL, on_message, arguments={"x-stream-offset": offset})
        except aiormq.exceptions.ChannelNotFoundEntity as error:
            raise CannotRunError(
                "the broker has no journal yet: run 'choreo declare', or start a service"
            ) from error

        async def read() -> AsyncGenerator[Delivery, None]:
            while (delivery := await arrived.get()) is not None:
                yield delivery

        yield read()
