"""Deadlines: armed by one event, ended by others, run once when time is up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from choreo.contract import Message
from choreo.envelope import Envelope
from choreo.failpoint import reach
from choreo.record import delivery_of, properties_of
from choreo.seams import Delivery, Outgoing
from choreo.service import Deadline, Handler
from choreo.store.memory import Kind, Row

if TYPE_CHECKING:
    from choreo.transaction import Transaction


def arm(
    tx: Transaction, handler: Handler[..., Any], envelope: Envelope, delivery: Delivery
) -> None:
    """Start a deadline for a flow, unless what ends it was seen already."""
    if not isinstance(handler, Deadline):
        raise TypeError(f"{handler!r} is no deadline")
    tx.load_flow(envelope.flow)
    if tx.is_buried(envelope.flow, handler.name, envelope.subject):
        return
    tx.memory.schedule(
        kind=Kind.DEADLINE.value,
        handler=handler.name,
        message_id=envelope.id,
        flow=envelope.flow,
        subject=envelope.subject,
        at=tx.now + handler.within.total_seconds(),
        owner=None,
        attempts=0,
        crashes=0,
        first_failed=None,
        last_failed=None,
        error=None,
        properties=properties_of(delivery),
        body=delivery.body,
    )


def end(tx: Transaction, handler: Handler[..., Any], flow: str, subject: str | None) -> None:
    """End a flow's deadline, also one that is not armed yet: events may overtake each other."""
    tx.bury(flow, handler.name, subject)
    tx.memory.clear_deadlines(flow, handler.name, subject)


def seen_own(tx: Transaction, outgoing: Outgoing, message: Message) -> None:
    """The service's own events arm and end deadlines in the transaction that returns them."""
    kind = type(message)
    envelope = outgoing.envelope
    for one in tx.plan.arms.get(kind, ()):
        arm(tx, one, envelope, delivery_of(outgoing))
    for one in tx.plan.ends.get(kind, ()):
        end(tx, one, envelope.flow, envelope.subject)


def run(tx: Transaction, handler: Handler[..., Any], row: Row) -> None:
    """Time is up."""
    tx.load_flow(row["flow"])
    if tx.memory.claim(row) and not tx.is_buried(row["flow"], handler.name, row["subject"]):
        reach("deadline")
        envelope, message = tx.revive(row)
        key = f"{envelope.id}.{handler.name}"
        tx.announce(handler, envelope, tx.invoke(handler, (message,), envelope, key))
