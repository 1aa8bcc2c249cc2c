"""One connection with one channel, opened again whenever it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection
from aiormq import Channel
from structlog.typing import FilteringBoundLogger
from yarl import URL

from choreo.errors import CannotRunError
from choreo.settings import Settings

CONNECT_TIMEOUT_S = 10
RECONNECT_FIRST_S, RECONNECT_LONGEST_S = 0.1, 5.0


class Link:
    """One connection with one channel, opened again whenever it is lost."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        name: str,
        log: FilteringBoundLogger,
        prepare: Callable[[Channel], Awaitable[None]],
    ) -> None:
        self._url = url
        self._settings = settings
        self._name = name
        self._log = log.bind(connection=name)
        self._prepare = prepare
        self._channel: Channel | None = None
        self._connection: AbstractConnection | None = None
        #: Told True when the channel is ready, and False when it is lost.
        self.on_change: Callable[[bool], None] = lambda _: None
        self._opened = asyncio.Event()
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open it for the first time; raises CannotRunError if that fails."""
        try:
            await self._open()
        except Exception as error:
            await self._drop()
            raise CannotRunError(explain(error, self._url)) from error
        self._task = asyncio.create_task(self._keep())

    @property
    def is_open(self) -> bool:
        """Whether the channel is ready right now."""
        return self._opened.is_set()

    async def channel(self) -> Channel:
        """The channel, once it is open and the broker does not block it."""
        while True:
            await self._opened.wait()
            channel, connection = self._channel, self._connection
            if channel is not None and connection is not None and connection.transport is not None:
                await connection.transport.connection.ready()
                return channel

    def reset(self) -> None:
        """Give the channel up and open another."""
        self._lost.set()

    async def close(self) -> None:
        """Close it for good."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._drop()

    async def _open(self) -> None:
        self._lost.clear()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            url = URL(self._url)
            if url.scheme not in ("amqp", "amqps"):
                raise ValueError(f"a URL of {url.scheme!r}")  # the client takes any
            # Not `aio_pika.connect`: a connection that comes to nothing must be closed, too.
            self._connection = aio_pika.Connection(
                url.update_query(heartbeat=self._settings.heartbeat_s),
                client_properties={"connection_name": self._name},
            )
            await self._connection.connect()
            channel = await self._connection.channel(on_return_raises=True)
            underlay = await channel.get_underlay_channel()
            if not isinstance(underlay, Channel):
                raise TypeError(f"{underlay!r} is no aiormq channel")
            self._channel = underlay
            # aio-pika holds its channels weakly: keep it beside what lies under it.
            self._kept = channel
            self._channel.closing.add_done_callback(lambda _: self._give_up(underlay))
            self._channel.on_consumer_cancel_callbacks.add(lambda _: self._give_up(underlay))
            await self._prepare(self._channel)
        self._opened.set()
        self.on_change(True)

    def _give_up(self, channel: Channel) -> None:
        # One that is closed late, after its successor was opened, is no loss.
        if channel is self._channel:
            self._lost.set()

    async def _keep(self) -> None:
        wait_s = RECONNECT_FIRST_S
        while True:
            await self._lost.wait()
            self._log.warning("connection lost, opening it again")
            await self._drop()
            while not self._opened.is_set():
                try:
                    await self._open()
                except Exception as error:  # noqa: BLE001 - whatever it is, there is only trying again
                    await self._drop()
                    reason = explain(error, self._url)
                    self._log.error("cannot connect, trying again", error=reason, after_s=wait_s)
                    await asyncio.sleep(wait_s)
                    wait_s = min(wait_s * 2, RECONNECT_LONGEST_S)
            wait_s = RECONNECT_FIRST_S
            self._log.info("connected again")

    async def _drop(self) -> None:
        self._opened.clear()
        self.on_change(False)
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            try:
                async with asyncio.timeout(2):
                    await connection.close()
            except Exception as error:  # noqa: BLE001 - it is being given up whatever it says
                self._log.debug("while closing", error=repr(error))


def explain(error: BaseException, url: str) -> str:
    """What RabbitMQ, or the way to it, says, in one line with what to do."""
    try:
        parsed = URL(url)
        shown = str(parsed.with_password(None) if parsed.password else parsed)
    except ValueError:
        shown = "CHOREO_AMQP_URL"
    text = str(error).strip() or type(error).__name__
    match error:
        case (
            aiormq.exceptions.AuthenticationError()
            | aiormq.exceptions.ProbableAuthenticationError()
        ):
            text = "refuses the login: check user and password in CHOREO_AMQP_URL"
        case aiormq.exceptions.InvalidFrameError() if "Connection.OpenOk" in text:
            text = (
                "does not open that virtual host to this user: create it and grant it, or "
                "correct CHOREO_AMQP_URL"
            )
        case aiormq.exceptions.ChannelPreconditionFailed():
            text += (
                "; it is there in another form: delete it (what is in it is lost), or use "
                "another virtual host"
            )
        case TimeoutError():
            text = f"does not answer within {CONNECT_TIMEOUT_S} s"
        case OSError() | aiormq.AMQPConnectionError():
            return f"no RabbitMQ at {shown} ({text}): start it, or correct CHOREO_AMQP_URL"
        case ValueError() | KeyError():
            return f"CHOREO_AMQP_URL {shown!r} is no AMQP URL (amqp://user:password@host:5672/)"
    return f"RabbitMQ at {shown} {text}"
