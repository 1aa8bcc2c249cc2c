"""The log of a service's process: one JSON object a line, that says whose it is and about what."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path
from typing import Any

from fragile import Asked, Poked
from processes import PATIENCE_S, ROOT, environment
from test_poison import Fragile


async def test_every_line_is_json_and_bound(amqp_url: str, tmp_path: Path) -> None:
    database_url = f"sqlite:///{tmp_path}/{{service}}.db"
    await Fragile(amqp_url, database_url, tmp_path).publish(Poked(name="one"), Asked(name="two"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fragile", cwd=ROOT, stdout=DEVNULL, stderr=PIPE,
        env=environment(amqp_url, database_url, tmp_path, CHOREO_LOG_LEVEL="debug"),
    )  # fmt: skip
    lines: list[dict[str, Any]] = []
    try:
        assert process.stderr
        async with asyncio.timeout(PATIENCE_S):
            wanted = {"counting", "counting one, too", "telling", "consuming"}
            while not wanted <= {line["event"] for line in lines}:
                lines.append(json.loads(await process.stderr.readline()))
            process.terminate()
            lines += map(json.loads, (await process.stderr.read()).splitlines())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    assert all(line.keys() >= {"timestamp", "level", "service"} for line in lines)
    assert {line["service"] for line in lines} == {"fragile"}
    # The handler's own, those of the libraries that it uses, and those in an outside call.
    bound = {
        line["event"]: line["handler"]
        for line in lines
        if line["event"] in wanted - {"consuming"} and line["flow"] == line["message_id"]
    }
    assert bound == {"counting": "count", "counting one, too": "count", "telling": "tell"}
    # aio-pika's own lines, in the same form.
    assert [line for line in lines if "amqp://" in line["event"] and line["level"] == "debug"]
