"""A script that sends commands, run as a person runs it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cast
from processes import ROOT

from choreo import log, rabbitmq, topology
from choreo.settings import Settings


class Script:
    """One of scripts/, which belongs to the system of this broker and folder."""

    def __init__(self, name: str, url: str, var: Path) -> None:
        self.file = f"scripts/{name.replace('-', '_')}.py"
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "CHOREO_AMQP_URL": url,
            "CHOREO_VAR": str(var),
        }

    async def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end; of options that are given twice the last counts."""
        argv = [sys.executable, self.file, "--timeout", "120", *words]
        return await asyncio.to_thread(
            subprocess.run, argv,
            cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=240,
        )  # fmt: skip

    async def told(self, *words: str) -> Any:
        """What it says as JSON; it must have found everything right."""
        done = await self(*words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    async def refuses(self, *words: str) -> str:
        """What it says on its one line of stderr, when an option is wrong: nobody is asked."""
        self.env["CHOREO_AMQP_URL"] = "amqp://127.0.0.1:1/"
        done = await self(*words)
        assert (done.returncode, done.stdout) == (2, "")
        [line] = done.stderr.splitlines()
        return line


async def declare(url: str, wanted: topology.Topology | None = None) -> None:
    """Create these queues and exchanges, by default all that there are, with nobody behind them."""
    settings = Settings(amqp_url=url)
    async with rabbitmq.connected(url, settings, "test", log.logger("test")) as broker:
        await broker.declare(wanted or topology.of(cast.services(cast.ALL).values()))
