"""The private broker node: it keeps its data, ends wholly, and says what is wrong."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import pytest
from stage import until

from choreo import node
from choreo.errors import CannotRunError
from choreo.node import Node, joined, private_node

pytestmark = pytest.mark.usefixtures("nothing_kept")
WAYS = {"installed": node.rabbitmq_server(), "container": node.docker_engine()}


@pytest.fixture(params=[way for way, there in WAYS.items() if there] or ["none"])
async def started(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Node]:
    """A node started in each way that this machine offers."""
    if request.param == "container":
        monkeypatch.setattr(node, "rabbitmq_server", lambda: None)
    started = Node(tmp_path / "a folder")
    await started.start()
    yield started
    await started.kill()


async def queue(url: str, *, publish: bytes | None = None) -> bytes | None:
    """Leave a message in a durable queue, or take one out."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(
            "kept", durable=True, arguments={"x-queue-type": "quorum"}
        )
        if publish is None:
            message = await queue.get(no_ack=True, timeout=60, fail=False)
            return message.body if message else None
        message_out = aio_pika.Message(publish, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message_out, "kept")
        return None


def processes() -> dict[int, int]:
    """Every process that has not ended, with its parent."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            state, parent, *_ = status.read_text().rpartition(")")[2].split()
            if state != "Z":
                found[int(status.parent.name)] = int(parent)
    return found


def children() -> set[int]:
    """Every process below this one."""
    found = {os.getpid()}
    while more := {pid for pid, parent in processes().items() if parent in found} - found:
        found |= more
    return found


async def until_joined(started: Node) -> None:
    """It is found, though perhaps not at once: it must have answered within a second."""
    await until(lambda: joined(started.var) == started.url, f"{started.url} is found")


def until_gone(pids: set[int]) -> None:
    end = time.monotonic() + 120
    while alive := pids & processes().keys():
        assert time.monotonic() < end, alive
        time.sleep(0.05)


def killed_while_its_node_runs(var: Path) -> tuple[str, int]:
    """Start a Python that starts a node, and kill it; gives the node's URL and process."""
    program = (
        "import asyncio, sys, time\n"
        "from pathlib import Path\n"
        "from choreo.node import Node\n"
        "node = Node(Path(sys.argv[1]))\n"
        "print(asyncio.run(node.start()), node.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, str(var)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        url, pid = parent.stdout.readline().split()
        parent.kill()
    return url, int(pid)


async def test_it_is_joined_by_others_and_keeps_its_address_and_its_data(started: Node) -> None:
    url = started.url
    await until_joined(started)
    assert joined(started.var.parent) is None
    await queue(url, publish=b"kept")

    await started.stop()
    assert joined(started.var) is None
    assert await started.start() == url
    assert await queue(url) == b"kept"

    await queue(url, publish=b"kept again")
    await started.kill()
    assert joined(started.var) is None
    assert await started.start() == url
    assert await queue(url) == b"kept again"


async def test_a_second_one_for_the_same_folder_is_refused(started: Node) -> None:
    with pytest.raises(CannotRunError, match=f"running already .process {started.pid}."):
        await Node(started.var).start()
    await until_joined(started)


async def test_two_run_side_by_side_and_leave_no_process_behind(tmp_path: Path) -> None:
    before = children()
    folders = tmp_path / "one", tmp_path / "two"
    async with private_node(folders[0]) as one, private_node(folders[1]) as two:
        await queue(one, publish=b"one")
        assert await queue(two) is None
        theirs = children() - before
        assert len(theirs) >= len(folders)
    until_gone(theirs)
    assert joined(tmp_path / "one") is None


async def test_it_ends_when_its_parent_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "_STOP_S", 120)
    url, pid = killed_while_its_node_runs(tmp_path)
    until_gone({pid})
    async with private_node(tmp_path) as again:  # waits for the end of the other
        assert urlsplit(again).password == urlsplit(url).password
        assert await queue(again) is None


async def test_a_node_that_cannot_start_shows_its_log_and_leaves_nothing(tmp_path: Path) -> None:
    before = children()
    unlucky = Node(tmp_path)
    taken = socket.create_server(("127.0.0.1", unlucky._ports["amqp"]))
    with taken, pytest.raises(CannotRunError) as raised:
        await unlucky.start()
    assert "ended while it started" in str(raised.value)
    assert str(unlucky.log) in str(raised.value)
    assert "address" in str(raised.value)
    assert joined(tmp_path) is None
    until_gone(children() - before)


async def test_without_rabbitmq_and_docker_it_names_the_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "_PLACES", (str(tmp_path),))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotRunError, match=r"apt install .*start Docker.*CHOREO_AMQP_URL"):
        await Node(tmp_path / "var").start()
