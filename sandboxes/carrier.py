r"""A carrier that books, collects and recalls shipments, and fails when the address says so.

    POST /shipments {"order_id", "address"}   201 {"shipment_id", ...} or 422 {"reason", ...}
    POST /shipments/{id}/collect              200, or 409 if it was recalled
    POST /shipments/{id}/recall               200, or 409 if it was collected
    GET  /ledger                              every booking, collection and recall ever made
    GET  /health                              200

All POSTs need the header Idempotency-Key. An effect is committed before it is answered. A key
that is used again gets the first answer again and no second effect; with another request it gets
422 with "error": "key_reused". A shipment is collected or recalled once, whatever the key.

    address contains   what happens
    nowhere            refused: 422 with "error": "undeliverable"
    slow lane          booked at once, answered after 3 seconds
    lost answer        booked, but the first answer is lost: the connection is cut
    anything else      booked

Upper and lower case are alike. What is slow or lost is so on the first try of a key only;
SANDBOX_SLOW_S says how slow.

Examples:
    python -m sandboxes.carrier
    python -m sandboxes.carrier --port 8082 --ledger /tmp/carrier.db
    curl "$(cat var/carrier.url)/ledger"
    curl "$(cat var/carrier.url)/shipments" -H 'Idempotency-Key: one' \
        -d '{"order_id": "o-1", "address": "1 Slow Lane"}'
"""

from __future__ import annotations

import asyncio
import uuid

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from sandboxes import server
from sandboxes.ledger import Answer, Effect, Ledger, refusal

UNDELIVERABLE = "nowhere"
SLOW = "slow lane"
LOSES_ANSWER = "lost answer"


class Booking(BaseModel):
    """The body of POST /shipments."""

    model_config = ConfigDict(strict=True)

    order_id: str
    address: str


class Carrier:
    """The requests of the carrier, decided over its ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def book(self, request: web.Request) -> web.Response:
        """POST /shipments."""
        key, booking = server.key_of(request), await server.body_of(request, Booking)
        answer, first = self._ledger.once(
            key, f"book {booking.model_dump_json()}", lambda: self._book(key, booking)
        )
        address = booking.address.casefold()
        if first and SLOW in address:
            await asyncio.sleep(server.SLOW_S)
        if first and LOSES_ANSWER in address:
            return server.cut(request)
        return server.respond(answer)

    async def collect(self, request: web.Request) -> web.Response:
        """POST /shipments/{id}/collect."""
        return self._end(request, "collection", unless="recall")

    async def recall(self, request: web.Request) -> web.Response:
        """POST /shipments/{id}/recall."""
        return self._end(request, "recall", unless="collection")

    def _end(self, request: web.Request, kind: str, *, unless: str) -> web.Response:
        key, shipment_id = server.key_of(request), request.match_info["id"]

        def decide() -> Answer:
            booked = self._ledger.find("booking", shipment_id)
            if booked is None:
                return refusal(404, "unknown", f"there is no shipment {shipment_id!r}")
            if self._ledger.find(unless, shipment_id):
                return refusal(409, "too_late", f"no {kind} of {shipment_id} after its {unless}")
            if not self._ledger.find(kind, shipment_id):
                self._ledger.record(Effect(kind, key, booked.order_id, shipment_id))
            return Answer(200, {"shipment_id": shipment_id, "order_id": booked.order_id})

        answer, _ = self._ledger.once(key, f"{kind} {shipment_id}", decide)
        return server.respond(answer)

    def _book(self, key: str, booking: Booking) -> Answer:
        if UNDELIVERABLE in booking.address.casefold():
            return refusal(422, "undeliverable", f"the carrier does not go to {booking.address!r}")
        shipment_id = f"ship_{uuid.uuid4().hex}"
        self._ledger.record(Effect("booking", key, booking.order_id, shipment_id))
        return Answer(201, {"shipment_id": shipment_id, "order_id": booking.order_id})


def application(ledger: Ledger) -> web.Application:
    """Build the carrier over this ledger."""
    carrier = Carrier(ledger)
    return server.application(
        ledger,
        [
            web.post("/shipments", carrier.book),
            web.post("/shipments/{id}/collect", carrier.collect),
            web.post("/shipments/{id}/recall", carrier.recall),
        ],
    )


if __name__ == "__main__":
    server.main("carrier", __doc__ or "", application)
