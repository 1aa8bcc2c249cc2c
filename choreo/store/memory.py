"""The statements on a service's memory: inbox and steps, outbox, due, tombstones, dead letters.

Every statement is built once, with bind parameters: building costs more than running.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from pydantic_core import to_json
from sqlalchemy import Connection, bindparam

from choreo.envelope import Envelope
from choreo.seams import Outgoing
from choreo.store.tables import dead, due, inbox, outbox, tombstones

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


def _by_key(table: sa.Table, *names: str) -> sa.ColumnElement[bool]:
    return sa.and_(*(table.c[name] == bindparam(f"k_{name}") for name in names))


def _any_or_equal(column: sa.Column[Any], name: str) -> sa.ColumnElement[bool]:
    """Everything where the parameter is None; the cast tells PostgreSQL what it would be."""
    given: sa.BindParameter[Any] = bindparam(name)
    return sa.or_(sa.cast(given, sa.String).is_(None), column == given)


_KNOWN = sa.select(
    inbox.c.message_id, inbox.c.handler, inbox.c.digest, inbox.c.status, inbox.c.crashes
).where(inbox.c.message_id.in_(bindparam("ids", expanding=True)))
_REMEMBER = inbox.insert()
_INBOX_KEY = _by_key(inbox, "message_id", "handler")
_REVISE = inbox.update().where(_INBOX_KEY)
_STEP = sa.select(inbox).where(_INBOX_KEY)
_STEPS = (
    sa.select(inbox)
    .where(_by_key(inbox, "flow", "handler"))
    .where(_any_or_equal(inbox.c.subject, "subject"))
    .order_by(inbox.c.at.desc())
)

_STORE_OUTGOING = outbox.insert()
_FORGET = outbox.delete().where(outbox.c.id.in_(bindparam("ids", expanding=True)))

_BURIED = sa.select(tombstones.c.flow, tombstones.c.handler, tombstones.c.subject).where(
    tombstones.c.flow.in_(bindparam("flows", expanding=True))
)
_BURY = tombstones.insert()

_DUE_KEY = _by_key(due, "kind", "handler", "message_id")
_SCHEDULE = due.insert()
_DUE = (
    sa.select(due).where(due.c.at <= bindparam("now")).order_by(due.c.at).limit(bindparam("most"))
)
_OUTSIDE = due.c.handler.in_(bindparam("outside", expanding=True))
_DUE_INSIDE, _DUE_OUTSIDE = _DUE.where(sa.not_(_OUTSIDE)), _DUE.where(_OUTSIDE)
_HAND_OUT = (
    due.update()
    .where(_DUE_KEY)
    .values(owner=bindparam("owner"), at=bindparam("at"), crashes=bindparam("crashes"))
)
_NEXT_DUE = sa.select(sa.func.min(due.c.at))
_RESCHEDULE = due.update().where(_DUE_KEY)
_CLEAR = due.delete().where(_DUE_KEY)
_MOVABLE = ("at", "owner", "attempts", "first_failed", "last_failed", "error")
_MOVE = (
    due.update()
    .where(_DUE_KEY, due.c.owner == bindparam("k_owner"))
    .values({name: bindparam(name) for name in _MOVABLE})
)
# One that is under way is left alone.
_WAKE = (
    due.update()
    .where(_DUE_KEY, due.c.owner.is_(None))
    .values(at=bindparam("at"), attempts=0, crashes=0)
)
_CLAIM = due.delete().where(_DUE_KEY, due.c.owner == bindparam("k_owner"))
_CLEAR_DEADLINES = (
    due.delete()
    .where(_by_key(due, "kind", "flow", "handler"))
    .where(_any_or_equal(due.c.subject, "subject"))
)
_IN_HAND = sa.select(due).where(due.c.owner.is_not(None))
_RELEASE_DUE = (
    due.update().where(due.c.owner == bindparam("k_owner")).values(at=bindparam("at"), owner=None)
)
_LEFT_BEHIND = (
    sa.select(outbox)
    .where(
        sa.or_(
            bindparam("alone", type_=sa.Boolean),
            outbox.c.owner == bindparam("owner"),
            outbox.c.lease_until < bindparam("now"),
        )
    )
    .order_by(outbox.c.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_TAKE_OVER = (
    outbox.update()
    .where(outbox.c.id == bindparam("k_id"))
    .values(owner=bindparam("owner"), lease_until=bindparam("lease_until"))
)
_RENEW = (
    outbox.update()
    .where(outbox.c.owner == bindparam("k_owner"))
    .values(lease_until=bindparam("lease_until"))
)

_PARK = dead.insert()
_HAS_LETTER = sa.select(dead.c.id).where(_by_key(dead, "digest", "message_id")).limit(1)


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
            (_REMEMBER, self._inbox),
            (_STORE_OUTGOING, self._outbox),
            (_SCHEDULE, self._due),
        ):
            if rows:
                self.db.execute(statement, rows)
                rows.clear()

    # Inbox and steps.

    def known(self, message_ids: Sequence[str]) -> dict[tuple[str, str], Known]:
        """What the inbox holds of these messages, by message id and handler."""
        rows = self.db.execute(_KNOWN, {"ids": message_ids})
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
        self.db.execute(
            _REVISE.values(**values), {"k_message_id": message_id, "k_handler": handler}
        )

    def step(self, message_id: str, handler: str) -> Row | None:
        """The inbox's whole row, or None."""
        self.flush()
        found = self.db.execute(_STEP, {"k_message_id": message_id, "k_handler": handler})
        row = found.mappings().one_or_none()
        return None if row is None else dict(row)

    def steps(self, flow: str, handler: str, subject: str | None) -> list[Row]:
        """Every run of a step in a flow, newest first; a subject narrows it to equal ones."""
        self.flush()
        found = self.db.execute(_STEPS, {"k_flow": flow, "k_handler": handler, "subject": subject})
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
            self.db.execute(_FORGET, {"ids": known})

    # Tombstones.

    def buried(self, flows: Iterable[str]) -> set[tuple[str, str, str]]:
        """Flow, handler and subject of what must not run any more."""
        rows = self.db.execute(_BURIED, {"flows": list(set(flows))})
        return {(row[0], row[1], row[2]) for row in rows}

    def bury(self, flow: str, handler: str, subject: str, at: float) -> None:
        """Keep a handler from running in a flow; the caller knows that it is not buried yet."""
        self.db.execute(_BURY, {"flow": flow, "handler": handler, "subject": subject, "at": at})

    # Due.

    def due(self, now: float, most: int, outside: Collection[str], room: int) -> list[Row]:
        """What is due, longest first; of the handlers that call outside at most `room`."""
        given = {"now": now, "outside": list(outside)}
        rows = list(self.db.execute(_DUE_INSIDE, {**given, "most": most}).mappings())
        if outside and room > 0:
            rows += self.db.execute(_DUE_OUTSIDE, {**given, "most": room}).mappings()
        return [dict(row) for row in rows]

    def hand_out(self, rows: Sequence[Row]) -> None:
        """Write down who has these in hand, and until when that is believed."""
        names = ("owner", "at", "crashes")
        if rows:
            self.db.execute(
                _HAND_OUT, [{**_key(row), **{name: row[name] for name in names}} for row in rows]
            )

    def next_due(self) -> float | None:
        """When the next thing is due."""
        found: float | None = self.db.execute(_NEXT_DUE).scalar()
        return found

    def schedule(self, **row: Any) -> None:
        """Enter a whole row of what must happen later (written at the next flush)."""
        self._due.append(row)

    def reschedule(self, row: Row, **values: Any) -> None:
        """Change something that is due."""
        self.flush()
        self.db.execute(_RESCHEDULE.values(**values), _key(row))

    def move(self, before: Row, after: Row) -> bool:
        """Change something that is due; False if somebody else did meanwhile."""
        self.flush()
        changed = {name: after[name] for name in _MOVABLE}
        found = self.db.execute(_MOVE, {**_key(before), "k_owner": before["owner"], **changed})
        return found.rowcount == 1

    def wake(self, kind: Kind, handler: str, message_id: str, now: float) -> None:
        """Make something due that waited for something else."""
        self.flush()
        key = {"k_kind": kind.value, "k_handler": handler, "k_message_id": message_id}
        self.db.execute(_WAKE, {**key, "at": now})

    def claim(self, row: Row) -> bool:
        """Take something out that is due; False if somebody else did, or moved it."""
        self.flush()
        return self.db.execute(_CLAIM, {**_key(row), "k_owner": row["owner"]}).rowcount == 1

    def clear(self, kind: Kind, handler: str, message_id: str) -> None:
        """Take something out, due or not."""
        self.flush()
        self.db.execute(
            _CLEAR, {"k_kind": kind.value, "k_handler": handler, "k_message_id": message_id}
        )

    def clear_deadlines(self, flow: str, handler: str, subject: str | None) -> None:
        """Take a flow's deadlines out, narrowed to a subject if there is one."""
        self.flush()
        self.db.execute(
            _CLEAR_DEADLINES,
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
        for found in self.db.execute(_IN_HAND).mappings().all():
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
            self.db.execute(_RENEW, {"k_owner": owner, "lease_until": lease_until})
        found = self.db.execute(
            _LEFT_BEHIND, {"owner": owner, "now": now, "alone": alone, "most": 5000}
        ).mappings()
        taken = [row for row in found if row["id"] not in in_hand]
        if taken:
            keys = [{"k_id": row["id"]} for row in taken]
            self.db.execute(
                _TAKE_OVER, [{**k, "owner": owner, "lease_until": lease_until} for k in keys]
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
        self.db.execute(_RENEW, {"k_owner": owner, "lease_until": now})
        self.db.execute(_RELEASE_DUE, {"k_owner": owner, "at": now})

    # Dead letters.

    def park(self, row: Row) -> None:
        """Enter a dead letter."""
        self.db.execute(_PARK, row)

    def has_letter(self, message_id: str, digest: bytes) -> bool:
        """Whether there is a letter of this message."""
        found = self.db.execute(_HAS_LETTER, {"k_digest": digest, "k_message_id": message_id})
        return found.first() is not None


def envelope_json(envelope: Envelope) -> str:
    """An envelope as the outbox keeps it."""
    return to_json({name: getattr(envelope, name) for name in Envelope.__slots__}).decode()


def _key(row: Row) -> Row:
    return {f"k_{name}": row[name] for name in ("kind", "handler", "message_id")}
