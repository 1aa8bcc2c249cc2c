"""What the outside world wrote down: the ledgers of the sandboxes, and the mails that went out."""

from __future__ import annotations

import email
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Books:
    """What was done for one order or trip."""

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
        with closing(sqlite3.connect(var / f"{name}.db")) as db:
            effects = db.execute("SELECT kind, order_id, reference, amount, offer FROM entries")
            for kind, what_for, reference, amount, offer in effects:
                books = found[what_for]
                of_money = kind in ("charge", "refund")
                getattr(books, f"{kind}s").append(amount if of_money else reference)
                if offer is not None:
                    books.offers[name, offer] += kind == "booking"
                    books.standing[name, offer] += 1 if kind == "booking" else -1
    return found


def mails(var: Path) -> list[str]:
    """The Message-IDs of the mails that were sent."""
    files = (var / "mail").glob("*.eml")
    sent = (email.message_from_bytes(file.read_bytes())["Message-ID"] for file in files)
    return [one.removeprefix("<").removesuffix("@choreo>") for one in sent]
