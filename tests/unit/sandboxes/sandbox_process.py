"""Runs a sandbox as the process it is, for the tests in this folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).parents[3]
PATIENCE_S = 60.0


def spawn(name: str, var: Path, *arguments: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"sandboxes.{name}", *arguments],
        cwd=ROOT,
        env={**os.environ, "CHOREO_VAR": str(var), "PYTHONUNBUFFERED": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@dataclass
class Sandbox:
    process: subprocess.Popen[str]
    url: str

    async def post(
        self, path: str, key: str | None, body: object = None
    ) -> tuple[int, dict[str, Any]]:
        headers = {} if key is None else {"Idempotency-Key": key}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.url}{path}", json=body, headers=headers) as answer,
        ):
            return answer.status, await answer.json()

    async def ledger(self, **having: object) -> list[dict[str, Any]]:
        """The ledger's rows in which every named column has the given value."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self.url}/ledger") as answer,
        ):
            rows = await answer.json()
        return [row for row in rows if having.items() <= row.items()]

    def stop(self, number: int) -> tuple[int, str, str]:
        """Send the signal; return the exit code and what was written to stdout and stderr."""
        self.process.send_signal(number)
        stdout, stderr = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, stdout, stderr


@contextmanager
def running(name: str, var: Path, *arguments: str, **env: str) -> Iterator[Sandbox]:
    """Start a sandbox and wait until it has announced itself; kill it in the end if it runs yet."""
    process = spawn(name, var, *arguments, **env)
    try:
        announced = var / f"{name}.url"
        until = time.monotonic() + PATIENCE_S
        while not announced.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until, f"{announced} was not written in time"
            time.sleep(0.01)
        yield Sandbox(process, announced.read_text().strip())
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


async def eventually(probe: Callable[[], Awaitable[object]]) -> None:
    """Ask until the answer is true."""
    until = time.monotonic() + PATIENCE_S
    while not await probe():
        assert time.monotonic() < until, "it did not come true in time"
