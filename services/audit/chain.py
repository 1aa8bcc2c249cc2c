"""The chain of records: each holds the digest of the one before it, and none is ever changed.

A digest is the SHA-256 of the record's other columns, in their order, as a JSON list.
"""

from __future__ import annotations

import hashlib
import json

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    insert,
    select,
)

from choreo import Context, Event
from choreo.contract import encode

#: What the first record has as the digest of the one before it.
NONE_BEFORE = "0" * 64

tables = MetaData()

records = Table(
    "records",
    tables,
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # 1, 2, 3 ...
    Column("message_id", String(255), nullable=False, unique=True),
    Column("type", String(255), nullable=False),
    Column("source", String(255), nullable=False),
    Column("flow", String(255), nullable=False),
    Column("causation", String(255)),
    Column("subject", String(255)),
    Column("time", String(40), nullable=False),
    Column("body", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
)

_last = select(records.c.number, records.c.digest).order_by(records.c.number.desc()).limit(1)
_append = insert(records)
_digested = [column.name for column in records.c if column is not records.c.digest]

#: Each may run at every start. SQLite deletes without a trigger what INSERT OR REPLACE replaces.
_SEALS = {
    "sqlite": (
        """
        CREATE TRIGGER IF NOT EXISTS records_keep_what_is_written BEFORE UPDATE ON records
        BEGIN SELECT RAISE(ABORT, 'a record is never changed'); END
        """,
        """
        CREATE TRIGGER IF NOT EXISTS records_keep_every_row BEFORE DELETE ON records
        BEGIN SELECT RAISE(ABORT, 'a record is never deleted'); END
        """,
        """
        CREATE TRIGGER IF NOT EXISTS records_are_not_replaced BEFORE INSERT ON records
        WHEN EXISTS (
            SELECT 1 FROM records WHERE number = NEW.number OR message_id = NEW.message_id
        )
        BEGIN SELECT RAISE(ABORT, 'a record is never replaced'); END
        """,
    ),
    "postgresql": (
        """
        CREATE OR REPLACE FUNCTION refuse_to_change_records() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'a record is never changed or deleted'; END $$
        """,
        """
        CREATE OR REPLACE TRIGGER records_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON records
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_records()
        """,
    ),
}


def seal(db: Connection) -> None:
    """Have the database refuse whatever is no new record."""
    for statement in _SEALS[db.dialect.name]:
        db.exec_driver_sql(statement)


def append(db: Connection, event: Event, context: Context) -> None:
    """Write an event down as the next record."""
    last = db.execute(_last).one_or_none()
    row = {
        "number": 1 if last is None else last.number + 1,
        "message_id": context.message_id,
        "type": context.type,
        "source": context.source,
        "flow": context.flow,
        "causation": context.causation,
        "subject": context.subject,
        "time": context.time.isoformat(),
        "body": encode(event).decode(),
        "previous": NONE_BEFORE if last is None else last.digest,
    }
    db.execute(_append, {**row, "digest": digest_of(row)})


def digest_of(row: RowMapping | dict[str, object]) -> str:
    """Seal a record: what its digest must be."""
    values = [row[name] for name in _digested]
    # Only who changed a record can have put in what JSON does not know: SQLite takes it.
    text = json.dumps(values, separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode()).hexdigest()
