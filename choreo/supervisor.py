"""Keeps child processes running: starts one that dies again, and leaves none behind.

async with Supervisor(print) as supervisor:        # stops all of them at the end
    await supervisor.start("inventory", [sys.executable, "-m", "services.inventory"])
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from choreo import log
from choreo.errors import CannotRunError
from choreo.node import end_with_parent

AGAIN_FIRST_S, AGAIN_LONGEST_S = 0.5, 30.0
#: A process that lived so long is started again without delay the next time.
STEADY_S = 60.0
_LONGEST_LINE = 64 * 1024 * 1024


class Child(Protocol):
    """A process that was started, as asyncio's own look."""

    @property
    def pid(self) -> int:
        """Its id, and that of its group."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        """What it says."""

    async def wait(self) -> int:
        """Wait until it has ended; gives its exit code."""


@dataclass(slots=True, eq=False)
class _Kept:
    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None
    process: Child
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Runs named processes, each line of their output handed to `on_line(name, line)`.

    One that ends by itself is started again with exponential backoff, and `on_line` is told so.
    A stop is SIGTERM, and SIGKILL once `grace_s` is over. On Linux the processes end, too, when
    this one is killed. They are kept running also where `on_line` fails; that is logged once.
    """

    def __init__(self, on_line: Callable[[str, str], None], *, grace_s: float = 25.0) -> None:
        self._on_line = on_line
        self._grace_s = grace_s
        self._children: dict[str, tuple[_Kept, asyncio.Task[None]]] = {}
        self._has_failed = False

    async def __aenter__(self) -> Self:
        """Start nothing yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop all, side by side."""
        await asyncio.gather(*map(self.stop, list(self._children)))

    async def start(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> None:
        """Start a process and keep it running; raises CannotRunError if there is no such program.

        `env` is its whole environment; None is this process's own.
        """
        if name in self._children:
            raise ValueError(f"{name} is running already")
        try:
            child = _Kept(name, argv, env, await self.spawn(argv, env))
        except OSError as error:
            raise CannotRunError(f"{name} cannot be started ({argv[0]}): {error}") from error
        self._children[name] = child, asyncio.create_task(self._keep(child))

    def pid(self, name: str) -> int | None:
        """The process's id; None while it is down."""
        child, _ = self._children[name]
        return child.process.pid if child.process.returncode is None else None

    async def kill(self, name: str) -> None:
        """End a process as a crash would (SIGKILL); it is started again."""
        child, _ = self._children[name]
        if self.pid(name):
            _signal(child, signal.SIGKILL)
        await child.process.wait()

    async def stop(self, name: str) -> None:
        """End a process for good; killed if it takes too long, or if this call is cancelled."""
        child, keeper = self._children[name]
        child.stopping.set()
        try:
            if self.pid(name):
                _signal(child, signal.SIGTERM)
            await asyncio.wait((keeper,), timeout=self._grace_s)
        finally:
            del self._children[name]
            if not keeper.done():  # so somebody in its group is alive
                _signal(child, signal.SIGKILL)
        await keeper

    async def spawn(self, argv: Sequence[str], env: Mapping[str, str] | None) -> Child:
        """Start a process in a session of its own, so that a Ctrl-C reaches it through us."""
        return await asyncio.create_subprocess_exec(
            *argv,
            env=env,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,
            limit=_LONGEST_LINE,
        )

    async def _keep(self, child: _Kept) -> None:
        loop = asyncio.get_running_loop()
        wait_s = AGAIN_FIRST_S
        while True:
            began = loop.time()
            ending = await self._until_ended(child)
            if child.stopping.is_set():
                return
            if loop.time() - began >= STEADY_S:
                wait_s = AGAIN_FIRST_S
            self._tell(child, f"{ending}; starting it again in {wait_s:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(child.stopping.wait(), wait_s)
                return
            wait_s = min(wait_s * 2, AGAIN_LONGEST_S)
            try:
                child.process = await self.spawn(child.argv, child.env)
            except OSError as error:
                self._tell(child, f"cannot be started: {error}")
            if child.stopping.is_set():  # somebody said so while it started
                _signal(child, signal.SIGTERM)

    async def _until_ended(self, child: _Kept) -> str:
        """Hand over what the process says; gives how it ended."""
        output = child.process.stdout
        if output is None:
            raise TypeError("the process was started without a pipe")
        async for line in output:
            self._tell(child, line.decode(errors="replace").rstrip("\r\n"))
        code = await child.process.wait()
        return f"ended with exit code {code}" if code >= 0 else f"was ended by signal {-code}"

    def _tell(self, child: _Kept, line: str) -> None:
        try:
            self._on_line(child.name, line)
        except Exception:  # noqa: BLE001 - or it would be read and started again no more
            if not self._has_failed:
                self._has_failed = True
                log.logger("choreo").exception("a line cannot be shown", process=child.name)


def _signal(child: _Kept, number: signal.Signals) -> None:
    """Signal a process and what it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.process.pid, number)
