"""The payment gateway: every test card, and that a key has one effect."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sandbox_process import Sandbox, eventually, running

from sandboxes import gateway as cards


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running("gateway", tmp_path_factory.mktemp("gateway")) as sandbox:
        yield sandbox


def charge(order_id: str, card: str = cards.APPROVED, amount: int = 450) -> dict[str, Any]:
    return {"order_id": order_id, "card": card, "amount": amount}


@pytest.mark.parametrize("card", [cards.APPROVED, "5555 4444 3333 2222", "12345678"])
async def test_a_good_card_is_charged(gateway: Sandbox, card: str) -> None:
    order_id = f"good-{card}"
    status, paid = await gateway.post("/charges", order_id, charge(order_id, card))
    assert status == 201
    [row] = await gateway.ledger(order_id=order_id)
    assert row.pop("id") > 0
    assert row.pop("at").endswith("+00:00")
    assert row == {
        "kind": "charge",
        "key": order_id,
        "order_id": order_id,
        "reference": paid["payment_id"],
        "amount": 450,
        "offer": None,
    }


@pytest.mark.parametrize("card", [cards.DECLINED, "cheque", "1234", "1" * 20, ""])
async def test_a_bad_card_is_declined(gateway: Sandbox, card: str) -> None:
    order_id = f"bad-{card}"
    for _ in range(2):
        status, said = await gateway.post("/charges", order_id, charge(order_id, card))
        assert (status, said) == (402, {"error": "declined", "reason": "the card was declined"})
    assert await gateway.ledger(order_id=order_id) == []


async def test_a_card_fails_twice_for_each_key_and_then_succeeds(gateway: Sandbox) -> None:
    for key in ("twice-1", "twice-2"):
        body = charge(key, cards.FAILS_TWICE)
        statuses = [(await gateway.post("/charges", key, body))[0] for _ in range(4)]
        assert statuses == [503, 503, 201, 201]
        assert len(await gateway.ledger(order_id=key)) == 1


async def test_a_slow_card_is_charged_before_the_wait(tmp_path: Path) -> None:
    body = charge("slow", cards.SLOW)
    with running("gateway", tmp_path, SANDBOX_SLOW_S="600") as gateway:
        first = asyncio.create_task(gateway.post("/charges", "slow", body))
        await eventually(lambda: gateway.ledger(order_id="slow"))
        status, paid = await gateway.post("/charges", "slow", body)
        assert not first.done()
        [row] = await gateway.ledger(order_id="slow")
        assert (status, paid["payment_id"]) == (201, row["reference"])
        gateway.stop(signal.SIGKILL)
        with pytest.raises(aiohttp.ClientConnectionError):
            await first


async def test_a_slow_card_is_answered_alike_after_the_wait(gateway: Sandbox) -> None:
    body = charge("late", cards.SLOW)
    first, again = await asyncio.gather(*(gateway.post("/charges", "late", body) for _ in range(2)))
    assert first == again
    assert len(await gateway.ledger(order_id="late")) == 1


async def test_a_lost_answer_is_a_charge_that_the_key_finds_again(gateway: Sandbox) -> None:
    body = charge("lost", cards.LOSES_ANSWER)
    with pytest.raises(aiohttp.ClientConnectionError):
        await gateway.post("/charges", "lost", body)
    [row] = await gateway.ledger(order_id="lost")
    status, paid = await gateway.post("/charges", "lost", body)
    assert (status, paid["payment_id"]) == (201, row["reference"])
    assert await gateway.ledger(order_id="lost") == [row]


async def test_many_requests_with_one_key_at_once_charge_once(gateway: Sandbox) -> None:
    tries = [gateway.post("/charges", "at-once", charge("at-once")) for _ in range(20)]
    first, *others = await asyncio.gather(*tries)
    assert first[0] == 201
    assert others == [first] * 19
    assert len(await gateway.ledger(order_id="at-once")) == 1


async def test_a_key_belongs_to_one_body(gateway: Sandbox) -> None:
    await gateway.post("/charges", "doubled", charge("doubled"))
    status, said = await gateway.post("/charges", "doubled", charge("doubled", amount=451))
    assert (status, said["error"]) == (422, "key_reused")
    status, said = await gateway.post("/refunds", "doubled", {"payment_id": "pay_1"})
    assert (status, said["error"]) == (422, "key_reused")
    assert len(await gateway.ledger(key="doubled")) == 1


async def test_two_keys_are_two_charges(gateway: Sandbox) -> None:
    for key in ("two-1", "two-2"):
        assert (await gateway.post("/charges", key, charge("two")))[0] == 201
    assert len(await gateway.ledger(order_id="two")) == 2


async def test_a_payment_is_refunded_once_whatever_the_key(gateway: Sandbox) -> None:
    _, paid = await gateway.post("/charges", "back", charge("back"))
    body = {"payment_id": paid["payment_id"]}
    answers = [await gateway.post("/refunds", key, body) for key in ("back-1", "back-1", "back-2")]
    assert answers[0][0] == 201
    assert answers[0][1]["amount"] == 450
    assert answers == answers[:1] * 3
    [row] = await gateway.ledger(kind="refund", order_id="back")
    assert (row["key"], row["reference"], row["amount"]) == ("back-1", paid["payment_id"], 450)


async def test_a_refund_of_an_unknown_payment_is_404(gateway: Sandbox) -> None:
    status, said = await gateway.post("/refunds", "unknown", {"payment_id": "pay_none"})
    assert (status, said["reason"]) == (404, "there is no payment 'pay_none'")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"order_id": "o", "card": "4242-4242"}, "amount: Field required"),
        ({"order_id": "o", "card": 1, "amount": 0}, "card: Input should be a valid string"),
        ({"order_id": "o", "card": "4242-4242", "amount": -1}, "amount: Input should be greater"),
        ("none", "Input should be an object"),
    ],
)
async def test_a_bad_body_is_told_by_its_field(gateway: Sandbox, body: object, reason: str) -> None:
    status, said = await gateway.post("/charges", "bad-body", body)
    assert (status, said["error"]) == (400, "invalid")
    assert reason in said["reason"]


async def test_nothing_is_done_without_a_key(gateway: Sandbox) -> None:
    status, said = await gateway.post("/charges", None, charge("keyless"))
    assert (status, said["reason"]) == (400, "the header Idempotency-Key is missing")
    assert await gateway.ledger(order_id="keyless") == []
