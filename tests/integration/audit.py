"""Says whether the processes kept their promises, once everything has settled.

Each check looks at one promise and names every flow that breaks it. Here is what holds for every
process; `audit_orders`, `audit_trips` and `audit_accounts` know the rest.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import audit_accounts
import audit_orders
import audit_trips
from starts import ENDS
from system import System

from audits.ledgers import Books
from choreo.dead import DeadLettered
from choreo.store.tables import runs, tasks
from contracts.accounts import AccountRegistered
from contracts.notifications import EmailSent
from contracts.orders import OrderCancelled, OrderPaid
from contracts.payments import PaymentCaptured
from contracts.travel import TripCancelled, TripConfirmed
from services.rewards import points

#: How runs and their commands stand that are not at their end.
_OPEN = ("running", "undoing", "asked")


def audit(system: System, *, letters: int = 0) -> None:
    """Check every promise; `letters`: how many dead letters there must be."""
    books = system.books()
    found = [*_ends(system)]
    if "orders" in system.services:
        found += audit_orders.check(system, books)
    if "reservations" in system.services:
        found += audit_trips.check(system, books)
    found += audit_accounts.check(system)
    found += [
        *_money(system, books),
        *_points(system),
        *_mails(system),
        *repeated(system),
        *_left_over(system, letters),
        *_conducted(system),
        *_logs(system),
    ]
    assert not found, "\n".join(["the audit found:", *found])


def _ends(system: System) -> Iterator[str]:
    """Every flow ends once, in one of the ways of its process."""
    for flow, command in system.placed.items():
        ends = system.ends.get(flow, [])
        if len(ends) != 1 or ends[0] not in ENDS[type(command)].values():
            yield f"{command} ended {len(ends)} times: {ends} (flow {flow})"
    if stray := system.ends.keys() - system.placed.keys():
        yield f"flows ended that nobody began: {stray}"


def _money(system: System, books: dict[str, Books]) -> Iterator[str]:
    """The money that was kept is that of fulfilled orders and confirmed trips."""
    kept = sum(sum(did.charges) - sum(did.refunds) for did in books.values())
    due = sum(audit_orders.due(system).values()) + sum(audit_trips.due(system).values())
    if kept != due:
        yield f"{kept} of money was kept, for fulfilled orders and confirmed trips of {due}"


def _points(system: System) -> Iterator[str]:
    """Points stand for the orders and trips of members that ended well, one for each whole 1.00."""
    if "rewards" not in system.services:
        return
    grants = system.rows("rewards", points.grants)
    granted = {(row["kind"], row["reference"]): row["points"] for row in grants}
    paid = [("order", one, cents) for one, cents in audit_orders.due(system).items()]
    paid += [("trip", one, cents) for one, cents in audit_trips.due(system).items()]
    members = audit_orders.members(system) | audit_trips.members(system)
    right = {
        (kind, one): cents // 100 for kind, one, cents in paid if one in members and cents >= 100
    }
    if wrong := granted.items() ^ right.items():
        yield f"points are wrong for {sorted(wrong)}"
    sums: Counter[str] = Counter()
    for row in grants:
        sums[row["customer_id"]] += row["points"]
    for row in system.rows("rewards", points.accounts):
        if row["points"] != sums[row["customer_id"]]:
            yield f"{row['customer_id']} has {row['points']} points, granted {sums}"


def _mails(system: System) -> Iterator[str]:
    """One mail for whatever asks for one; a payment's is spared if the order died first."""
    if "notifications" not in system.services:
        return
    said = [one.causation for one in system.events(EmailSent)]
    if sorted(system.mails()) != sorted(map(str, said)):
        yield f"mails were sent for {sorted(system.mails())} and announced for {said}"
    fulfilled = audit_orders.due(system).keys()
    for kind in (OrderCancelled, TripConfirmed, TripCancelled, AccountRegistered,
                 PaymentCaptured, OrderPaid):  # fmt: skip
        for one in system.events(kind):
            spared = kind in (PaymentCaptured, OrderPaid) and one.subject not in fulfilled
            if one.id not in said and not spared and not one.source.startswith("/system/"):
                yield f"no mail about {kind.__name__} {one.id} of {one.subject or one.flow}"


def repeated(system: System) -> Iterator[str]:
    """No handler answered the same message twice."""
    answers: dict[tuple[str | None, ...], list[str]] = defaultdict(list)
    for one, _ in system.heard.values():
        if one.type != DeadLettered.__address__.wire_type and not one.source.startswith("/system/"):
            answers[one.causation, one.source, one.type, one.subject].append(one.id)
    for (cause, source, wire_type, subject), ids in answers.items():
        if len(ids) > 1:
            yield f"{source} answered {cause} {len(ids)} times with {wire_type} about {subject}"


def _left_over(system: System, letters: int) -> Iterator[str]:
    """Nothing is owed, waits, or was given up."""
    dead = [(name, row) for name in system.services for row in system.rows(name, "dead")]
    if len(dead) != letters:
        yield f"{len(dead)} dead letters, not {letters}:"
        yield from (f"  {name}.{row['handler']}: {row['reason']}" for name, row in dead)
    if len(system.events(DeadLettered)) != letters:
        yield f"{len(system.events(DeadLettered))} dead letters were announced, not {letters}"
    for name in system.services:
        for table in ("outbox", "due"):
            if rows := system.rows(name, table):
                yield f"{len(rows)} rows in the {table} of {name}: {rows[:3]}"
        if owed := [row for row in system.rows(name, "inbox") if row["undo"] == "owed"]:
            yield f"{name} owes {len(owed)} undos: {owed[:3]}"


def _conducted(system: System) -> Iterator[str]:
    """No conductor has a run that goes on, or a command whose answer it awaits."""
    for name in system.services:
        for table in (runs, tasks):
            if rows := [row for row in system.rows(name, table) if row["status"] in _OPEN]:
                yield f"{len(rows)} rows in {table.name} of {name} are open: {rows[:3]}"


def _logs(system: System) -> Iterator[str]:
    """Every line of a service is JSON; a line about a message says whose, and in which flow."""
    for said in system.logs:
        name = said.name.partition("-")[0]
        if name not in system.services:
            continue
        if not said.entry:
            # The supervisor's, or that it cannot run: there may be no broker when it starts.
            if not said.text.startswith(("ended with", "was ended", f"{name}: ")):
                yield f"{said.name} wrote: {said.text}"
        elif "message_id" in said.entry and not said.entry.keys() >= {"service", "flow", "handler"}:
            yield f"{said.name} left something out: {said.text}"
