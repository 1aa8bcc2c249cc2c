"""Says whether the order flow kept its promises, once everything has settled.

Each check looks at one promise and names every order that breaks it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from system import SERVICES, Books, System

from choreo.dead import DeadLettered
from contracts.notifications import EmailSent
from contracts.orders import OrderCancelled, PlaceOrder
from contracts.payments import PaymentCaptured
from services.inventory import stock
from services.orders import book
from services.rewards import points


def audit(system: System, *, letters: int = 0) -> None:
    """Check every promise; `letters`: how many dead letters there must be."""
    state = {row["order_id"]: row["state"] for row in system.rows("orders", book.orders)}
    books = system.books()
    found = [
        *_ends(system, state),
        *_stock(system, state),
        *_outside(system, state, books),
        *_points(system, state),
        *_mails(system, state),
        *_doubled(system),
        *_left_over(system, letters),
        *_logs(system),
    ]
    assert not found, "\n".join(["the audit found:", *found])


def _ends(system: System, state: dict[str, str]) -> Iterator[str]:
    """Every flow ends once, and as `orders` remembers it."""
    accepted: set[str] = set()
    for flow, placed in system.placed.items():
        ends = system.ends.get(flow, [])
        if len(ends) != 1:
            yield f"{placed.order_id} ended {len(ends)} times: {ends} (flow {flow})"
        elif ends != ["rejected"]:
            accepted.add(placed.order_id)
            if state.get(placed.order_id) != ends[0]:
                yield f"{placed.order_id} is {state.get(placed.order_id)}, announced as {ends[0]}"
    if stray := system.ends.keys() - system.placed.keys():
        yield f"flows ended that nobody began: {stray}"
    if accepted != state.keys():
        yield f"orders knows other orders than were accepted: {accepted ^ state.keys()}"


def _stock(system: System, state: dict[str, str]) -> Iterator[str]:
    """What left the shelf is what fulfilled orders took, and nothing is held any more."""
    shelf = {row["sku"]: row["on_hand"] for row in system.rows("inventory", stock.stock)}
    rows = system.rows("inventory", stock.holds)
    if held := [row["order_id"] for row in rows if row["state"] != "shipped"]:
        yield f"stock is still held for {held}"
    taken: Counter[str] = Counter()
    for row in rows:
        taken[row["sku"]] += row["quantity"]
    due: Counter[str] = Counter()
    for placed in _accepted(system):
        if state.get(placed.order_id) == "fulfilled":
            for line in placed.lines:
                due[line.sku] += line.quantity
    for sku, at_first in stock.ON_HAND.items():
        if shelf[sku] + taken[sku] != at_first:
            yield f"{sku}: {shelf[sku]} on hand and {taken[sku]} taken, of {at_first}"
        if taken[sku] != due[sku]:
            yield f"{sku}: {taken[sku]} were shipped, for fulfilled orders of {due[sku]}"


def _outside(system: System, state: dict[str, str], books: dict[str, Books]) -> Iterator[str]:
    """Gateway and carrier did once what belongs to the order's end, and undid the rest."""
    totals = {row["order_id"]: row["total"] for row in system.rows("orders", book.orders)}
    for order_id in state.keys() | books.keys():
        end, did = state.get(order_id), books.get(order_id, Books())
        if end == "fulfilled":
            right = did.charges == [totals[order_id]] and not did.refunds
            right = right and len(did.bookings) == 1 and not did.recalls
            right = right and did.collections == did.bookings
        else:
            right = did.charges == did.refunds and did.charges in ([], [totals.get(order_id)])
            right = right and did.bookings == did.recalls and len(did.bookings) <= 1
            right = right and not did.collections
        if not right:
            yield f"{order_id} is {end}, but outside there are {did}"


def _points(system: System, state: dict[str, str]) -> Iterator[str]:
    """Points stand for the fulfilled orders of members, one for each whole 1.00."""
    totals = {row["order_id"]: row["total"] for row in system.rows("orders", book.orders)}
    due = {
        placed.order_id: totals[placed.order_id] // 100
        for placed in _accepted(system)
        if placed.customer.member and state.get(placed.order_id) == "fulfilled"
    }
    grants = system.rows("rewards", points.grants)
    granted = {row["order_id"]: row["points"] for row in grants}
    if wrong := dict(granted.items() ^ {one: many for one, many in due.items() if many}.items()):
        yield f"points are wrong for {wrong}"
    sums: Counter[str] = Counter()
    for row in grants:
        sums[row["customer_id"]] += row["points"]
    for row in system.rows("rewards", points.accounts):
        if row["points"] != sums[row["customer_id"]]:
            yield f"{row['customer_id']} has {row['points']} points, granted {sums}"


def _mails(system: System, state: dict[str, str]) -> Iterator[str]:
    """One mail for each payment that came in, unless the order died first, and for each death."""
    said = [one.causation for one in system.events(EmailSent)]
    if sorted(system.mails()) != sorted(map(str, said)):
        yield f"mails were sent for {sorted(system.mails())} and announced for {said}"
    answered = set(said)
    for one in system.events(OrderCancelled, source="/orders/"):
        if one.id not in answered:
            yield f"no apology for {one.subject}"
    for one in system.events(PaymentCaptured, source="/payments/"):
        if one.id not in answered and state.get(str(one.subject)) == "fulfilled":
            yield f"no confirmation for {one.subject}"


def _doubled(system: System) -> Iterator[str]:
    """No handler answered the same message twice."""
    answers: dict[tuple[str | None, str, str], list[str]] = defaultdict(list)
    for one in system.events():
        if one.type != DeadLettered.__address__.wire_type and not one.source.startswith("/system/"):
            answers[(one.causation, one.source, one.type)].append(one.id)
    for (cause, source, wire_type), ids in answers.items():
        if len(ids) > 1:
            yield f"{source} answered {cause} {len(ids)} times with {wire_type}"


def _left_over(system: System, letters: int) -> Iterator[str]:
    """Nothing is owed, waits, or was given up."""
    dead = [(name, row) for name in SERVICES for row in system.rows(name, "dead")]
    if len(dead) != letters:
        yield f"{len(dead)} dead letters, not {letters}:"
        yield from (f"  {name}.{row['handler']}: {row['reason']}" for name, row in dead)
    if len(system.events(DeadLettered)) != letters:
        yield f"{len(system.events(DeadLettered))} dead letters were announced, not {letters}"
    for name in SERVICES:
        for table in ("outbox", "due"):
            if rows := system.rows(name, table):
                yield f"{len(rows)} rows in the {table} of {name}: {rows[:3]}"
        if owed := [row for row in system.rows(name, "inbox") if row["undo"] == "owed"]:
            yield f"{name} owes {len(owed)} undos: {owed[:3]}"


def _logs(system: System) -> Iterator[str]:
    """Every line of a service is JSON; a line about a message says whose, and in which flow."""
    for said in system.logs:
        if said.name.partition("-")[0] not in SERVICES:
            continue
        if not said.entry:
            if not said.text.startswith(("ended with", "was ended")):  # the supervisor's
                yield f"{said.name} wrote: {said.text}"
        elif "message_id" in said.entry and not said.entry.keys() >= {"service", "flow", "handler"}:
            yield f"{said.name} left something out: {said.text}"


def _accepted(system: System) -> list[PlaceOrder]:
    """The orders that were not refused at the door."""
    return [
        placed
        for flow, placed in system.placed.items()
        if system.ends.get(flow, []) != ["rejected"]
    ]
