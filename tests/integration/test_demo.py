"""`scripts/demo` ends well, on its own broker and on another, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cast import ALL, ORDERS, sandboxes, services
from cli_project import below, is_alive
from processes import ROOT
from stage import until

from choreo import log, node, rabbitmq, topology
from choreo.envelope import Envelope
from choreo.seams import Outgoing
from choreo.settings import Settings

pytestmark = pytest.mark.timeout(600)

PATIENCE_S = 300.0
_READY = f"all {len(ALL)} services are running"
_STORIES = [
    ("a registration", "registered"),
    ("an order", "fulfilled"),
    ("an order, conducted", "fulfilled"),
    ("out of stock", "cancelled"),
    ("a declined card", "cancelled"),
    ("a shipment fails", "cancelled"),
    ("a shipment fails, conducted", "cancelled"),
    ("a trip, conducted", "confirmed"),
    ("a trip fails at its last leg, conducted", "cancelled"),
    ("a trip fails at its last leg, choreographed", "cancelled"),
]
#: Orders, trips, two articles, three providers, money, points, parcels, mails, three profiles and
#: the record.
_CHECKS = 2 + 2 + 3 + 4 + 3 + 1


class Demo:
    """The demo while it runs; `folder` is where it may put things."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.process = process

    def text(self, name: str) -> str:
        return (self.folder.parent / name).read_text()

    async def says(self, text: str) -> None:
        """Wait until it tells this about its progress."""

        def said() -> bool:
            assert self.process.poll() is None or text in self.text("err"), self.text("err")
            return text in self.text("err")

        await until(said, f"it says {text!r}", PATIENCE_S)

    async def ends(self) -> int:
        """Wait for its end; gives the exit code."""
        await until(lambda: self.process.poll() is not None, "it ends", PATIENCE_S)
        return self.process.wait()


@contextmanager
def running(tmp_path: Path, *words: str, **env: str) -> Iterator[Demo]:
    folder = tmp_path / "tmp"
    folder.mkdir()
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "scripts/demo.py", *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), **env},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    try:
        yield Demo(folder, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def test_all_is_as_it_must_be_on_a_broker_of_its_own(tmp_path: Path) -> None:
    # Settings of a person's own must not lead it astray.
    foreign = {
        "CHOREO_DATABASE_URL": "postgresql+psycopg://127.0.0.1:1/x",
        "CHOREO_VAR": "/no/where",
        "RESERVATIONS_ANSWER_S": "never",
    }
    with running(tmp_path, **foreign) as demo:
        await demo.says(_READY)
        [var] = demo.folder.iterdir()
        family = below(demo.process.pid)
        assert len(family) >= 2 + len(ALL) + len(sandboxes(ALL))  # choreo up and the broker as well
        assert await demo.ends() == 0, demo.text("out") + demo.text("err")
        assert [pid for pid in family if is_alive(pid)] == []
        assert list(demo.folder.iterdir()) == []
        if node.docker_engine():
            assert node.Node(var)._container not in node._docker("volume", "ls", timeout_s=20)
        out = demo.text("out")
    for story, outcome in _STORIES:
        assert f"\n{story}: {outcome}\nflow " in out
    for name in ("crm.profile_opened", "orders.fulfilled", "inventory.stock_rejected",
                 "payments.declined", "shipping.failed", "payments.refunded", "orders.opened",
                 "payments.returned", "travel.confirmed", "providers.leg_cancelled",
                 "providers.legs_failed"):  # fmt: skip
        assert name in out
    assert out.count("✓") == len(_STORIES) + _CHECKS
    assert "✗" not in out
    assert "All is as it must be." in out


@pytest.mark.long
async def test_all_is_as_it_must_be_on_a_given_broker(tmp_path: Path, amqp_url: str) -> None:
    with running(tmp_path, "--json", "--keep", CHOREO_AMQP_URL=amqp_url) as demo:
        assert await demo.ends() == 0, demo.text("out") + demo.text("err")
        told = json.loads(demo.text("out"))
        [kept] = demo.folder.iterdir()
        assert f"Kept: {kept}" in demo.text("err")
        assert (kept / "inventory.db").exists()
        assert not (kept / "broker").exists()
    assert told["is_right"]
    assert [(one["name"], one["ended"]) for one in told["stories"]] == _STORIES
    assert [one["wrong"] for one in told["stories"]] == [[] for _ in _STORIES]
    assert [len(one["flows"]) for one in told["stories"]] == [1] * 7 + [2] * 3
    assert all(check["is_right"] for check in told["books"])
    found = {check["what"]: check["found"] for check in told["books"]}
    assert found["points"].startswith("9 for order-1, 9 for order-2, 546 for trip-1;")
    assert found["places of hotel"] == "3 booked - 2 cancelled = 1 ROOM-1"
    assert found["ada for airline"].startswith("prefers seat aisle; ")
    assert found["record"].endswith(" events, unbroken")


@pytest.mark.parametrize(
    ("number", "stage"),
    [
        pytest.param(signal.SIGINT, _READY, marks=pytest.mark.long),
        (signal.SIGTERM, "starting a private RabbitMQ"),
    ],
)
async def test_leaves_nothing_behind_when_it_is_interrupted(
    tmp_path: Path, number: signal.Signals, stage: str
) -> None:
    with running(tmp_path) as demo:
        await demo.says(stage)
        family = below(demo.process.pid)
        demo.process.send_signal(number)
        assert await demo.ends() == 128 + number
        assert [pid for pid in family if is_alive(pid)] == []
        assert list(demo.folder.iterdir()) == []
        assert "Traceback" not in demo.text("err")


async def test_refuses_a_broker_that_others_use(tmp_path: Path, amqp_url: str) -> None:
    settings = Settings(amqp_url=amqp_url)
    async with rabbitmq.connected(amqp_url, settings, "test", log.logger("test")) as broker:
        await broker.declare(topology.of(services(ORDERS).values()))
        envelope = Envelope("1", "orders.place.v1", "/test", "2026-01-01T00:00:00Z", "1")
        await broker.publish([Outgoing("orders.commands", "orders.place.v1", envelope, b"{}")])
    with running(tmp_path, CHOREO_AMQP_URL=amqp_url) as demo:
        assert await demo.ends() == 2
        assert demo.text("err") == (
            "demo: the broker of CHOREO_AMQP_URL is in use: its queue 'orders' has 0 consumers and "
            "1 messages; name another virtual host, or unset it for a private broker\n"
        )
        assert list(demo.folder.iterdir()) == []


async def test_says_what_is_wrong_with_the_broker(tmp_path: Path) -> None:
    with running(tmp_path, CHOREO_AMQP_URL="amqp://127.0.0.1:1/") as demo:
        assert await demo.ends() == 2
        assert demo.text("err").startswith("demo: no RabbitMQ at amqp://127.0.0.1:1/")
        assert demo.text("err").count("\n") == 1
