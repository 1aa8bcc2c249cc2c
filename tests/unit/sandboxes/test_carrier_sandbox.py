"""The carrier: every kind of address, and that a parcel is collected or recalled, never both."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from sandbox_process import Sandbox, eventually, running


@pytest.fixture(scope="module")
def carrier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running("carrier", tmp_path_factory.mktemp("carrier")) as sandbox:
        yield sandbox


async def booked(carrier: Sandbox, order_id: str, address: str = "1 High Street") -> str:
    status, said = await carrier.post(
        "/shipments", order_id, {"order_id": order_id, "address": address}
    )
    assert status == 201
    return str(said["shipment_id"])


async def test_a_parcel_is_booked_once_for_a_key(carrier: Sandbox) -> None:
    shipment_id = await booked(carrier, "normal")
    assert await booked(carrier, "normal") == shipment_id
    [row] = await carrier.ledger(order_id="normal")
    assert (row["kind"], row["key"], row["reference"]) == ("booking", "normal", shipment_id)


async def test_nowhere_is_refused(carrier: Sandbox) -> None:
    body = {"order_id": "nowhere", "address": "5 Nowhere Road"}
    for _ in range(2):
        status, said = await carrier.post("/shipments", "nowhere", body)
        assert (status, said["error"]) == (422, "undeliverable")
        assert "5 Nowhere Road" in said["reason"]
    assert await carrier.ledger(order_id="nowhere") == []


async def test_slow_lane_is_booked_before_the_wait(tmp_path: Path) -> None:
    with running("carrier", tmp_path, SANDBOX_SLOW_S="600") as carrier:
        first = asyncio.create_task(booked(carrier, "slow", "9 Slow Lane"))
        await eventually(lambda: carrier.ledger(order_id="slow"))
        again = await booked(carrier, "slow", "9 Slow Lane")
        assert not first.done()
        [row] = await carrier.ledger(order_id="slow")
        assert row["reference"] == again
        carrier.stop(signal.SIGKILL)
        with pytest.raises(aiohttp.ClientConnectionError):
            await first


async def test_slow_lane_is_answered_alike_after_the_wait(carrier: Sandbox) -> None:
    first, again = await asyncio.gather(*(booked(carrier, "late", "9 Slow Lane") for _ in range(2)))
    assert first == again
    assert len(await carrier.ledger(order_id="late")) == 1


async def test_a_lost_answer_is_a_booking_that_the_key_finds_again(carrier: Sandbox) -> None:
    with pytest.raises(aiohttp.ClientConnectionError):
        await booked(carrier, "lost", "Lost Answer Close")
    [row] = await carrier.ledger(order_id="lost")
    assert await booked(carrier, "lost", "Lost Answer Close") == row["reference"]
    assert await carrier.ledger(order_id="lost") == [row]


@pytest.mark.parametrize(
    ("verb", "kind", "other"),
    [("collect", "collection", "recall"), ("recall", "recall", "collect")],
)
async def test_a_parcel_is_collected_or_recalled_and_once(
    carrier: Sandbox, verb: str, kind: str, other: str
) -> None:
    order_id = f"to-{verb}"
    path = f"/shipments/{await booked(carrier, order_id)}"
    for key in (f"{verb}-1", f"{verb}-1", f"{verb}-2"):
        status, said = await carrier.post(f"{path}/{verb}", key)
        assert (status, said["order_id"]) == (200, order_id)
    status, said = await carrier.post(f"{path}/{other}", f"{verb}-3")
    assert (status, said["error"]) == (409, "too_late")
    kinds = [row["kind"] for row in await carrier.ledger(order_id=order_id)]
    assert kinds == ["booking", kind]


async def test_an_unknown_parcel_is_404(carrier: Sandbox) -> None:
    status, said = await carrier.post("/shipments/ship_none/collect", "unknown")
    assert (status, said["reason"]) == (404, "there is no shipment 'ship_none'")


async def test_a_key_belongs_to_one_request(carrier: Sandbox) -> None:
    shipment_id = await booked(carrier, "doubled")
    status, said = await carrier.post(
        "/shipments", "doubled", {"order_id": "doubled", "address": "2 High Street"}
    )
    assert (status, said["error"]) == (422, "key_reused")
    status, said = await carrier.post(f"/shipments/{shipment_id}/collect", "doubled")
    assert (status, said["error"]) == (422, "key_reused")
    assert len(await carrier.ledger(key="doubled")) == 1


async def test_nothing_is_done_without_a_key(carrier: Sandbox) -> None:
    path = f"/shipments/{await booked(carrier, 'keyless')}"
    for asked in ("/shipments", f"{path}/collect", f"{path}/recall"):
        status, said = await carrier.post(asked, None, {"order_id": "keyless", "address": "x"})
        assert (status, said["error"]) == (400, "no_key")
    assert len(await carrier.ledger(order_id="keyless")) == 1
