"""`scripts/place-order` follows orders to their ends, and says clearly when there is none."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from system import ROOT, SERVICES, System

from choreo import log, rabbitmq, topology
from choreo.settings import Settings


class Script:
    """The script, run as scripts/place-order runs it."""

    def __init__(self, url: str, var: Path) -> None:
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "CHOREO_AMQP_URL": url,
            "CHOREO_VAR": str(var),
        }

    async def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        argv = [sys.executable, "scripts/place_order.py", *words]
        return await asyncio.to_thread(
            subprocess.run, argv, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=90
        )

    async def told(self, *words: str) -> Any:
        """What it says as JSON; it must have found everything right."""
        done = await self(*words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def place_order(amqp_url: str, tmp_path: Path) -> Script:
    return Script(amqp_url, tmp_path)


async def declare(url: str, wanted: topology.Topology) -> None:
    settings = Settings(amqp_url=url)
    async with rabbitmq.connected(url, settings, "test", log.logger("test")) as broker:
        await broker.declare(wanted)


async def test_follows_orders_to_their_ends(
    amqp_url: str, tmp_path: Path, place_order: Script
) -> None:
    async with System(amqp_url, f"sqlite:///{tmp_path}/{{service}}.db", tmp_path) as system:
        await system.start()

        done = await place_order("--member", "--quantity", "2")
        assert done.returncode == 0, done.stdout + done.stderr
        title, *tree, end = done.stdout.splitlines()
        assert title.startswith("flow ")
        assert "  orders.place  order-" in title
        names = [line.strip("│├└─ ").split()[:2] for line in tree]
        assert names[:3] == [
            ["orders.placed", "orders.place"],
            ["inventory.stock_reserved", "inventory.reserve"],
            ["payments.captured", "payments.capture"],
        ]
        assert sorted(names[3:]) == [
            ["inventory.stock_shipped", "inventory.ship"],
            ["notifications.email_sent", "notifications.confirm"],
            ["orders.fulfilled", "orders.fulfil"],
            ["rewards.granted", "rewards.grant"],
            ["shipping.booked", "shipping.book"],
            ["shipping.collected", "shipping.collect"],
        ]
        assert end.startswith("fulfilled after ")

        for words, outcome, reason in (
            (("--card", "4000-0002"), "cancelled", "the card was declined"),
            (("--sku", "RARE-1", "--quantity", "4"), "cancelled", None),
            (("--address", "nowhere"), "cancelled", "the carrier does not go to 'nowhere'"),
            (("--sku", "UNICORN"), "rejected", "not in the catalogue: UNICORN"),
        ):
            [order] = (await place_order.told(*words))["orders"]
            assert (order["outcome"], order["missing"]) == (outcome, [])
            assert reason in (None, order["reason"])
            ends = ("orders.cancelled.v1", "orders.rejected.v1")
            [end_event] = [one for one in order["events"] if one["type"] in ends]
            assert end_event["after_ms"] == order["after_ms"] >= 0

        told = await place_order.told("--count", "30")
        assert list(told["outcomes"]) == ["fulfilled"]
        assert told["outcomes"]["fulfilled"]["orders"] == 30
        assert told["outcomes"]["fulfilled"]["median_ms"] > 0
        assert told["outcomes"]["fulfilled"]["p99_ms"] == max(
            order["after_ms"] for order in told["orders"]
        )
        assert len({order["flow"] for order in told["orders"]}) == 30
        assert all(order["missing"] == [] for order in told["orders"])

        table = (await place_order("--count", "3", "--card", "4000-0002")).stdout
        assert "cancelled │ 3 " in table
        assert "flow" not in table

        # One service is away: the order stays open, and the service is named.
        await system.stop("payments")
        done = await place_order("--timeout", "1")
        assert done.returncode == 1
        assert "inventory.stock_reserved" in done.stdout
        assert done.stdout.endswith(
            "no end within 1 s\n"
            "  service payments: capture has not answered inventory.stock_reserved\n"
        )


async def test_says_when_no_queue_takes_the_order(amqp_url: str, place_order: Script) -> None:
    done = await place_order()
    assert (done.returncode, done.stderr) == (
        2,
        "place-order: the broker has no journal yet: run 'choreo declare', or start a service\n",
    )
    nobody = "place-order: no queue hears orders.place: start the services with 'choreo up'\n"
    await declare(amqp_url, topology.Topology(("orders",), (), (), ()))
    done = await place_order()
    assert (done.returncode, done.stdout, done.stderr) == (1, "", nobody)
    await declare(amqp_url, topology.Topology(("orders",), ("orders.commands",), (), ()))
    done = await place_order()
    assert (done.returncode, done.stdout, done.stderr) == (1, "", nobody)


async def test_says_who_does_not_answer(amqp_url: str, place_order: Script) -> None:
    await declare(amqp_url, topology.of(SERVICES.values()))
    done = await place_order("--timeout", "0.5")
    assert done.returncode == 1
    assert done.stdout.splitlines()[1:] == [
        "no end within 0.5 s",
        "  service orders: place has not answered orders.place",
    ]
    done = await place_order("--timeout", "0.5", "--count", "2", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert told["outcomes"] == {"open": {"orders": 2, "median_ms": None, "p99_ms": None}}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--quantity", "0"), "--quantity: Input should be greater than or equal to 1"),
        (("--quantity", "20000"), "--quantity: Input should be less than or equal to 10000"),
        (("--sku", ""), "--sku: String should have at least 1 character"),
        (("--card", ""), "--card: String should have at least 1 character"),
        (("--address", ""), "--address: String should have at least 1 character"),
        (("--email", "nobody"), "--email: String should match pattern"),
    ],
)
async def test_bad_input_is_refused_before_anything_is_sent(
    place_order: Script, words: tuple[str, ...], said: str
) -> None:
    place_order.env["CHOREO_AMQP_URL"] = "amqp://127.0.0.1:1/"  # nobody is asked
    done = await place_order(*words)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"place-order: {said}")


async def test_says_where_no_broker_is(place_order: Script, tmp_path: Path) -> None:
    place_order.env["CHOREO_AMQP_URL"] = ""
    done = await place_order()
    assert done.returncode == 2
    assert done.stderr == (
        "place-order: no broker: set CHOREO_AMQP_URL, or start a private one with 'choreo up' "
        f"(none is recorded under {tmp_path}/)\n"
    )
