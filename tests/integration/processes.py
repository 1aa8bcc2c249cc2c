"""Runs services and sandboxes as in production, a process each, and keeps what they write."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forked import forking_supervisor
from stage import until

ROOT = Path(__file__).parents[2]
#: For what takes a second, and many where the machine is busy with other things.
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Said:
    """A line that a process wrote."""

    name: str
    text: str
    #: What it says, if it is JSON.
    entry: dict[str, Any]


class Processes:
    """Starts, ends and kills processes; one that dies is started again."""

    def __init__(
        self, services: Sequence[str], sandboxes: Sequence[str], var: Path, env: Mapping[str, str]
    ) -> None:
        """`env` is their whole environment, `var` the folder that it names."""
        self.services = tuple(services)
        self.sandboxes = tuple(sandboxes)
        self.var = var
        self.env = env
        self.logs: list[Said] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start nothing but the outside world; end everything with the block."""
        async with forking_supervisor(
            lambda name, line: self.logs.append(_said(name, line))
        ) as supervisor:
            self._supervisor = supervisor
            await self._spawn({one: f"sandboxes.{one}" for one in self.sandboxes})
            yield

    async def start(self, *names: str) -> None:
        """Start services, by default all, and wait until they consume.

        A name with a number behind it, like `inventory-2`, is another instance.
        """
        names = names or self.services
        seen = len(self.logs)
        await self._spawn({one: f"services.{one.partition('-')[0]}" for one in names})
        await self.consuming(names, since=seen)
        await until(
            lambda: all((self.var / f"{one}.url").exists() for one in self.sandboxes),
            "the sandboxes",
        )

    async def consuming(self, names: Iterable[str], *, since: int) -> None:
        """Wait until these have said so in the log since a line of it."""
        expected = set(names)
        await until(
            lambda: expected <= {said.name for said in self.said("consuming", since)},
            f"{', '.join(expected)} consume", PATIENCE_S,
        )  # fmt: skip

    def kill(self, *names: str) -> None:
        """kill -9; the supervisor starts them again."""
        for name in names:
            self.signal(name, signal.SIGKILL)

    async def kill_for_good(self, name: str) -> None:
        """kill -9, and nobody starts it again; first one that has died by itself comes back."""
        await until(lambda: self.pid(name), f"{name} is up")
        self.signal(name, signal.SIGKILL)
        await self._supervisor.stop(name)

    async def crash(self, name: str) -> None:
        """kill -9, and start it again without delay; wait until it consumes."""
        await self.kill_for_good(name)
        await self.start(name)

    async def stop(self, *names: str) -> None:
        """End services in good order, to start them later."""
        await asyncio.gather(*map(self._supervisor.stop, names))

    def terminate(self, *names: str) -> None:
        """Send SIGTERM; the supervisor starts them again once they have ended."""
        for name in names:
            self.signal(name, signal.SIGTERM)

    def pid(self, name: str) -> int | None:
        """The process's id; None while it is down."""
        return self._supervisor.pid(name)

    def argv(self, module: str) -> list[str]:
        """Runs a module as the processes of the system do."""
        return [sys.executable, "-m", module]

    def said(self, event: str, since: int = 0) -> list[Said]:
        """The lines of the log with this text."""
        return [said for said in self.logs[since:] if said.entry.get("event") == event]

    async def _spawn(self, modules: Mapping[str, str]) -> None:
        await asyncio.gather(
            *(
                self._supervisor.start(name, self.argv(module), env=self.env)
                for name, module in modules.items()
            )
        )

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process that is there, or has ended this very moment."""
        pid = self.pid(name)
        assert pid is not None, f"{name} is down already"
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def environment(url: str, database_url: str, var: Path, **given: object) -> dict[str, str]:
    """What a service's process is told, as the tests want it; `given` on top of that."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CHOREO_")}
    return own | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
        "CHOREO_AMQP_URL": url,
        "CHOREO_DATABASE_URL": database_url,
        "CHOREO_VAR": str(var),
        "CHOREO_LOG_FORMAT": "json",
        "CHOREO_LEASE_S": "2",
        "CHOREO_RETRY_FIRST_S": "0.1",
        "CHOREO_RETRY_LONGEST_S": "1",
        "CHOREO_POLL_S": "0.2",
        "CHOREO_GRACE_S": "10",
        # Only what is to be late is late, however slow the machine.
        "ORDERS_DEADLINE_S": "3600",
        "ORDER_PROCESS_ANSWER_S": "3600",
        "PROVIDERS_ANSWER_S": "3600",
        "RESERVATIONS_ANSWER_S": "3600",
        **{name: str(value) for name, value in given.items()},
    }


async def run(argv: list[str], env: Mapping[str, str]) -> tuple[int | None, str]:
    """Run a process to its end; gives its exit code and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *argv, env=env, cwd=ROOT, stdout=PIPE, stderr=STDOUT
    )
    try:
        written, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, written.decode()


def _said(name: str, text: str) -> Said:
    try:
        entry = json.loads(text)
    except ValueError:
        entry = None
    return Said(name, text, entry if isinstance(entry, dict) else {})
