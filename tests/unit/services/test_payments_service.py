"""Payments: the card is charged once for a key, and what is not an answer is an exception."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import ValidationError
from service_samples import ANN, TEA, context

from contracts.inventory import StockReserved
from contracts.orders import OrderCancelled
from contracts.payments import (
    CapturePayment,
    PaymentCaptured,
    PaymentDeclined,
    PaymentRefunded,
    PaymentRefused,
    PaymentReturned,
    PaymentTaken,
    RefundPayment,
    TripNotPaid,
    TripPaid,
    TripRefunded,
)
from contracts.providers import LegsBooked
from contracts.travel import Booking, TripCancelled
from sandboxes import gateway as sandbox
from sandboxes.ledger import Ledger
from services.payments import (
    capture,
    charge,
    charge_trip,
    give_back,
    open_gateway,
    refund,
    refund_trip,
)
from services.payments.gateway import Gateway, GatewayError

CANCELLED = OrderCancelled(order_id="o-1", customer=ANN, reason="no road")
BOOKINGS = (
    Booking(leg_id="t-1.1", provider="airline", offer="LIS-1", booking_id="b-1", price=12_000),
)


def reserved(card: str = sandbox.APPROVED) -> StockReserved:
    return StockReserved(order_id="o-1", customer=ANN, card=card, lines=TEA, total=900)


def wanted(card: str = sandbox.APPROVED, amount: int = 900) -> CapturePayment:
    return CapturePayment(reference="o-1", card=card, amount=amount)


def legs_booked(card: str = sandbox.APPROVED, total: int = 12_000) -> LegsBooked:
    return LegsBooked(trip_id="t-1", bookings=BOOKINGS, total=total, card=card)


@pytest.fixture(autouse=True)
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PAYMENTS_GATEWAY_URL", raising=False)
    monkeypatch.setenv("CHOREO_VAR", str(tmp_path))
    return tmp_path


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "gateway.db")


@pytest_asyncio.fixture
async def gateway(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    async with TestServer(sandbox.application(ledger)) as server:
        monkeypatch.setenv("PAYMENTS_GATEWAY_URL", str(server.make_url("/")))
        async with open_gateway() as opened:
            yield opened
    ledger.close()


def kinds(ledger: Ledger) -> list[str]:
    return [row["kind"] for row in ledger.rows()]


async def test_a_good_card_is_charged_once_for_a_key(gateway: Gateway, ledger: Ledger) -> None:
    paid = await capture(reserved(), context("key-1"), gateway)
    [row] = ledger.rows()
    assert paid == PaymentCaptured(
        order_id="o-1", customer=ANN, lines=TEA, payment_id=row["reference"], amount=900
    )
    assert (row["key"], row["amount"], row["order_id"]) == ("key-1", 900, "o-1")
    assert await capture(reserved(), context("key-1"), gateway) == paid
    assert kinds(ledger) == ["charge"]


async def test_a_cancelled_order_gets_its_money_back_once(gateway: Gateway, ledger: Ledger) -> None:
    paid = await capture(reserved(), context("key-1"), gateway)
    assert isinstance(paid, PaymentCaptured)
    for key in ("key-2", "key-2", "key-3"):
        assert await refund(CANCELLED, paid, context(key), gateway) == PaymentRefunded(
            order_id="o-1", payment_id=paid.payment_id, amount=900
        )
    assert kinds(ledger) == ["charge", "refund"]


async def test_a_conductor_has_a_card_charged_and_given_back_once(
    gateway: Gateway, ledger: Ledger
) -> None:
    paid = await charge(wanted(), context("key-1"), gateway)
    assert await charge(wanted(), context("key-1"), gateway) == paid
    [row] = ledger.rows()
    assert paid == PaymentTaken(reference="o-1", payment_id=row["reference"], amount=900)
    assert (row["key"], row["amount"], row["order_id"]) == ("key-1", 900, "o-1")
    for key in ("key-2", "key-2", "key-3"):
        assert await give_back(
            RefundPayment(reference="o-1"), paid, context(key), gateway
        ) == PaymentReturned(reference="o-1", payment_id=paid.payment_id, amount=900)
    assert kinds(ledger) == ["charge", "refund"]


async def test_a_trip_is_charged_and_given_back_once(gateway: Gateway, ledger: Ledger) -> None:
    paid = await charge_trip(legs_booked(), context("key-1"), gateway)
    assert await charge_trip(legs_booked(), context("key-1"), gateway) == paid
    [row] = ledger.rows()
    assert paid == TripPaid(
        trip_id="t-1", bookings=BOOKINGS, payment_id=row["reference"], amount=12_000
    )
    assert (row["key"], row["amount"], row["order_id"]) == ("key-1", 12_000, "t-1")
    died = TripCancelled(trip_id="t-1", customer=ANN, reason="no road")
    for key in ("key-2", "key-2", "key-3"):
        assert await refund_trip(died, paid, context(key), gateway) == TripRefunded(
            trip_id="t-1", payment_id=paid.payment_id, amount=12_000
        )
    assert kinds(ledger) == ["charge", "refund"]


@pytest.mark.parametrize(
    ("card", "amount", "reason"),
    [
        (sandbox.DECLINED, 900, "the card was declined"),
        (sandbox.APPROVED, 0, "the amount is 0.00: there is nothing to charge"),
    ],
)
async def test_what_cannot_be_charged_is_an_answer_to_everybody(
    gateway: Gateway, ledger: Ledger, card: str, amount: int, reason: str
) -> None:
    order = reserved(card).model_copy(update={"total": amount})
    assert [
        await capture(order, context("key-1"), gateway),
        await charge(wanted(card, amount), context("key-2"), gateway),
        await charge_trip(legs_booked(card, amount), context("key-3"), gateway),
    ] == [
        PaymentDeclined(order_id="o-1", reason=reason),
        PaymentRefused(reference="o-1", reason=reason),
        TripNotPaid(trip_id="t-1", reason=reason),
    ]
    assert kinds(ledger) == []


async def test_an_outage_is_an_exception_and_the_same_key_gets_through(
    gateway: Gateway, ledger: Ledger
) -> None:
    for _ in range(2):
        with pytest.raises(GatewayError, match=r"503 for a charge: .*out of order"):
            await capture(reserved(sandbox.FAILS_TWICE), context("key-1"), gateway)
    answer = await capture(reserved(sandbox.FAILS_TWICE), context("key-1"), gateway)
    assert isinstance(answer, PaymentCaptured)
    assert kinds(ledger) == ["charge"]


async def test_a_lost_answer_is_an_exception_and_the_same_key_finds_the_charge(
    gateway: Gateway, ledger: Ledger
) -> None:
    with pytest.raises(aiohttp.ClientConnectionError):
        await capture(reserved(sandbox.LOSES_ANSWER), context("key-1"), gateway)
    answer = await capture(reserved(sandbox.LOSES_ANSWER), context("key-1"), gateway)
    assert isinstance(answer, PaymentCaptured)
    assert [row["reference"] for row in ledger.rows()] == [answer.payment_id]


async def test_a_key_of_another_order_is_an_exception(gateway: Gateway) -> None:
    await capture(reserved(), context("key-1"), gateway)
    with pytest.raises(GatewayError, match=r"422 for a charge: .*belongs to another request"):
        await capture(reserved("5555-5555"), context("key-1"), gateway)


async def test_an_unknown_payment_cannot_be_refunded(gateway: Gateway) -> None:
    paid = PaymentCaptured(
        order_id="o-1", customer=ANN, lines=TEA, payment_id="pay_none", amount=900
    )
    with pytest.raises(GatewayError, match=r"404 for a refund: .*no payment 'pay_none'"):
        await refund(CANCELLED, paid, context("key-1"), gateway)


@pytest.mark.parametrize(
    ("status", "text"), [(200, "{}"), (201, "<html>"), (201, '{"payment_id": 7}'), (402, "[]")]
)
async def test_an_unforeseen_answer_is_an_exception_that_shows_it(
    monkeypatch: pytest.MonkeyPatch, status: int, text: str
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    app = web.Application()
    app.router.add_post("/charges", answer)
    async with TestServer(app) as server:
        monkeypatch.setenv("PAYMENTS_GATEWAY_URL", str(server.make_url("/")))
        async with open_gateway() as gateway:
            with pytest.raises(GatewayError, match=f"{status} for a charge"):
                await capture(reserved(), context("key-1"), gateway)


async def test_the_gateway_is_found_where_it_announced_itself_last(
    var: Path, ledger: Ledger
) -> None:
    announced = var / "gateway.url"
    async with open_gateway() as gateway:
        with pytest.raises(
            GatewayError, match=r"gateway\.url is missing; run 'python -m sandboxes"
        ):
            await capture(reserved(), context("key-1"), gateway)
        for key in ("key-1", "key-2"):
            async with TestServer(sandbox.application(ledger)) as server:
                announced.write_text(f"http://{server.host}:{server.port}\n")
                answer = await capture(reserved(), context(key), gateway)
                assert isinstance(answer, PaymentCaptured)
        with pytest.raises(aiohttp.ClientConnectionError):
            await capture(reserved(), context("key-3"), gateway)
    assert kinds(ledger) == ["charge", "charge"]
    ledger.close()


async def test_a_wrong_url_is_told_when_the_adapter_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PAYMENTS_GATEWAY_URL", "gateway:80")
    with pytest.raises(ValidationError, match="PAYMENTS_GATEWAY_URL"):
        async with open_gateway():
            pass


def test_every_charge_has_a_time_limit() -> None:
    assert [one.timeout_s for one in (capture, charge, charge_trip)] == [10, 10, 10]
