"""A system of the demo's own: `choreo up` as a process, ready and stopped when it is wanted."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aio_pika

from choreo import CannotRunError, Service
from choreo.node import end_with_parent
from choreo.rabbitmq import explain

_START_S, _STOP_S = 240.0, 120.0
_SHOWN_LINES = 10


def say(text: str) -> None:
    """Tell what is being done; the results alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


@asynccontextmanager
async def running(log: Path) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
    """Run `choreo up` as a process of its own while the block lasts; gives what stops it sooner."""
    say("Starting the sandboxes of the outside world and the services ('choreo up')")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "choreo", "up",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # a Ctrl-C reaches it through us
        preexec_fn=end_with_parent,
    )  # fmt: skip
    ready = asyncio.Event()
    reading = asyncio.create_task(_read(process.stdout, log, ready))

    async def stop() -> None:
        if process.returncode is not None:
            return
        say("Stopping everything")
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            raise CannotRunError(f"the system did not stop within {_STOP_S:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()  # on Linux, what it runs ends with it
                await process.wait()

    try:
        await _until_ready(ready, reading, log)
        yield stop
    finally:
        await stop()
        await reading


async def _read(output: asyncio.StreamReader | None, log: Path, ready: asyncio.Event) -> None:
    """Keep what the system says, and pass on what `choreo up` says itself."""
    if output is None:
        raise TypeError("the process was started without a pipe")
    with log.open("wb") as file:
        async for line in output:
            file.write(line)
            file.flush()
            name, _, text = line.decode(errors="replace").partition(" | ")
            if name.strip() == "choreo" and not ready.is_set():
                say(f"  {text.strip()}")
            if "services are running" in text:
                ready.set()


async def _until_ready(ready: asyncio.Event, reading: asyncio.Task[None], log: Path) -> None:
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait((waiting, reading), timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not ready.is_set():
        how = "ended" if reading.done() else f"is not ready after {_START_S:g} s"
        raise CannotRunError(f"the system {how}; it said:\n{_end_of(log)}")


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:])


async def refuse_if_used(url: str, services: Sequence[Service]) -> None:
    """Other instances of the services would take the orders away; raises CannotRunError."""
    try:
        connection = await aio_pika.connect(url)
    except Exception as error:
        raise CannotRunError(explain(error, url)) from error
    async with connection:
        for service in services:
            channel = await connection.channel()
            with suppress(aio_pika.exceptions.ChannelNotFoundEntity):
                queue = await channel.declare_queue(service.name, passive=True)
                found = queue.declaration_result
                if found.consumer_count or found.message_count:
                    raise CannotRunError(
                        f"the broker of CHOREO_AMQP_URL is in use: its queue {service.name!r} has "
                        f"{found.consumer_count} consumers and {found.message_count} messages; "
                        "name another virtual host, or unset it for a private broker"
                    )
