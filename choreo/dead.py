"""Dead letters: kept with their original bytes and properties, announced, sent back, given up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import Connection

from choreo.contract import Event, encode
from choreo.envelope import Envelope
from choreo.errors import line, trace
from choreo.failpoint import reach
from choreo.record import properties_of
from choreo.seams import Delivery
from choreo.service import Handler, Service, Step
from choreo.store.memory import Kind, Memory, Row, Status
from choreo.store.tables import dead, due, inbox
from choreo.work import Unit, digest_of

if TYPE_CHECKING:
    from choreo.transaction import Transaction


#: A reason is for a person: whoever wants all of it has the body.
LONGEST_REASON = 2000


class DeadLettered(Event, topic="choreo.dead_lettered"):
    """A service keeps a message that it can do nothing more with."""

    letter_id: str
    service: str
    #: Empty when no handler was reached.
    handler: str
    message_id: str | None
    type: str | None
    reason: str
    attempts: int


def refuse(tx: Transaction, delivery: Delivery, reason: str, envelope: Envelope | None) -> None:
    """Park a delivery that no handler can take.

    One that comes again, as its ack or the answer to its commit was lost, makes no second letter.
    """
    known = None if envelope is None else envelope.id
    if known and tx.memory.has_letter(known, digest_of(delivery.body)):
        return
    _park(tx, delivery, envelope, handler="", kind="", reason=reason)


def park_unit(tx: Transaction, unit: Unit, reason: str, error: Exception | None) -> None:
    """Park a message that a handler cannot take."""
    row = unit.due or {"attempts": 0, "first_failed": None}
    _park(
        tx, unit.delivery, unit.envelope, handler=unit.route.key, kind=Kind.RETRY, reason=reason,
        error=error, attempts=row["attempts"] + 1, first_failed=row["first_failed"],
    )  # fmt: skip


def park_due(tx: Transaction, row: Row, reason: str, error: Exception | None) -> None:
    """Park what was due: a call, an undo, a deadline. An undo also stays owed."""
    kind = row["kind"]
    if kind == Kind.UNDO:
        if not tx.memory.move(row, {**row, "at": None, "owner": None}):
            return
    elif not tx.memory.claim(row):
        return
    if kind == Kind.CALL:
        tx.memory.revise(row["message_id"], row["handler"], status=Status.PARKED.value)
    envelope, delivery = tx.envelope_of(row)
    _park(
        tx, delivery, envelope, handler=row["handler"],
        kind=Kind.RETRY if kind == Kind.CALL else Kind(kind), reason=reason, error=error,
        attempts=row["attempts"], first_failed=row["first_failed"], message_id=row["message_id"],
    )  # fmt: skip


def send_back(db: Connection, letter: Row, now: float) -> None:
    """Hand a letter to its service's handler once more; nobody else sees it."""
    memory = Memory(db)
    db.execute(sa.delete(dead).where(dead.c.id == letter["id"]))
    handler, message_id = letter["handler"], letter["message_id"]
    if letter["kind"] == Kind.UNDO:
        memory.wake(Kind.UNDO, handler, message_id, now)
        return
    kind = Kind(letter["kind"]) if letter["kind"] else Kind.RETRY
    memory.schedule(
        kind=kind.value,
        handler=handler,
        message_id=(handler and message_id) or letter["id"],
        flow=letter["flow"] or "",
        subject=letter["subject"],
        at=now,
        owner=None,
        attempts=0,
        crashes=0,
        first_failed=letter["first_failed"],
        last_failed=letter["last_failed"],
        error=letter["reason"],
        properties=letter["properties"],
        body=letter["body"],
    )
    memory.flush()
    if kind is Kind.RETRY and handler:
        db.execute(_parked(letter).values(status=Status.WAITING.value))


def drop(db: Connection, letter: Row, service: Service) -> None:
    """Give a letter up: its handler takes the message no more, also if it comes again.

    What a `def` step did was rolled back, so there is nothing of it to undo. A call may have had
    its effect all the same: what is owed to it stays owed.
    """
    db.execute(sa.delete(dead).where(dead.c.id == letter["id"]))
    handler = _handler_of(letter, service)
    if isinstance(handler, Step) and not handler.is_async:
        db.execute(_parked(letter).values(status=Status.CANCELLED.value, undo=None))
        if handler.taken_back_by is not None:
            Memory(db).clear(Kind.UNDO, handler.taken_back_by.name, letter["message_id"])


def is_owed(db: Connection, letter: Row, service: Service) -> bool:
    """Whether an undo is owed that nothing but this letter, sent back, would bring about."""
    handler = _handler_of(letter, service)
    if isinstance(handler, Step):
        handler = handler.taken_back_by if handler.is_async else None
        about = due.c.message_id == letter["message_id"]
    elif letter["kind"] == Kind.UNDO:
        about = due.c.message_id == letter["message_id"]
    else:  # the letter is the cause of an undo, and reaches what it is about
        about = sa.true() if letter["subject"] is None else due.c.subject == letter["subject"]
    if handler is None:
        return False
    owed = sa.select(due.c.handler).where(
        due.c.kind == Kind.UNDO.value, due.c.handler == handler.name, due.c.flow == letter["flow"]
    )
    return db.execute(owed.where(about)).first() is not None


def _handler_of(letter: Row, service: Service) -> Handler[..., Any] | None:
    return service.handlers.get(letter["handler"].partition(".")[0])


def _parked(letter: Row) -> sa.Update:
    """What the inbox says of a letter that a handler could not take."""
    return (
        sa.update(inbox)
        .where(inbox.c.message_id == letter["message_id"], inbox.c.handler == letter["handler"])
        .where(inbox.c.status == Status.PARKED.value)
    )


def _park(
    tx: Transaction,
    delivery: Delivery,
    envelope: Envelope | None,
    *,
    handler: str,
    kind: str,
    reason: str,
    error: Exception | None = None,
    attempts: int = 1,
    first_failed: float | None = None,
    message_id: str | None = None,
) -> None:
    letter_id = tx.tools.ids.next()
    reason = line(reason, LONGEST_REASON)
    known = None if envelope is None else envelope.id
    tx.memory.park(
        {
            "id": letter_id,
            "handler": handler,
            "kind": str(kind),
            "message_id": message_id or known,
            "flow": None if envelope is None else envelope.flow,
            "subject": None if envelope is None else envelope.subject,
            "reason": reason,
            "error": None if error is None else trace(error),
            "attempts": attempts,
            "first_failed": first_failed or tx.now,
            "last_failed": tx.now,
            "digest": digest_of(delivery.body),
            "properties": properties_of(delivery),
            "body": delivery.body,
        }
    )
    facts = {
        "letter": letter_id, "handler": handler or None, "reason": reason,
        "message_id": message_id or known, "flow": None if envelope is None else envelope.flow,
    }  # fmt: skip
    tx.effects.notes.append(("error", "dead letter", facts))
    reach("parked")
    if envelope is not None and envelope.type == DeadLettered.__address__.wire_type:
        return  # nobody is told of it again, and again
    service = tx.plan.service.name
    announced = DeadLettered(
        letter_id=letter_id,
        service=service,
        handler=handler,
        message_id=known,
        type=None if envelope is None else envelope.type,
        reason=reason,
        attempts=attempts,
    )
    tx.publish(announced, encode(announced), f"/{service}/dead", envelope)
