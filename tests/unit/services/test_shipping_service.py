"""Shipping: booked once for a key, recalled until it is collected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer
from service_samples import ANN, TEA, context

from contracts.orders import OrderCancelled, OrderFulfilled
from contracts.payments import PaymentCaptured
from contracts.shipping import (
    BookShipment,
    RecallShipment,
    ShipmentArranged,
    ShipmentBooked,
    ShipmentCollected,
    ShipmentFailed,
    ShipmentRecalled,
    ShipmentRefused,
)
from sandboxes import carrier as sandbox
from sandboxes.ledger import Ledger
from services.shipping import arrange, book, call_back, collect, open_carrier, recall
from services.shipping.carrier import Carrier, CarrierError

CANCELLED = OrderCancelled(order_id="o-1", customer=ANN, reason="too late")


def paid(address: str = "1 High Street") -> PaymentCaptured:
    customer = ANN.model_copy(update={"address": address})
    return PaymentCaptured(
        order_id="o-1", customer=customer, lines=TEA, payment_id="pay-1", amount=900
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "carrier.db")


@pytest_asyncio.fixture
async def carrier(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Carrier]:
    monkeypatch.delenv("SHIPPING_CARRIER_URL", raising=False)
    monkeypatch.setenv("CHOREO_VAR", str(tmp_path))
    async with TestServer(sandbox.application(ledger)) as server:
        (tmp_path / "carrier.url").write_text(f"http://{server.host}:{server.port}\n")
        async with open_carrier() as opened:
            yield opened
    ledger.close()


async def booked(carrier: Carrier) -> ShipmentBooked:
    answer = await book(paid(), context("booking"), carrier)
    assert isinstance(answer, ShipmentBooked)
    return answer


def kinds(ledger: Ledger) -> list[str]:
    return [row["kind"] for row in ledger.rows()]


async def test_a_paid_order_is_booked_once_for_a_key(carrier: Carrier, ledger: Ledger) -> None:
    first = await booked(carrier)
    assert await booked(carrier) == first
    [row] = ledger.rows()
    assert first == ShipmentBooked(order_id="o-1", shipment_id=row["reference"])
    assert (row["key"], row["order_id"]) == ("booking", "o-1")


async def test_an_undeliverable_address_is_an_answer_and_no_error(
    carrier: Carrier, ledger: Ledger
) -> None:
    assert await book(paid("Nowhere"), context("key"), carrier) == ShipmentFailed(
        order_id="o-1", reason="the carrier does not go to 'Nowhere'"
    )
    assert kinds(ledger) == []


async def test_a_used_key_is_no_undeliverable_address(carrier: Carrier) -> None:
    await booked(carrier)
    with pytest.raises(CarrierError, match=r"422 for a booking: .*belongs to another request"):
        await book(paid("2 High Street"), context("booking"), carrier)


async def test_a_lost_answer_is_an_exception_and_the_same_key_finds_the_booking(
    carrier: Carrier, ledger: Ledger
) -> None:
    with pytest.raises(aiohttp.ClientConnectionError):
        await book(paid("Lost Answer"), context("key"), carrier)
    answer = await book(paid("Lost Answer"), context("key"), carrier)
    assert isinstance(answer, ShipmentBooked)
    assert [row["reference"] for row in ledger.rows()] == [answer.shipment_id]


async def test_a_cancelled_order_is_recalled_and_then_never_collected(
    carrier: Carrier, ledger: Ledger
) -> None:
    shipment = await booked(carrier)
    for _ in range(2):
        assert await recall(CANCELLED, shipment, context("recall"), carrier) == ShipmentRecalled(
            order_id="o-1", shipment_id=shipment.shipment_id
        )
    fulfilled = OrderFulfilled(order_id="o-1", shipment_id=shipment.shipment_id)
    with pytest.raises(CarrierError, match=r"409 for collect .*after its recall"):
        await collect(fulfilled, context("collect"), carrier)
    assert kinds(ledger) == ["booking", "recall"]


async def test_a_fulfilled_order_is_collected_and_then_never_recalled(
    carrier: Carrier, ledger: Ledger
) -> None:
    shipment = await booked(carrier)
    fulfilled = OrderFulfilled(order_id="o-1", shipment_id=shipment.shipment_id)
    for _ in range(2):
        assert await collect(fulfilled, context("collect"), carrier) == ShipmentCollected(
            order_id="o-1", shipment_id=shipment.shipment_id
        )
    with pytest.raises(CarrierError, match=r"409 for recall .*after its collection"):
        await recall(CANCELLED, shipment, context("recall"), carrier)
    assert kinds(ledger) == ["booking", "collection"]


async def test_a_conducted_order_is_booked_once_for_a_key_and_recalled_once(
    carrier: Carrier, ledger: Ledger
) -> None:
    wanted = BookShipment(order_id="o-1", address="1 High Street")
    shipment = await arrange(wanted, context("booking"), carrier)
    assert await arrange(wanted, context("booking"), carrier) == shipment
    [row] = ledger.rows()
    assert shipment == ShipmentArranged(order_id="o-1", shipment_id=row["reference"])
    assert (row["key"], row["order_id"]) == ("booking", "o-1")
    for key in ("recall", "recall", "again"):
        assert await call_back(
            RecallShipment(order_id="o-1"), shipment, context(key), carrier
        ) == ShipmentRecalled(order_id="o-1", shipment_id=shipment.shipment_id)
    assert kinds(ledger) == ["booking", "recall"]


async def test_a_conducted_order_that_cannot_be_delivered_is_an_answer(
    carrier: Carrier, ledger: Ledger
) -> None:
    wanted = BookShipment(order_id="o-1", address="Nowhere")
    assert await arrange(wanted, context("key"), carrier) == ShipmentRefused(
        order_id="o-1", reason="the carrier does not go to 'Nowhere'"
    )
    assert kinds(ledger) == []


async def test_a_conducted_order_that_was_collected_is_not_recalled(
    carrier: Carrier, ledger: Ledger
) -> None:
    wanted = BookShipment(order_id="o-1", address="1 High Street")
    shipment = await arrange(wanted, context("booking"), carrier)
    assert isinstance(shipment, ShipmentArranged)
    fulfilled = OrderFulfilled(order_id="o-1", shipment_id=shipment.shipment_id)
    await collect(fulfilled, context("collect"), carrier)
    with pytest.raises(CarrierError, match=r"409 for recall .*after its collection"):
        await call_back(RecallShipment(order_id="o-1"), shipment, context("recall"), carrier)
    assert kinds(ledger) == ["booking", "collection"]


async def test_a_fixed_url_comes_before_the_announced_one(
    carrier: Carrier, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = (tmp_path / "carrier.url").read_text().strip()
    (tmp_path / "carrier.url").unlink()
    with pytest.raises(CarrierError, match=r"carrier\.url is missing; run 'python -m sandboxes"):
        await booked(carrier)
    monkeypatch.setenv("SHIPPING_CARRIER_URL", url)
    async with open_carrier() as fixed:
        await booked(fixed)
    assert kinds(ledger) == ["booking"]
