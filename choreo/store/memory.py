"""A service's memory: inbox and steps, outbox, due, tombstones, dead letters."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Connection

from choreo.envelope import Envelope
from choreo.seams import Outgoing
from choreo.store import statements as sql

Row = dict[str, Any]


class Status(StrEnum):
    """How far a message has come with one handler."""

    #: A `def` handler was begun by a process that may have died of it; the broker has it still.
    BEGUN = "begun"
    #: An outside call is under way, or will be tried again.
    STARTED = "started"
    #: A `def` handler will be tried again.
    WAITING = "waiting"
    DONE = "done"
    #: Consumed without running, or taken from the waiting, as its flow was undone.
    CANCELLED = "cancelled"
    #: A dead letter.
    PARKED = "parked"


class Kind(StrEnum):
    """What is due."""

    #: A route of a message, once more.
    RETRY = "retry"
    #: An outside call of a step: under way, or to be made again.
    CALL = "call"
    #: An undo that is owed to an outcome.
    UNDO = "undo"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class Known:
    """What the inbox says of a message and handler."""

    digest: bytes
    status: str
    crashes: int


class Memory:
    """A service's memory, within one open transaction."""

    def __init__(self, db: Connection) -> None:
        self.db = db
        self._inbox: list[Row] = []
        self._outbox: list[Row] = []
        self._due: list[Row] = []

    def flush(self) -> None:
        """Write what was gathered, each table in one statement."""
        for statement, rows in (
            (sql.REMEMBER, self._inbox),
            (sql.STORE_OUTGOING, self._outbox),
            (sql.SCHEDULE, self._due),
        ):
            if rows:
                self.db.execute(statement, rows)
                rows.clear()

    # Inbox and steps.

    def known(self, message_ids: Sequence[str]) -> dict[tuple[str, str], Known]:
        """What the inbox holds of these messages, by message id and handler."""
        rows = self.db.execute(sql.KNOWN, {"ids": message_ids})
        return {(row[0], row[1]): Known(row[2], row[3], row[4]) for row in rows}

    def remember(
        self,
        *,
        message_id: str,
        handler: str,
        digest: bytes,
        flow: str,
        subject: str | None,
        status: Status,
        outcome: str | None,
        crashes: int,
        at: float,
    ) -> None:
        """Enter a message that the inbox does not hold yet (written at the next flush)."""
        self._inbox.append(
            {
                "message_id": message_id,
                "handler": handler,
                "digest": digest,
                "flow": flow,
                "subject": subject,
                "status": status.value,
                "outcome": outcome,
                "undo": None,
                "crashes": crashes,
                "at": at,
            }
        )

    def revise(self, message_id: str, handler: str, **values: Any) -> None:
        """Change what the inbox holds of a message."""
        self.flush()
        key = {"k_message_id": message_id, "k_handler": handler}
        self.db.execute(sql.revise(values), {**key, **values})

    def step(self, message_id: str, handler: str) -> Row | None:
        """The inbox's whole row, or None."""
        self.flush()
        found = self.db.execute(sql.STEP, {"k_message_id": message_id, "k_handler": handler})
        row = found.mappings().one_or_none()
        return None if row is None else dict(row)

    def steps(self, flow: str, handler: str, subject: str | None) -> list[Row]:
        """Every run of a step in a flow, newest first; a subject narrows it to equal ones."""
        self.flush()
        found = self.db.execute(
            sql.STEPS, {"k_flow": flow, "k_handler": handler, "subject": subject}
        )
        return [dict(row) for row in found.mappings()]

    # Outbox.

    def store(self, message: Outgoing, envelope: str, owner: str, lease_until: float) -> None:
        """Put a message into the outbox (written at the next flush)."""
        self._outbox.append(
            {
                "id": message.envelope.id,
                "exchange": message.exchange,
                "routing_key": message.routing_key,
                "envelope": envelope,
                "body": message.body,
                "mandatory": message.mandatory,
                "owner": owner,
                "lease_until": lease_until,
            }
        )

    def forget(self, ids: Iterable[str]) -> None:
        """Take confirmed messages out of the outbox."""
        if known := list(ids):
            self.db.execute(sql.FORGET, {"ids": known})

    # Tombstones.

    def buried(self, flows: Iterable[str]) -> set[tuple[str, str, str]]:
        """Flow, handler and subject of what must not run any more."""
        rows = self.db.execute(sql.BURIED, {"flows": list(set(flows))})
        return {(row[0], row[1], row[2]) for row in rows}

    def bury(self, flow: str, handler: str, subject: str, at: float) -> None:
        """Keep a handler from running in a flow; the caller knows that it is not buried yet."""
        self.db.execute(sql.BURY, {"flow": flow, "handler": handler, "subject": subject, "at": at})

    # Due.

    def due(
        self, now: float, most: int, outside: Collection[str], room: int, *, deadlines_until: float
    ) -> list[Row]:
        """What is due, longest first; of the handlers that call outside at most `room`.

        Deadlines are among it only if their time was up by `deadlines_until`.
        """
        given = {
            "now": now, "outside": list(outside),
            "deadline": Kind.DEADLINE.value, "deadlines_until": deadlines_until,
        }  # fmt: skip
        rows = list(self.db.execute(sql.DUE_INSIDE, {**given, "most": most}).mappings())
        if outside and room > 0:
            rows += self.db.execute(sql.DUE_OUTSIDE, {**given, "most": room}).mappings()
        return [dict(row) for row in rows]

    def hand_out(self, rows: Sequence[Row]) -> None:
        """Write down who has these in hand, and until when that is believed."""
        names = ("owner", "at", "crashes")
        if rows:
            self.db.execute(
                sql.HAND_OUT, [{**_key(row), **{name: row[name] for name in names}} for row in rows]
            )

    def next_due(self) -> float | None:
        """When the next thing is due."""
        found: float | None = self.db.execute(sql.NEXT_DUE).scalar()
        return found

    def schedule(self, **row: Any) -> None:
        """Enter a whole row of what must happen later (written at the next flush)."""
        self._due.append(row)

    def reschedule(self, row: Row, **values: Any) -> None:
        """Change something that is due."""
        self.flush()
        self.db.execute(sql.reschedule(values), {**_key(row), **values})

    def move(self, before: Row, after: Row) -> bool:
        """Change something that is due; False if somebody else did meanwhile."""
        self.flush()
        changed = {name: after[name] for name in sql.MOVABLE}
        found = self.db.execute(sql.MOVE, {**_key(before), "k_owner": before["owner"], **changed})
        return found.rowcount == 1

    def wake(self, kind: Kind, handler: str, message_id: str, now: float) -> None:
        """Make something due that waited for something else."""
        self.flush()
        key = {"k_kind": kind.value, "k_handler": handler, "k_message_id": message_id}
        self.db.execute(sql.WAKE, {**key, "at": now})

    def claim(self, row: Row) -> bool:
        """Take something out that is due; False if somebody else did, or moved it."""
        self.flush()
        return self.db.execute(sql.CLAIM, {**_key(row), "k_owner": row["owner"]}).rowcount == 1

    def clear(self, kind: Kind, handler: str, message_id: str) -> None:
        """Take something out, due or not."""
        self.flush()
        self.db.execute(
            sql.CLEAR, {"k_kind": kind.value, "k_handler": handler, "k_message_id": message_id}
        )

    def clear_deadlines(self, flow: str, handler: str, subject: str | None) -> None:
        """Take a flow's deadlines out, narrowed to a subject if there is one."""
        self.flush()
        self.db.execute(
            sql.CLEAR_DEADLINES,
            {
                "k_kind": Kind.DEADLINE.value,
                "k_flow": flow,
                "k_handler": handler,
                "subject": subject,
            },
        )

    def reclaim_due(
        self,
        owner: str,
        in_hand: Collection[tuple[str, str, str]],
        now: float,
        lost_at: float,
        *,
        alone: bool,
    ) -> None:
        """Keep what is in hand, and make due at once what no living process has in hand.

        `alone`: no other instance can be alive; otherwise what others had in hand becomes due
        when it counts as lost.
        """
        for found in self.db.execute(sql.IN_HAND).mappings().all():
            row = dict(found)
            if (row["kind"], row["handler"], row["message_id"]) in in_hand:
                self.reschedule(row, at=lost_at, owner=owner)
            elif row["owner"] == owner:
                self.reschedule(row, at=now, owner=None)
            elif alone:
                # Its owner stays: that tells that a process was lost with it.
                self.reschedule(row, at=now)

    def reclaim_outgoing(
        self,
        owner: str,
        in_hand: Collection[str],
        now: float,
        lease_until: float,
        *,
        alone: bool,
    ) -> list[Outgoing]:
        """Take over the outbox rows of the dead and renew the leases of one's own."""
        if in_hand:
            self.db.execute(sql.RENEW, {"k_owner": owner, "lease_until": lease_until})
        found = self.db.execute(
            sql.LEFT_BEHIND, {"owner": owner, "now": now, "alone": alone, "most": 5000}
        ).mappings()
        taken = [row for row in found if row["id"] not in in_hand]
        if taken:
            keys = [{"k_id": row["id"]} for row in taken]
            self.db.execute(
                sql.TAKE_OVER, [{**k, "owner": owner, "lease_until": lease_until} for k in keys]
            )
        return [
            Outgoing(
                row["exchange"],
                row["routing_key"],
                Envelope(**json.loads(row["envelope"])),
                bytes(row["body"]),
                row["mandatory"],
            )
            for row in taken
        ]

    def release(self, owner: str, now: float) -> None:
        """Let others have at once what this instance leaves behind."""
        self.db.execute(sql.RENEW, {"k_owner": owner, "lease_until": now})
        self.db.execute(sql.RELEASE_DUE, {"k_owner": owner, "at": now})

    # Dead letters.

    def park(self, row: Row) -> None:
        """Enter a dead letter."""
        self.db.execute(sql.PARK, row)

    def has_letter(self, message_id: str, digest: bytes) -> bool:
        """Whether there is a letter of this message."""
        found = self.db.execute(sql.HAS_LETTER, {"k_digest": digest, "k_message_id": message_id})
        return found.first() is not None


def envelope_json(envelope: Envelope) -> str:
    """An envelope as the outbox keeps it."""
    names = Envelope.__slots__
    return to_json(
        {name: value for name in names if (value := getattr(envelope, name)) is not None}
    ).decode()


def _key(row: Row) -> Row:
    return {f"k_{name}": row[name] for name in ("kind", "handler", "message_id")}
