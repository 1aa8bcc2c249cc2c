"""Looks at a broker by AMQP alone, and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import aio_pika
import aiormq
from aiormq.abc import AbstractChannel
from yarl import URL

from choreo.errors import CannotRunError
from choreo.rabbitmq.declare import QUEUE_ARGUMENTS, journal_arguments
from choreo.rabbitmq.link import CONNECT_TIMEOUT_S, explain, first_of
from choreo.settings import Settings
from choreo.topology import JOURNAL, Topology

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class QueueSeen:
    """A queue that is there."""

    waiting: int
    consumers: int
    #: What the broker says of it if it has another type or other arguments than it should.
    other_form: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A broker as AMQP shows it."""

    version: str
    cluster: str
    #: What is not there is missing here.
    queues: Mapping[str, QueueSeen]
    #: What the broker says of an exchange that is missing or has another form; None if it is well.
    exchanges: Mapping[str, str | None]


async def survey(
    url: str, settings: Settings, wanted: Topology, also: Collection[str] = ()
) -> Seen:
    """Look at what is wanted, and whether other queues are there.

    Raises CannotRunError if the broker does not answer.
    """
    try:
        return await first_of(url, lambda one: _connect(one, settings, wanted, also))
    except ValueError as error:
        raise CannotRunError(explain(error, url)) from error


async def _connect(url: URL, settings: Settings, wanted: Topology, also: Collection[str]) -> Seen:
    async with asyncio.timeout(CONNECT_TIMEOUT_S), aio_pika.Connection(url) as connection:
        await connection.connect()
        return await _look(connection, settings, wanted, also)


async def _look(
    connection: aio_pika.abc.AbstractConnection,
    settings: Settings,
    wanted: Topology,
    also: Collection[str],
) -> Seen:
    forms: dict[str, Any] = {JOURNAL: journal_arguments(settings)}
    forms |= dict.fromkeys(wanted.queues, QUEUE_ARGUMENTS)
    queues = {
        name: seen
        for name in dict.fromkeys((*forms, *also))
        if (seen := await _queue(connection, name, forms.get(name))) is not None
    }
    exchanges = {
        name: await _exchange(connection, name)
        for name in (*wanted.event_exchanges, *wanted.command_exchanges)
    }
    said = await _ask(connection, _properties)
    return Seen(str(said.get("version", "")), str(said.get("cluster_name", "")), queues, exchanges)


async def _queue(
    connection: aio_pika.abc.AbstractConnection, name: str, arguments: Any
) -> QueueSeen | None:
    try:
        found = await _ask(connection, lambda channel: channel.queue_declare(name, passive=True))
    except aiormq.exceptions.ChannelNotFoundEntity:
        return None
    other_form = None
    if arguments is not None:
        # Declared as it should be, a queue that is there stays as it is, or the broker objects.
        other_form = await _objection(
            connection,
            lambda channel: channel.queue_declare(name, durable=True, arguments=arguments),
        )
    return QueueSeen(found.message_count or 0, found.consumer_count or 0, other_form)


async def _exchange(connection: aio_pika.abc.AbstractConnection, name: str) -> str | None:
    missing = await _objection(
        connection, lambda channel: channel.exchange_declare(name, passive=True)
    )
    return missing or await _objection(
        connection,
        lambda channel: channel.exchange_declare(name, exchange_type="topic", durable=True),
    )


async def _objection(
    connection: aio_pika.abc.AbstractConnection, what: Callable[[AbstractChannel], Awaitable[Any]]
) -> str | None:
    """What the broker says against it, if anything."""
    try:
        await _ask(connection, what)
    except aiormq.exceptions.ChannelClosed as error:
        return str(error.args[-1] if error.args else error)
    return None


async def _ask(
    connection: aio_pika.abc.AbstractConnection, what: Callable[[AbstractChannel], Awaitable[T]]
) -> T:
    """Ask on a channel of its own: what the broker objects to closes it."""
    opened = await connection.channel()
    channel = await opened.get_underlay_channel()
    try:
        return await what(channel)
    finally:
        if not channel.is_closed:
            await opened.close()


async def _properties(channel: AbstractChannel) -> Mapping[str, Any]:
    found: Mapping[str, Any] = getattr(channel.connection, "server_properties", {})
    return found
