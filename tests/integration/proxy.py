"""A TCP proxy before a broker that does to connections what networks do, and reads AMQP frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Literal
from urllib.parse import urlsplit

from pamqp.commands import Basic
from pamqp.frame import marshal

#: "up" is from the client to the broker.
Way = Literal["up", "down"]
#: What a frame begins with; a client's first bytes are "AMQP" and four of a version.
_METHOD, _HEADER, _BODY, _GREETING = 1, 2, 3, ord("A")
_ACK = Basic.Ack.index.to_bytes(4, "big")


class Proxy:
    """Stands before the broker at `url`; clients use `.url` instead."""

    def __init__(self, url: str) -> None:
        at = urlsplit(url)
        self._broker = at.hostname, at.port
        #: Every piece of data, and the end, arrives so much later.
        self.delay_s = 0.0
        #: Whether the broker's confirms (its basic.ack) are lost on the way.
        self.drops_confirms = False
        #: How many frames with confirms were lost.
        self.dropped = 0
        #: How many pieces of data were lost in half-open connections.
        self.swallowed = 0
        self.url = ""
        self._lines: dict[asyncio.Task[None], _Line] = {}

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._lines)

    def cut(self) -> None:
        """Reset every connection there is, at both ends."""
        for line in self._lines.values():
            line.cut()

    def half_open(self, way: Way) -> None:
        """From now on nothing gets through on this way of every connection there is, not even
        its end; those that are opened later are sound."""
        for line in self._lines.values():
            line.swallowed = way

    def spoil_channels(self) -> None:
        """Make the broker close the channel of every connection there is.

        It is as if the client acked what was never delivered to it.
        """
        for line in self._lines.values():
            line.injected = marshal(Basic.Ack(delivery_tag=2**60), 1)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            broker = await asyncio.open_connection(*self._broker)
        except OSError:
            writer.transport.abort()
            return
        line = self._lines[task] = _Line(self, (reader, writer), broker)
        try:
            await line.run()
        finally:
            line.cut()
            del self._lines[task]


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """A proxy before the broker at this URL while the block lasts."""
    proxy = Proxy(url)
    server = await asyncio.start_server(proxy._accept, "127.0.0.1")
    at = urlsplit(url)
    port = server.sockets[0].getsockname()[1]
    proxy.url = url.replace(f"@{at.hostname}:{at.port}", f"@127.0.0.1:{port}")
    try:
        yield proxy
    finally:
        server.close()
        tasks = list(proxy._lines)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


_End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Line:
    """One connection: two ways, each a queue of pieces with the time of their arrival."""

    def __init__(self, proxy: Proxy, client: _End, broker: _End) -> None:
        self._proxy = proxy
        self._ends = client, broker
        self.swallowed: Way | None = None
        #: A frame of the proxy's own for the broker, sent at the next opportunity.
        self.injected = b""

    def cut(self) -> None:
        for _, writer in self._ends:
            writer.transport.abort()

    async def run(self) -> None:
        (from_client, to_client), (from_broker, to_broker) = self._ends
        async with asyncio.TaskGroup() as ways:
            ways.create_task(self._carry("up", from_client, to_broker))
            ways.create_task(self._carry("down", from_broker, to_client))

    async def _carry(
        self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        async with asyncio.TaskGroup() as both:
            both.create_task(self._take(way, reader, pieces))
            both.create_task(self._give(way, writer, pieces))

    async def _take(
        self, way: Way, reader: asyncio.StreamReader, pieces: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        loop = asyncio.get_running_loop()
        frames = _Frames()
        while True:
            data = b""
            with suppress(OSError):  # cut: an end like any other
                data = await reader.read(65536)
            passed = b"".join(self._pass(way, frame) for frame in frames.feed(data))
            if passed or not data:
                pieces.put_nowait((loop.time() + self._proxy.delay_s, passed))
            if not data:
                return

    def _pass(self, way: Way, frame: bytes) -> bytes:
        """What is passed on in place of a frame."""
        if way == "down" and self._proxy.drops_confirms and _is_ack(frame):
            self._proxy.dropped += 1
            return b""
        if way == "up" and self.injected and frame[0] not in (_HEADER, _BODY, _GREETING):
            injected, self.injected = self.injected, b""
            return injected + frame
        return frame

    async def _give(
        self, way: Way, writer: asyncio.StreamWriter, pieces: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            at, piece = await pieces.get()
            await asyncio.sleep(max(0.0, at - loop.time()))
            if self.swallowed == way:
                self._proxy.swallowed += 1
                if not piece:
                    return
                continue
            with suppress(OSError):
                if not piece:
                    writer.close()
                    return
                writer.write(piece)
                await writer.drain()


def _is_ack(frame: bytes) -> bool:
    return frame[0] == _METHOD and frame[7:11] == _ACK


class _Frames:
    """Cuts a stream of bytes into whole frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._rest += data
        while len(self._rest) >= 8 and len(self._rest) >= (size := self._size()):
            frame, self._rest = self._rest[:size], self._rest[size:]
            yield frame

    def _size(self) -> int:
        return 8 + (self._rest[0] != _GREETING) * int.from_bytes(self._rest[3:7], "big")
