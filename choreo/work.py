"""The pieces of work that one transaction takes: messages, letters, finished outside calls."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from choreo import envelope as envelopes
from choreo.contract import Message, decode, subject_of
from choreo.envelope import Envelope
from choreo.errors import ChoreoError, UndecodableError
from choreo.plan import Plan
from choreo.record import delivery_from
from choreo.seams import Delivery, Outgoing
from choreo.service import Handler, Route
from choreo.signature import Context
from choreo.store.memory import Kind, Row


@dataclass(slots=True, eq=False)
class Unit:
    """A message and one thing to be done with it."""

    route: Route
    envelope: Envelope
    message: Message
    delivery: Delivery
    digest: bytes
    #: Its row in `due`, when it comes from there and not from the broker.
    due: Row | None = None


@dataclass(slots=True, eq=False)
class Due:
    """Something that is due and is no message: a deadline, an undo, an outside call."""

    row: Row


@dataclass(slots=True, eq=False)
class Letter:
    """A delivery that no handler can take."""

    delivery: Delivery
    reason: str
    envelope: Envelope | None = None


@dataclass(slots=True, eq=False)
class Call:
    """An outside call whose beginning is committed."""

    handler: Handler[..., Any]
    #: Its row in `due`.
    row: Row
    #: The message in hand: what the results answer.
    envelope: Envelope
    #: The messages of each run (an undo runs once for each outcome) and what surrounds it.
    runs: Sequence[tuple[tuple[Message, ...], Context]]


@dataclass(slots=True, eq=False)
class Finished:
    """An outside call that came to its result, or to an error."""

    call: Call
    results: tuple[Message, ...] = ()
    error: Exception | None = None


Item = Unit | Due | Letter | Finished


class ItemFailedError(ChoreoError):
    """A handler failed on an item; the cause is chained. None: nobody knows which."""

    def __init__(self, item: Item | None) -> None:
        super().__init__("a handler failed")
        self.item = item


@dataclass(slots=True)
class Effects:
    """What a committed transaction leaves to be done."""

    outgoing: list[Outgoing] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    #: Log lines that were true only once it was committed: level, event, values.
    notes: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    #: Seconds until the next thing is due, if anything is.
    next_due_s: float | None = None


def digest_of(body: bytes) -> bytes:
    """What tells two bodies apart."""
    return hashlib.blake2b(body, digest_size=16).digest()


def judge(plan: Plan, delivery: Delivery, now: float, max_body_bytes: int) -> Sequence[Item]:
    """What is to be done with a delivery: a unit for each route, or a letter with the reason."""
    envelope: Envelope | None = None
    try:
        envelope = envelopes.read(delivery, now)
        if len(delivery.body) > max_body_bytes:
            size = len(delivery.body)
            raise UndecodableError(f"its body of {size} bytes is over the limit, {max_body_bytes}")
        known = plan.routes.get(envelope.type)
        if known is None:
            raise UndecodableError(_unknown(plan, envelope.type))
        contract, routes = known
        message = decode(contract, delivery.body)
        if (subject := subject_of(message)) is not None:
            envelopes.text("subject", subject)
            if not subject:
                raise UndecodableError("its subject is empty")
    except UndecodableError as error:
        return (Letter(delivery, str(error), envelope),)
    except Exception as error:  # noqa: BLE001 - no message, whatever it is, may end the service
        return (Letter(delivery, f"it cannot be read: {error!r}", envelope),)
    if subject != envelope.subject:
        # The contract says what it is about; a stranger's header may not.
        envelope = replace(envelope, subject=subject)
    digest = digest_of(envelope.type.encode() + delivery.body)
    return [Unit(route, envelope, message, delivery, digest) for route in routes]


def revive(plan: Plan, rows: Iterable[Row], now: float) -> list[Item]:
    """The rows of `due` that are due, as items."""
    return [_retry(plan, row, now) if row["kind"] == Kind.RETRY else Due(row) for row in rows]


def is_suspect(item: Item) -> bool:
    """Whether it was due before, and lost with its process."""
    row = item.row if isinstance(item, Due) else item.due if isinstance(item, Unit) else None
    return row is not None and row["crashes"] > 0


def is_deadline(item: Item) -> bool:
    """Whether it is a deadline whose time is up."""
    return isinstance(item, Due) and item.row["kind"] == Kind.DEADLINE


def _retry(plan: Plan, row: Row, now: float) -> Item:
    delivery = delivery_from(row["properties"], row["body"])
    for item in judge(plan, delivery, now, len(delivery.body)) if row["handler"] else ():
        if isinstance(item, Unit) and item.route.key == row["handler"]:
            item.due = row
            return item
    return Due(row)


def _unknown(plan: Plan, wire_type: str) -> str:
    topic, _, version = wire_type.rpartition(".v")
    known = plan.versions.get(topic)
    if known and version.isdigit():
        listed = ", ".join(map(str, known))
        return f"{plan.service.name} knows {topic} in version {listed}, not {version}"
    return f"{plan.service.name} does not know the type {wire_type!r}"
