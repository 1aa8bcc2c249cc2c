"""Outside calls: begun durably, made outside of any transaction, brought to one result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from choreo import failure, undo
from choreo.service import Handler
from choreo.store.memory import Kind, Row, Status
from choreo.work import Call, Finished, Unit

if TYPE_CHECKING:
    from choreo.transaction import Transaction


def begin(tx: Transaction, unit: Unit) -> None:
    """Write down that a call begins; it is made once that is committed."""
    step, envelope = unit.route.handler, unit.envelope
    row = tx.due_row(Kind.CALL, step.name, unit, at=tx.lost_at(), owner=tx.tools.owner)
    tx.memory.schedule(**row)
    tx.remember(unit, Status.STARTED)
    runs = [((unit.message,), tx.context(envelope, envelope.id))]
    tx.effects.calls.append(Call(step, row, envelope, runs))


def again(tx: Transaction, step: Handler[..., Any], row: Row) -> None:
    """A call failed before, or was lost with its process: make it again, under the same key."""
    envelope, message = tx.revive(row)
    runs = [((message,), tx.context(envelope, envelope.id))]
    tx.effects.calls.append(Call(step, row, envelope, runs))


def finish(tx: Transaction, item: Finished) -> None:
    """Store and announce what a call came to."""
    call = item.call
    if item.error is not None:
        failure.of_due(tx, call.row, item.error)
    elif call.row["kind"] == Kind.UNDO:
        undo.finish_call(tx, call, item.results)
    else:
        _finish_step(tx, item)


def _finish_step(tx: Transaction, item: Finished) -> None:
    call = item.call
    known = tx.memory.step(call.row["message_id"], call.handler.name)
    if known is None or known["status"] != Status.STARTED:
        return  # another instance brought the same call to its end
    bodies = tx.announce(call.handler, call.envelope, item.results)
    outcome = undo.outcome_json(call.handler, item.results, bodies)
    tx.memory.revise(
        known["message_id"],
        known["handler"],
        status=Status.DONE.value,
        outcome=outcome,
        at=tx.tick(),
    )
    tx.memory.clear(Kind.CALL, call.handler.name, known["message_id"])
    undo.outcome_arrived(tx, known, outcome)
