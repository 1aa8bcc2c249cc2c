"""The books of a sandbox: every effect, and the answer that belongs to each idempotency key."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_TABLES = """
CREATE TABLE IF NOT EXISTS effects (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL,
    order_id TEXT NOT NULL, reference TEXT NOT NULL, amount INTEGER
);
CREATE INDEX IF NOT EXISTS effects_by_reference ON effects (reference, kind);
CREATE TABLE IF NOT EXISTS offers (effect INTEGER PRIMARY KEY, offer TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS offers_by_offer ON offers (offer);
CREATE VIEW IF NOT EXISTS entries AS
    SELECT effects.*, offers.offer FROM effects LEFT JOIN offers ON offers.effect = effects.id;
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, request TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is told: an HTTP status and a JSON body."""

    status: int
    body: dict[str, Any]


def refusal(status: int, error: str, reason: str) -> Answer:
    """Say no: `error` is a word for programs, `reason` a sentence for people."""
    return Answer(status, {"error": error, "reason": reason})


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that was really done in the world; doubled effects show as two rows."""

    kind: str
    #: The idempotency key of the request that did it.
    key: str
    #: What it was done for: an order, a trip.
    order_id: str
    #: The payment, the shipment or the booking.
    reference: str
    amount: int | None = None
    #: Of what a place was taken or given back.
    offer: str | None = None


class Ledger:
    """A SQLite file; what `once` has returned is on disk.

    All calls are made from one thread and none awaits, so requests are taken one at a time.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, making it and its folder where they are absent."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_TABLES)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def once(self, key: str, request: str, decide: Callable[[], Answer]) -> tuple[Answer, bool]:
        """Answer a request, and whether this is the first time.

        The first time `decide` is asked, and what it records and says is committed before this
        returns. From then on the key gets that answer, and another request under it a 422.
        """
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            known = self._db.execute("SELECT * FROM answers WHERE key = ?", [key]).fetchone()
            if known is None:
                answer = decide()
                self._db.execute(
                    "INSERT INTO answers VALUES (?, ?, ?, ?)",
                    [key, request, answer.status, json.dumps(answer.body)],
                )
                return answer, True
        if known["request"] != request:
            return refusal(422, "key_reused", f"key {key!r} belongs to another request"), False
        return Answer(known["status"], json.loads(known["body"])), False

    def record(self, effect: Effect) -> None:
        """Enter an effect; only `decide` does so, within the transaction of `once`."""
        entered = self._db.execute(
            "INSERT INTO effects (at, kind, key, order_id, reference, amount) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            [
                datetime.now(UTC).isoformat(timespec="milliseconds"),
                effect.kind,
                effect.key,
                effect.order_id,
                effect.reference,
                effect.amount,
            ],
        )
        if effect.offer is not None:
            self._db.execute("INSERT INTO offers VALUES (?, ?)", [entered.lastrowid, effect.offer])

    def find(self, kind: str, reference: str) -> Effect | None:
        """Look up the effect of this kind on a payment, a shipment or a booking."""
        row = self._db.execute(
            "SELECT kind, key, order_id, reference, amount, offer FROM entries "
            "WHERE kind = ? AND reference = ? ORDER BY id",
            [kind, reference],
        ).fetchone()
        return None if row is None else Effect(*row)

    def count(self, kind: str, offer: str) -> int:
        """Count the effects of this kind on an offer."""
        [number] = self._db.execute(
            "SELECT count(*) FROM entries WHERE kind = ? AND offer = ?", [kind, offer]
        ).fetchone()
        return int(number)

    def answer(self, key: str) -> Answer:
        """Look up the answer that a key was given; raises KeyError if it never was."""
        row = self._db.execute("SELECT status, body FROM answers WHERE key = ?", [key]).fetchone()
        if row is None:
            raise KeyError(key)
        return Answer(row["status"], json.loads(row["body"]))

    def rows(self) -> list[dict[str, Any]]:
        """Every effect, oldest first."""
        return [dict(row) for row in self._db.execute("SELECT * FROM entries ORDER BY id")]
