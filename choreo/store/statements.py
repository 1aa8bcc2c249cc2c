"""The statements on a service's memory, each built once: building costs more than running.

Parameters that begin with `k_` are keys; the others are values.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from choreo.store.among import among
from choreo.store.tables import dead, due, inbox, outbox, tombstones


def _by_key(table: sa.Table, *names: str) -> sa.ColumnElement[bool]:
    return sa.and_(*(table.c[name] == bindparam(f"k_{name}") for name in names))


def _any_or_equal(column: sa.Column[Any], name: str) -> sa.ColumnElement[bool]:
    """Everything where the parameter is None; the cast tells PostgreSQL what it would be."""
    given: sa.BindParameter[Any] = bindparam(name)
    return sa.or_(sa.cast(given, sa.String).is_(None), column == given)


@cache
def _changing(table: sa.Table, key: sa.ColumnElement[bool], names: tuple[str, ...]) -> sa.Update:
    return table.update().where(key).values({name: bindparam(name) for name in names})


KNOWN = sa.select(
    inbox.c.message_id, inbox.c.handler, inbox.c.digest, inbox.c.status, inbox.c.crashes
).where(among(inbox.c.message_id, "ids"))
REMEMBER = inbox.insert()
INBOX_KEY = _by_key(inbox, "message_id", "handler")
STEP = sa.select(inbox).where(INBOX_KEY)
STEPS = (
    sa.select(inbox)
    .where(_by_key(inbox, "flow", "handler"))
    .where(_any_or_equal(inbox.c.subject, "subject"))
    .order_by(inbox.c.at.desc())
)

STORE_OUTGOING = outbox.insert()
FORGET = outbox.delete().where(among(outbox.c.id, "ids"))

BURIED = sa.select(tombstones.c.flow, tombstones.c.handler, tombstones.c.subject).where(
    among(tombstones.c.flow, "flows")
)
BURY = tombstones.insert()

DUE_KEY = _by_key(due, "kind", "handler", "message_id")
SCHEDULE = due.insert()
DUE = (
    sa.select(due)
    .where(due.c.at <= bindparam("now"))
    .where(sa.or_(due.c.kind != bindparam("deadline"), due.c.at <= bindparam("deadlines_until")))
    .order_by(due.c.at)
    .limit(bindparam("most"))
)
OUTSIDE = among(due.c.handler, "outside")
DUE_INSIDE, DUE_OUTSIDE = DUE.where(sa.not_(OUTSIDE)), DUE.where(OUTSIDE)
HAND_OUT = (
    due.update()
    .where(DUE_KEY)
    .values(owner=bindparam("owner"), at=bindparam("at"), crashes=bindparam("crashes"))
)
NEXT_DUE = sa.select(due.c.at).where(due.c.at.is_not(None)).order_by(due.c.at).limit(1)
CLEAR = due.delete().where(DUE_KEY)
MOVABLE = ("at", "owner", "attempts", "first_failed", "last_failed", "error")
MOVE = (
    due.update()
    .where(DUE_KEY, due.c.owner == bindparam("k_owner"))
    .values({name: bindparam(name) for name in MOVABLE})
)
# One that is under way is left alone.
WAKE = (
    due.update()
    .where(DUE_KEY, due.c.owner.is_(None))
    .values(at=bindparam("at"), attempts=0, crashes=0)
)
CLAIM = due.delete().where(DUE_KEY, due.c.owner == bindparam("k_owner"))
CLEAR_DEADLINES = (
    due.delete()
    .where(_by_key(due, "kind", "flow", "handler"))
    .where(_any_or_equal(due.c.subject, "subject"))
)
IN_HAND = sa.select(due).where(due.c.owner.is_not(None))
RELEASE_DUE = (
    due.update().where(due.c.owner == bindparam("k_owner")).values(at=bindparam("at"), owner=None)
)
LEFT_BEHIND = (
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
TAKE_OVER = (
    outbox.update()
    .where(outbox.c.id == bindparam("k_id"))
    .values(owner=bindparam("owner"), lease_until=bindparam("lease_until"))
)
RENEW = (
    outbox.update()
    .where(outbox.c.owner == bindparam("k_owner"))
    .values(lease_until=bindparam("lease_until"))
)

PARK = dead.insert()
HAS_LETTER = sa.select(dead.c.id).where(_by_key(dead, "digest", "message_id")).limit(1)


def revise(names: Iterable[str]) -> sa.Update:
    """Change these columns of a row of the inbox."""
    return _changing(inbox, INBOX_KEY, tuple(names))


def reschedule(names: Iterable[str]) -> sa.Update:
    """Change these columns of something that is due."""
    return _changing(due, DUE_KEY, tuple(names))
