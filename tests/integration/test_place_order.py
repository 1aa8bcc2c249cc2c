"""`scripts/place-order` follows orders to their ends, and says clearly when there is none."""

from __future__ import annotations

import json
from pathlib import Path

import cast
import pytest
from script import Script, declare
from system import System

from choreo import topology


@pytest.fixture
def place_order(amqp_url: str, tmp_path: Path) -> Script:
    return Script("place-order", amqp_url, tmp_path)


@pytest.mark.long
async def test_follows_orders_to_their_ends(
    amqp_url: str, tmp_path: Path, place_order: Script
) -> None:
    database_url = f"sqlite:///{tmp_path}/{{service}}.db"
    async with System(amqp_url, database_url, tmp_path, cast.CONDUCTED_ORDERS) as system:
        await system.start()

        done = await place_order("--member", "--quantity", "2")
        assert done.returncode == 0, done.stdout + done.stderr
        title, *tree, end = done.stdout.splitlines()
        assert title.startswith("flow ")
        assert "  orders.place  order-" in title
        names = [line.strip("│├└─ ").split()[:2] for line in tree]
        # Who need not speak is not waited for, and may be heard too late for the tree.
        await system.hears(lambda one: one.source == "/rewards/grant")
        assert names[:3] == [
            ["orders.placed", "orders.place"],
            ["inventory.stock_reserved", "inventory.reserve"],
            ["payments.captured", "payments.capture"],
        ]
        assert sorted(one for one in names[3:] if one != ["rewards.granted", "rewards.grant"]) == [
            ["inventory.stock_shipped", "inventory.ship"],
            ["notifications.email_sent", "notifications.confirm"],
            ["orders.fulfilled", "orders.fulfil"],
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

        for address, sku, outcome in (
            ("1 Main Street", "TEA-1", "fulfilled"),
            ("nowhere", "TEA-1", "cancelled"),
            ("1 Main Street", "UNICORN", "rejected"),
        ):
            told = await place_order.told("--conducted", "--address", address, "--sku", sku)
            [order] = told["orders"]
            assert (order["outcome"], order["missing"]) == (outcome, [])
            types = [one["type"] for one in order["events"]]
            assert f"orders.{outcome}.v1" in types
            assert ("payments.taken.v1" in types) == (outcome != "rejected")
            assert "orders.placed.v1" not in types

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
        done = await place_order("--timeout", "15")
        assert done.returncode == 1
        assert "inventory.stock_reserved" in done.stdout
        assert done.stdout.endswith(
            "no end within 15 s\n"
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
    await declare(amqp_url)
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
    assert (await place_order.refuses(*words)).startswith(f"place-order: {said}")


async def test_says_where_no_broker_is(place_order: Script, tmp_path: Path) -> None:
    place_order.env["CHOREO_AMQP_URL"] = ""
    done = await place_order()
    assert done.returncode == 2
    assert done.stderr == (
        "place-order: no broker: set CHOREO_AMQP_URL, or start a private one with 'choreo up' "
        f"(none is recorded under {tmp_path}/)\n"
    )
