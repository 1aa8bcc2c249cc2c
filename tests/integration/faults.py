"""What the live soak does to services, broker, network and databases; each fault ends by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from proxy import Proxy, Way
from servers import Broker
from system import System

from choreo.store import database

#: Who is frozen or silent for longer than two of these loses its connections.
HEARTBEAT_S = 5
#: So long a fault lasts that lasts.
LASTS_S = 4.0
#: All SQLite databases of some minutes fit on it.
DISK_MIB = 192


@dataclass(frozen=True, slots=True)
class Place:
    """What a fault may be done to."""

    running: System
    broker: Broker
    #: Between services and broker; the test's own connections do not go through it.
    line: Proxy
    #: A small disk with all SQLite databases on it, if there is one.
    disk: Path | None


Fault = Callable[[Place, tuple[str, ...]], Coroutine[Any, Any, None]]


async def nothing(_: Place, __: tuple[str, ...]) -> None:
    """Leave it in peace."""


async def kill(at: Place, victims: tuple[str, ...]) -> None:
    """kill -9 of services; the supervisor starts them again."""
    at.running.kill(*(one for one in victims if at.running.pid(one) is not None))


async def terminate(at: Place, victims: tuple[str, ...]) -> None:
    """SIGTERM of services; the supervisor starts them again."""
    at.running.terminate(*(one for one in victims if at.running.pid(one) is not None))


async def freeze(at: Place, victims: tuple[str, ...]) -> None:
    """SIGSTOP of one service for longer than the broker waits for its heartbeats."""
    name = victims[0]
    if (pid := at.running.pid(name)) is not None:
        at.running.signal(name, signal.SIGSTOP)
        try:
            await asyncio.sleep(HEARTBEAT_S * 2.5)
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def restart_broker(at: Place, _: tuple[str, ...]) -> None:
    """Stop the broker in good order, and start it again."""
    await at.broker.stop()
    await at.broker.start()


async def kill_broker(at: Place, _: tuple[str, ...]) -> None:
    """kill -9 of the broker."""
    await at.broker.kill()
    await at.broker.start()


async def memory_alarm(at: Place, _: tuple[str, ...]) -> None:
    """No publish gets through while the broker is out of memory."""
    async with told(at.broker, "set_vm_memory_high_watermark", "0.00001", "0.6"):
        await asyncio.sleep(LASTS_S)


async def disk_alarm(at: Place, _: tuple[str, ...]) -> None:
    """No publish gets through while the broker's disk is full."""
    async with told(at.broker, "set_disk_free_limit", "100000GB", "50MB"):
        await asyncio.sleep(LASTS_S)


async def cut(at: Place, _: tuple[str, ...]) -> None:
    """Every connection is reset, three times."""
    for _again in range(3):
        at.line.cut()
        await asyncio.sleep(LASTS_S / 4)


async def half_open_up(at: Place, _: tuple[str, ...]) -> None:
    """The broker hears no more of any service, though they are connected."""
    await _half_open(at, "up")


async def half_open_down(at: Place, _: tuple[str, ...]) -> None:
    """The services hear no more of the broker, though they are connected."""
    await _half_open(at, "down")


async def _half_open(at: Place, way: Way) -> None:
    at.line.half_open(way)
    await asyncio.sleep(HEARTBEAT_S * 2.5)


async def slow(at: Place, _: tuple[str, ...]) -> None:
    """Everything arrives a second late."""
    at.line.delay_s = 1.0
    await asyncio.sleep(LASTS_S)
    at.line.delay_s = 0.0


async def confirms_lost(at: Place, _: tuple[str, ...]) -> None:
    """The broker's confirms are lost; all the rest comes through."""
    at.line.drops_confirms = True
    await asyncio.sleep(LASTS_S)
    at.line.drops_confirms = False


async def channels_closed(at: Place, _: tuple[str, ...]) -> None:
    """The broker closes every channel."""
    at.line.spoil_channels()


async def repeat(at: Place, _: tuple[str, ...]) -> None:
    """Publish what was heard of late once more, with its own ids."""
    await at.running.publish(*at.running.copies()[-300:])


async def database_away(at: Place, victims: tuple[str, ...]) -> None:
    """On SQLite the disk is full; on PostgreSQL every session is ended, again and again."""
    url = at.running.database_url
    if at.disk is not None:
        with full(at.disk):
            await asyncio.sleep(LASTS_S)
    elif url.startswith("sqlite"):
        files = [url.removeprefix("sqlite:///").replace("{service}", one) for one in victims]
        with locked(files):
            await asyncio.sleep(LASTS_S)
    else:
        await _end_sessions(url.replace("+psycopg", "").replace("{service}", victims[0]))


async def _end_sessions(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
        for _again in range(int(LASTS_S * 4)):
            await session.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> "
                "pg_backend_pid() AND datname LIKE split_part(current_database(), '_', 1) || '\\_%'"
            )
            await asyncio.sleep(0.25)


FAULTS: dict[str, Fault] = {
    one.__name__: one
    for one in (
        nothing, kill, terminate, freeze, restart_broker, kill_broker, memory_alarm, disk_alarm,
        cut, half_open_up, half_open_down, slow, confirms_lost, channels_closed, repeat,
        database_away,
    )
}  # fmt: skip
#: These may happen in the middle of any other.
BESIDES = ("nothing", "kill", "terminate", "repeat")
#: While these last, nobody can publish anything.
DEAF = ("restart_broker", "kill_broker", "memory_alarm", "disk_alarm")


@asynccontextmanager
async def told(broker: Broker, command: str, absurd: str, usual: str) -> AsyncIterator[None]:
    """Have the broker's limit set absurdly while the block lasts."""
    await broker.ctl(command, absurd)
    try:
        yield
    finally:
        await broker.ctl(command, usual)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A small disk of its own at this folder; None where nothing can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "choreo-soak", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"NO FULL DISK, databases are locked instead: {done.stderr.strip()}", flush=True)
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def locked(files: Iterable[str]) -> Iterator[None]:
    """Nobody else can write to these SQLite databases while the block lasts."""
    with ExitStack() as stack:
        for file in files:
            other = stack.enter_context(closing(sqlite3.connect(file, isolation_level=None)))
            other.execute("PRAGMA busy_timeout=30000")
            other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Nothing more can be written while the block lasts."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        yield
    finally:
        ballast.unlink()


def lose_each_answer(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lose the answer to every commit that announces something; gives what that was, by its ids."""
    lost: list[str] = []
    run = database.Transactor.transact

    def transact(transactor: database.Transactor, work: Callable[..., Any]) -> Any:
        result = run(transactor, work)
        if announced := getattr(result, "outgoing", None):
            lost.extend(one.envelope.id for one in announced)
            raise database.OutageError("the answer was lost")
        return result

    monkeypatch.setattr(database.Transactor, "transact", transact)
    return lost
