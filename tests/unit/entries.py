"""Events of the journal, made by hand."""

from __future__ import annotations

from choreo.envelope import Envelope, timestamp
from choreo.tree import Entry

NOON = 1_800_000_000.0
#: A time-ordered id (UUID version 7) made at `NOON`.
FLOW = f"{int(NOON * 1000):012x}70008000000000000abc"


def entry(
    identifier: str,
    cause: str | None = FLOW,
    *,
    wire_type: str = "orders.placed.v1",
    source: str = "/orders/place",
    after_s: float = 0.0,
    subject: str | None = "order-1",
    body: object = None,
    flow: str = FLOW,
    command: str | None = None,
    last_event: str | None = None,
) -> Entry:
    envelope = Envelope(
        identifier,
        wire_type,
        source,
        timestamp(NOON + after_s),
        flow,
        causation=cause,
        subject=subject,
        command=command,
        last_event=last_event,
    )
    return Entry(envelope, body)
