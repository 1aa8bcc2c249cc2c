"""One connection with one channel, opened again whenever it is lost."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection
from aiormq import Channel
from structlog.typing import FilteringBoundLogger
from yarl import URL

from choreo.errors import CannotRunError
from choreo.settings import Settings

CONNECT_TIMEOUT_S = 10
CLOSE_TIMEOUT_S = 2
RECONNECT_FIRST_S, RECONNECT_LONGEST_S = 0.1, 5.0
#: A connection that lasted so long is no sign of a trouble that goes on.
STEADY_S = 5.0
#: What stands between the URLs of a cluster's nodes; a comma in a password does not.
_BETWEEN_URLS = re.compile(r"\s*,\s*(?=\w+://)")
#: What a node may answer, or the way to it; the client raises RuntimeError for a lost channel.
_REFUSALS = (aiormq.AMQPError, OSError, EOFError, TimeoutError, RuntimeError, CannotRunError)
SILENT = "the broker has fallen silent: not even a heartbeat came"
CANCELLED = (
    "the broker cancelled the consumer: its queue was deleted or moved, or a message was held for "
    "longer than the broker's consumer_timeout"
)
T = TypeVar("T")


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
        self._why = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open it for the first time; raises CannotRunError if that fails."""
        try:
            await self._open()
        except Exception as error:
            await self._drop()
            raise CannotRunError(explain(error, self._url)) from error
        self._task = asyncio.create_task(self._keep())

    async def channel(self) -> Channel:
        """The channel, once it is open and the broker does not block it."""
        while True:
            await self._opened.wait()
            channel = self._channel
            if channel is not None:
                await channel.connection.ready()
                if channel is self._channel:
                    return channel

    @asynccontextmanager
    async def channel_apart(self) -> AsyncGenerator[Channel, None]:
        """Another channel on the same connection: what closes it closes nothing else."""
        connection = (await self.channel()).connection
        if connection.is_closed:  # the client would raise no more than a RuntimeError
            raise ConnectionError("the connection was lost")
        channel = _known(await connection.channel())
        try:
            yield channel
        finally:
            await channel.close(timeout=CLOSE_TIMEOUT_S)

    def reset(self, channel: Channel, why: str = "given up") -> None:
        """Give the channel up and open another, unless that has happened already."""
        if channel is self._channel and not self._lost.is_set():
            # Whoever finds it closed knows less than what closed it said.
            self._why = _said(channel.closing) if channel.is_closed else why
            self._opened.clear()
            self._lost.set()

    def suspect(self, channel: Channel, why: str) -> None:
        """Give the connection of a channel up, also of one apart: another node may do better."""
        if self._channel is not None and channel.connection is self._channel.connection:
            self.reset(self._channel, why)

    async def close(self) -> None:
        """Close it for good."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._drop()

    async def _open(self) -> None:
        await first_of(self._url, self._connect)
        self._opened.set()
        self.tell(True)

    async def _connect(self, url: URL) -> None:
        if self._connection is not None:
            await self._drop()  # what is left of another node
        self._lost.clear()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            # Not `aio_pika.connect`: a connection that comes to nothing must be closed, too.
            self._connection = aio_pika.Connection(
                url.update_query(heartbeat=self._settings.heartbeat_s),
                client_properties={"connection_name": self._name},
            )
            await self._connection.connect()
            # aio-pika holds its channels weakly: keep it beside what lies under it.
            self._kept = await self._connection.channel(on_return_raises=True)
            channel = self._channel = _known(await self._kept.get_underlay_channel())
            channel.closing.add_done_callback(lambda closed: self.reset(channel, _said(closed)))
            channel.on_consumer_cancel_callbacks.add(lambda _: self.reset(channel, CANCELLED))
            await self._prepare(channel)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        wait_s = RECONNECT_FIRST_S
        while True:
            opened_at = loop.time()
            await self._lost.wait()
            self._log.warning("connection lost, opening it again", reason=self._why)
            await self._drop()
            if loop.time() - opened_at >= STEADY_S:
                wait_s = RECONNECT_FIRST_S
            while not self._opened.is_set():
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RECONNECT_LONGEST_S)
                try:
                    await self._open()
                except Exception as error:  # noqa: BLE001 - whatever it is, there is only trying again
                    await self._drop()
                    reason = explain(error, self._url)
                    self._log.error("cannot connect, trying again", error=reason, after_s=wait_s)
            self._log.info("connected again")

    async def _drop(self) -> None:
        self._opened.clear()
        self.tell(False)
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            # In a task of its own: whatever comes of it, the connection is given up.
            closing = asyncio.create_task(self._close(connection))
            _, late = await asyncio.wait((closing,), timeout=CLOSE_TIMEOUT_S)
            if late:
                closing.cancel()
                await asyncio.wait(late, timeout=CLOSE_TIMEOUT_S)

    async def _close(self, connection: AbstractConnection) -> None:
        try:
            await connection.close()
        except Exception as error:  # noqa: BLE001 - it is being given up whatever it says
            self._log.debug("while closing", error=repr(error))
        finally:
            if not connection.is_closed:
                # It would try again when it is collected, perhaps when no loop runs any more.
                connection.transport = None
                await connection.close()

    def tell(self, ready: bool) -> None:
        """Say whether it is ready; that nobody can be told is no reason not to be."""
        try:
            self.on_change(ready)
        except Exception as error:  # noqa: BLE001 - the listener's affair, whatever it is
            self._log.error("cannot show whether it is ready", ready=ready, error=repr(error))


def is_cancelled() -> bool:
    """Whether it is the running task that was cancelled, and not one that it waits for."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


@contextmanager
def as_lost() -> Iterator[None]:
    """Make a lost connection of the cancellation of the client's own tasks.

    aiormq cancels them when no heartbeat comes, and lets that through to whoever waits for them,
    who would end without a word. The cancellation of the running task itself stays one.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise ConnectionError(SILENT) from error


def _said(closed: asyncio.Future[None]) -> str:
    """Why the channel was closed, as far as the client knows."""
    error = None if closed.cancelled() else closed.exception()
    return SILENT if isinstance(error, asyncio.CancelledError | None) else str(error)


def _known(channel: object) -> Channel:
    if not isinstance(channel, Channel):
        raise TypeError(f"{channel!r} is no aiormq channel")
    return channel


def addresses(url: str) -> list[URL]:
    """The URLs of a broker, one or a cluster's, separated by commas; the first is a random one.

    Raises ValueError if one is none of AMQP, as the client takes any.
    """
    found = [URL(one) for one in _BETWEEN_URLS.split(url.strip(" ,"))]
    for one in found:
        if one.scheme not in ("amqp", "amqps"):
            raise ValueError(f"a URL of {one.scheme!r}")
    at = random.randrange(len(found))  # noqa: S311 - no secret
    return found[at:] + found[:at]


async def first_of(url: str, connect: Callable[[URL], Awaitable[T]]) -> T:
    """Connect to one node after the other, from a random one on, until one can be used.

    Raises CannotRunError, which says why each cannot; ValueError if a URL is none of AMQP.
    """
    refusals: dict[str, Exception] = {}
    for one in addresses(url):
        try:
            with as_lost():
                return await connect(one)
        except _REFUSALS as error:
            refusals[explain(error, str(one))] = error
    raise CannotRunError("; ".join(refusals)) from next(iter(refusals.values()))


def explain(error: BaseException, url: str) -> str:
    """What RabbitMQ, or the way to it, says, in one line with what to do."""
    if isinstance(error, CannotRunError):
        return str(error)
    try:
        shown = ", ".join(map(_shown, _BETWEEN_URLS.split(url)))
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


def _shown(url: str) -> str:
    """A URL without its password."""
    parsed = URL(url)
    return str(parsed.with_password(None) if parsed.password else parsed)
