"""What the outside world wrote down: the ledgers of the sandboxes, where no inbox protects."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from choreo.audit import Evidence, Finding, Severity
from services.orders import book
from services.reservations.trips import trips

#: Each sandbox and the service that calls it.
SANDBOXES = {
    "gateway": "payments", "carrier": "shipping",
    "airline": "providers", "hotel": "providers", "car": "providers",
}  # fmt: skip


@dataclass(slots=True)
class Books:
    """What was done outside for one order or trip."""

    charges: list[int] = field(default_factory=list)
    refunds: list[int] = field(default_factory=list)
    #: Of shipments, and of places that providers have.
    bookings: list[str] = field(default_factory=list)
    recalls: list[str] = field(default_factory=list)
    collections: list[str] = field(default_factory=list)
    cancellations: list[str] = field(default_factory=list)
    #: How often each provider's offer was booked, and how many of these bookings stand.
    offers: Counter[tuple[str, str]] = field(default_factory=Counter)
    standing: Counter[tuple[str, str]] = field(default_factory=Counter)


def read(var: Path, sandboxes: Iterable[str]) -> dict[str, Books]:
    """The ledgers of these sandboxes, by order or trip."""
    found: dict[str, Books] = defaultdict(Books)
    for name in sandboxes:
        with closing(sqlite3.connect(f"file:{var / name}.db?mode=ro", uri=True)) as db:
            effects = db.execute("SELECT kind, order_id, reference, amount, offer FROM entries")
            for kind, what_for, reference, amount, offer in effects:
                books = found[what_for]
                of_money = kind in ("charge", "refund")
                getattr(books, f"{kind}s").append(amount if of_money else reference)
                if offer is not None:
                    books.offers[name, offer] += kind == "booking"
                    books.standing[name, offer] += 1 if kind == "booking" else -1
    return found


def kept(evidence: Evidence) -> dict[str, Books]:
    """The ledgers that are here, by order or trip."""
    var = evidence.settings.var
    return read(var, (name for name in SANDBOXES if (var / f"{name}.db").exists()))


def is_here(evidence: Evidence, *names: str) -> bool:
    """Whether these ledgers can be read, as far as anybody calls the sandboxes."""
    return all(
        (evidence.settings.var / f"{name}.db").exists()
        for name in names
        if SANDBOXES[name] in evidence.kept
    )


def there(evidence: Evidence) -> Iterator[Finding]:
    """The ledgers can be read."""
    for name, service in SANDBOXES.items():
        if service in evidence.kept and not is_here(evidence, name):
            yield Finding(
                "not audited",
                f"there is no ledger {evidence.settings.var / name}.db: what {service} did "
                "outside is not known here",
                severity=Severity.NOTED,
            )


def strangers(evidence: Evidence) -> Iterator[Finding]:
    """Nothing was done outside for an order or a trip that nobody knows."""
    done = kept(evidence)
    known = {row["order_id"] for row in evidence.rows("orders", book.orders)}
    known |= {row["trip_id"] for row in evidence.rows("reservations", trips)}
    for about in done.keys() - known:
        yield Finding("outside", f"this was done for {about}, which nobody knows: {done[about]}")
