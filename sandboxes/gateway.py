r"""A payment gateway that charges and refunds test cards, and fails when the card says so.

    POST /charges {"order_id", "card", "amount"}   201 {"payment_id", ...} or 402 {"reason", ...}
    POST /refunds {"payment_id"}                   201 {"refund_id", ...}
    GET  /ledger                                   every charge and refund ever made
    GET  /health                                   200

Both POSTs need the header Idempotency-Key. An effect is committed before it is answered. A key
that is used again gets the first answer again and no second effect; with another body it gets
422. A payment is refunded once, whatever the key. Amounts are whole cents.

    card        what happens
    4242-4242   approved
    4000-0002   declined
    4000-0503   fails twice with 503 (for each key), then approved
    4000-3000   approved and charged at once, answered after 3 seconds
    4000-0504   approved and charged, but the first answer is lost: the connection is cut
    any other   approved if it has 8 to 19 digits (and dashes or spaces between), else declined

What is slow or lost is so on the first try of a key only; SANDBOX_SLOW_S says how slow.

Examples:
    python -m sandboxes.gateway
    python -m sandboxes.gateway --port 8081 --ledger /tmp/gateway.db
    curl "$(cat var/gateway.url)/ledger"
    curl "$(cat var/gateway.url)/charges" -H 'Idempotency-Key: one' \
        -d '{"order_id": "o-1", "card": "4242-4242", "amount": 450}'
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections import Counter

from aiohttp import web
from pydantic import BaseModel, ConfigDict, PositiveInt

from sandboxes import server
from sandboxes.ledger import Answer, Effect, Ledger, refusal

APPROVED = "4242-4242"
DECLINED = "4000-0002"
FAILS_TWICE = "4000-0503"
SLOW = "4000-3000"
LOSES_ANSWER = "4000-0504"

_CARD = re.compile(r"\d([- ]?\d){7,18}")


class Charge(BaseModel):
    """The body of POST /charges."""

    model_config = ConfigDict(strict=True)

    order_id: str
    card: str
    amount: PositiveInt


class Refund(BaseModel):
    """The body of POST /refunds."""

    model_config = ConfigDict(strict=True)

    payment_id: str


class Gateway:
    """The requests of the gateway, decided over its ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._failures: Counter[str] = Counter()

    async def charge(self, request: web.Request) -> web.Response:
        """POST /charges."""
        key, charge = server.key_of(request), await server.body_of(request, Charge)
        if charge.card == FAILS_TWICE and self._failures[key] < 2:
            self._failures[key] += 1
            return server.respond(refusal(503, "unavailable", "the gateway is out of order"))
        answer, first = self._ledger.once(
            key, f"charge {charge.model_dump_json()}", lambda: self._charge(key, charge)
        )
        if first and charge.card == SLOW:
            await asyncio.sleep(server.SLOW_S)
        if first and charge.card == LOSES_ANSWER:
            return server.cut(request)
        return server.respond(answer)

    async def refund(self, request: web.Request) -> web.Response:
        """POST /refunds."""
        key, refund = server.key_of(request), await server.body_of(request, Refund)
        answer, _ = self._ledger.once(
            key, f"refund {refund.model_dump_json()}", lambda: self._refund(key, refund.payment_id)
        )
        return server.respond(answer)

    def _charge(self, key: str, charge: Charge) -> Answer:
        if charge.card == DECLINED or not _CARD.fullmatch(charge.card):
            return refusal(402, "declined", "the card was declined")
        payment_id = f"pay_{uuid.uuid4().hex}"
        self._ledger.record(Effect("charge", key, charge.order_id, payment_id, charge.amount))
        return Answer(
            201,
            {"payment_id": payment_id, "order_id": charge.order_id, "amount": charge.amount},
        )

    def _refund(self, key: str, payment_id: str) -> Answer:
        if done := self._ledger.find("refund", payment_id):
            return self._ledger.answer(done.key)
        paid = self._ledger.find("charge", payment_id)
        if paid is None:
            return refusal(404, "unknown", f"there is no payment {payment_id!r}")
        self._ledger.record(Effect("refund", key, paid.order_id, payment_id, paid.amount))
        return Answer(
            201,
            {
                "refund_id": f"ref_{uuid.uuid4().hex}",
                "payment_id": payment_id,
                "amount": paid.amount,
            },
        )


def application(ledger: Ledger) -> web.Application:
    """Build the gateway over this ledger."""
    gateway = Gateway(ledger)
    return server.application(
        ledger,
        [web.post("/charges", gateway.charge), web.post("/refunds", gateway.refund)],
    )


if __name__ == "__main__":
    server.main("gateway", __doc__ or "", application)
