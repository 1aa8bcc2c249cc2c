"""What becomes of a message when a handler fails: tried again later, or a dead letter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from choreo import dead, undo
from choreo.errors import Reject, Retry, describe
from choreo.store.database import OutageError, is_outage
from choreo.store.memory import Kind, Row, Status
from choreo.work import Due, Effects, Finished, Item, Unit

if TYPE_CHECKING:
    from choreo.transaction import Transaction


def record(tx: Transaction, item: Item, error: Exception) -> Effects:
    """Write down that an item failed; a transaction of its own."""
    tx.load((item,))
    match item:
        case Unit():
            _of_unit(tx, item, error)
        case Due(row):
            of_due(tx, row, error)
        case Finished(call):
            of_due(tx, call.row, error)
        case _:
            raise error
    return tx.finish()


def mark(tx: Transaction, unit: Unit, crashes: int | None) -> tuple[bool, int]:
    """Count that a process begins on a redelivered message, in a transaction of its own.

    `crashes`: how many died on it, as found before the answer to this transaction was lost; None
    the first time. Gives whether it is to be begun, and that number: a message that killed its
    process again and again is parked.
    """
    tx.load((unit,))
    known = tx.known.get((unit.envelope.id, unit.route.key))
    if known is not None and known.status != Status.BEGUN:
        return True, known.crashes  # a duplicate, which the inbox recognises
    if crashes is None:
        crashes = 0 if known is None else known.crashes
    goes_on = crashes < tx.tools.settings.crashes
    if goes_on:
        tx.remember(unit, Status.BEGUN, crashes=crashes + 1)
    else:
        _park_unit(tx, unit, died(crashes), None)
    tx.finish()
    return goes_on, crashes


def park_deadly(tx: Transaction, unit: Unit, row: Row) -> None:
    """A message killed its process again and again when it was tried again."""
    if tx.memory.claim(row):
        _park_unit(tx, unit, died(row["crashes"]), None)


def died(times: int) -> str:
    """Why a message is parked that no process survives."""
    return f"its process died {times} times while handling it"


def _of_unit(tx: Transaction, unit: Unit, error: Exception) -> None:
    attempts = 1 + (unit.due["attempts"] if unit.due else 0)
    known = tx.known.get((unit.envelope.id, unit.route.key))
    if unit.due is None and known is not None and known.status != Status.BEGUN:
        return  # another instance handled it, or this failure is recorded already
    if unit.due is not None and not tx.memory.claim(unit.due):
        return
    if _is_hopeless(tx, error, attempts):
        _park_unit(tx, unit, _reason(error, attempts), error)
        return
    delay = _backoff(tx, error, attempts)
    first = unit.due["first_failed"] if unit.due else None
    row = tx.due_row(
        Kind.RETRY,
        unit.route.key,
        unit,
        at=tx.now + delay,
        attempts=attempts,
        first_failed=first or tx.now,
        last_failed=tx.now,
        error=describe(error),
    )
    tx.memory.schedule(**row)
    tx.remember(unit, Status.WAITING)
    _note_retry(tx, row, delay)


def _park_unit(tx: Transaction, unit: Unit, reason: str, error: Exception | None) -> None:
    if unit.route.role == "undo":
        undo.for_cause(tx, unit, give_up=True)
    dead.park_unit(tx, unit, reason, error)
    tx.remember(unit, Status.PARKED)


def of_due(tx: Transaction, row: Row, error: Exception) -> None:
    """A deadline, an undo or an outside call failed."""
    attempts = row["attempts"] + 1
    if _is_hopeless(tx, error, attempts):
        dead.park_due(tx, {**row, "attempts": attempts}, _reason(error, attempts), error)
        return
    delay = _backoff(tx, error, attempts)
    moved = {
        **row,
        "at": tx.now + delay,
        "owner": None,
        "attempts": attempts,
        "first_failed": row["first_failed"] or tx.now,
        "last_failed": tx.now,
        "error": describe(error),
    }
    if tx.memory.move(row, moved):
        _note_retry(tx, moved, delay)


def _is_hopeless(tx: Transaction, error: Exception, attempts: int) -> bool:
    return isinstance(error, Reject) or attempts >= tx.tools.settings.attempts


def _backoff(tx: Transaction, error: Exception, attempts: int) -> float:
    """Seconds until the next attempt: exponential, with jitter over its second half."""
    if isinstance(error, Retry) and error.after_s is not None:
        return error.after_s
    settings = tx.tools.settings
    longest = min(settings.retry_longest_s, settings.retry_first_s * 2.0 ** (attempts - 1))
    return longest * (0.5 + tx.tools.random.random() / 2)


def _note_retry(tx: Transaction, row: Row, delay_s: float) -> None:
    facts = {
        "handler": row["handler"],
        "flow": row["flow"],
        "message_id": row["message_id"],
        "attempt": row["attempts"],
        "again_in_s": round(delay_s, 3),
        "error": row["error"],
    }
    tx.effects.notes.append(("warning", "failed, will be tried again", facts))


def concerns_database(error: BaseException | None) -> bool:
    """Whether the database failed, also where a handler wrapped its error.

    What a handler asks for by `Retry` or `Reject` is its own decision, whatever it has caught.
    """
    if isinstance(error, Retry | Reject):
        return False
    while error is not None:
        if isinstance(error, OutageError) or is_outage(error):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def _reason(error: Exception, attempts: int) -> str:
    if isinstance(error, Reject):
        return f"rejected: {describe(error).removeprefix('Reject: ')}"
    times = "once" if attempts == 1 else f"{attempts} times"
    return f"failed {times}, last with {describe(error)}"
