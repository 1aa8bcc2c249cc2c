"""Undo, exactly: each outcome is taken back once ever, whichever of its causes came first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from choreo.contract import Message
from choreo.envelope import Envelope
from choreo.errors import ChoreoError
from choreo.failpoint import reach
from choreo.service import Handler, Step
from choreo.store.memory import Kind, Row, Status
from choreo.work import Call, Unit

if TYPE_CHECKING:
    from choreo.transaction import Transaction

OWED, UNDONE = "owed", "done"


def for_cause(tx: Transaction, unit: Unit, *, give_up: bool = False) -> None:
    """Take back every outcome of a step that the cause reaches, and keep it from running again.

    `give_up`: the undo failed for good; what it should have taken back stays owed.
    """
    step, handler = _step_of(unit), unit.route.handler
    for row in _stop(tx, unit, step):
        match row["status"]:
            case Status.STARTED | Status.PARKED | Status.WAITING:
                _owe(tx, row, unit)
            case Status.DONE if row["undo"] != UNDONE and accepted(handler, row["outcome"]):
                if give_up:
                    _owe(tx, row, unit)
                else:
                    _take_back(tx, row, unit)


def stop(tx: Transaction, unit: Unit) -> None:
    """Keep a final step from running, as an event of its `unless` was seen."""
    _stop(tx, unit, _step_of(unit))


def may_have_acted(tx: Transaction, unit: Unit) -> bool:
    """Whether a call that was parked, and is sent back, is owed an undo.

    It may have had its effect, and only its outcome, under the same key, can tell.
    """
    if unit.due is None or not unit.route.handler.is_async:
        return False
    known = tx.memory.step(unit.envelope.id, unit.route.key)
    return known is not None and known["undo"] == OWED


def step_cancelled(tx: Transaction, unit: Unit) -> None:
    """A letter was sent back after its flow was undone: nothing is owed to it any more."""
    step = unit.route.handler
    if unit.due is not None and isinstance(step, Step) and step.taken_back_by is not None:
        tx.memory.clear(Kind.UNDO, step.taken_back_by.name, unit.envelope.id)
        tx.memory.revise(unit.envelope.id, step.name, undo=None)


def outcome_arrived(tx: Transaction, step_row: Row, outcome: str | None) -> None:
    """A call came to its outcome; if an undo is owed to it, that is due now."""
    if step_row["undo"] != OWED:
        return
    step = tx.plan.service.handlers[step_row["handler"]]
    handler = step.taken_back_by if isinstance(step, Step) else None
    if handler is not None and accepted(handler, outcome):
        tx.memory.wake(Kind.UNDO, handler.name, step_row["message_id"], tx.now)
    elif handler is not None:
        # Nothing was done (a declined card), so nothing is to be undone.
        tx.memory.clear(Kind.UNDO, handler.name, step_row["message_id"])
        tx.memory.revise(step_row["message_id"], step_row["handler"], undo=None)


def run_owed(tx: Transaction, handler: Handler[..., Any], row: Row) -> None:
    """An undo that was owed is due: its step has its outcome now, or it failed before."""
    step = tx.plan.step_of.get(handler.name)
    known = None if step is None else tx.memory.step(row["message_id"], step.name)
    if known is None or known["undo"] != OWED:
        tx.memory.claim(row)
    elif known["status"] != Status.DONE:
        tx.memory.reschedule(row, at=None, owner=None)
    elif handler.is_async:
        tx.effects.calls.append(_call(tx, handler, row, known))
    elif tx.memory.claim(row):
        cause, message = tx.revive(row)
        _run(tx, handler, known, cause, message)


def finish_call(tx: Transaction, call: Call, results: tuple[Message, ...]) -> None:
    """An undo of the outside world succeeded."""
    step = tx.plan.step_of[call.handler.name]
    known = tx.memory.step(call.row["message_id"], step.name)
    if known is None or known["undo"] == UNDONE:
        return  # another instance brought the same undo to its end
    tx.announce(call.handler, call.envelope, results)
    _done(tx, known)
    tx.memory.clear(Kind.UNDO, call.handler.name, call.row["message_id"])


def accepted(handler: Handler[..., Any], outcome: str | None) -> bool:
    """Whether an undo takes back anything of what its step announced."""
    if outcome is None:
        return False
    wanted = {kind.__address__.wire_type for kind in handler.signature.outcomes}
    return any(wire_type in wanted for wire_type, _ in json.loads(outcome))


def _step_of(unit: Unit) -> Step[..., Any]:
    if unit.route.step is None:
        raise ChoreoError(f"route {unit.route.key} has no step")
    return unit.route.step


def _stop(tx: Transaction, unit: Unit, step: Step[..., Any]) -> list[Row]:
    """Bury a step, cancel what of it waits for a retry, and give its other runs, newest first."""
    flow, subject = unit.envelope.flow, unit.envelope.subject
    tx.bury(flow, step.name, subject)
    others = []
    for row in tx.memory.steps(flow, step.name, subject):
        # A call that waits was parked and sent back: unlike a `def`, it may have had its effect.
        if row["status"] == Status.WAITING and row["undo"] is None and not step.is_async:
            _cancel(tx, row)
        else:
            others.append(row)
    return others


def _cancel(tx: Transaction, row: Row) -> None:
    tx.memory.clear(Kind.RETRY, row["handler"], row["message_id"])
    tx.memory.revise(row["message_id"], row["handler"], status=Status.CANCELLED.value)


def _take_back(tx: Transaction, row: Row, unit: Unit) -> None:
    handler = unit.route.handler
    if handler.is_async:
        if row["undo"] == OWED:
            # Owed and not under way: a person or a new cause asks for it again.
            tx.memory.wake(Kind.UNDO, handler.name, row["message_id"], tx.now)
        else:
            due = _owe(tx, row, unit, at=tx.lost_at(), owner=tx.tools.owner)
            tx.effects.calls.append(_call(tx, handler, due, row))
        return
    _run(tx, handler, row, unit.envelope, unit.message)
    tx.memory.clear(Kind.UNDO, handler.name, row["message_id"])


def _run(
    tx: Transaction, handler: Handler[..., Any], step_row: Row, cause: Envelope, message: Message
) -> None:
    reach("undoing")
    for outcome, key in _outcomes(tx, handler, step_row):
        results = tx.invoke(handler, (message, outcome), cause, key)
        tx.announce(handler, cause, results)
    _done(tx, step_row)


def _owe(
    tx: Transaction, row: Row, unit: Unit, *, at: float | None = None, owner: str | None = None
) -> Row:
    handler = unit.route.handler
    due = tx.due_row(
        Kind.UNDO,
        handler.name,
        unit,
        message_id=row["message_id"],
        subject=row["subject"],
        at=at,
        owner=owner,
    )
    if row["undo"] is None:
        tx.memory.schedule(**due)
        tx.memory.revise(row["message_id"], row["handler"], undo=OWED)
    return due


def _call(tx: Transaction, handler: Handler[..., Any], due: Row, step_row: Row) -> Call:
    cause, message = tx.revive(due)
    runs = [
        ((message, outcome), tx.context(cause, key))
        for outcome, key in _outcomes(tx, handler, step_row)
    ]
    return Call(handler, due, cause, runs)


def _outcomes(
    tx: Transaction, handler: Handler[..., Any], step_row: Row
) -> Iterator[tuple[Message, str]]:
    """What is to be taken back, newest first, each with a key that every attempt shares."""
    wanted = {kind.__address__.wire_type for kind in handler.signature.outcomes}
    announced = list(enumerate(json.loads(step_row["outcome"])))
    for number, (wire_type, body) in reversed(announced):
        if wire_type in wanted:
            key = f"{step_row['message_id']}.undo"
            message = tx.message_of(wire_type, json.dumps(body).encode())
            yield message, key if number == 0 else f"{key}.{number}"


def _done(tx: Transaction, step_row: Row) -> None:
    tx.memory.revise(step_row["message_id"], step_row["handler"], undo=UNDONE)
    reach("undone")


def outcome_json(
    step: Handler[..., Any], results: Sequence[Message], bodies: Sequence[bytes]
) -> str | None:
    """What a step announced, as it is kept for its undo; None where nothing takes it back."""
    if not isinstance(step, Step) or step.taken_back_by is None:
        return None
    parts = (
        f'["{result.__address__.wire_type}",{body.decode()}]'
        for result, body in zip(results, bodies, strict=True)
    )
    return f"[{','.join(parts)}]"
