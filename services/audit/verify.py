"""Says whether the chain of records is unbroken: `python -m services.audit.verify --help`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Connection, RowMapping, func, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from choreo import CannotRunError, DefinitionError
from choreo.cli import frame
from choreo.errors import describe
from choreo.process import CANNOT_RUN
from choreo.settings import Settings
from choreo.store.database import connect
from choreo.store.memory import Status
from choreo.store.tables import inbox

from . import record, service
from .chain import NONE_BEFORE, digest_of, records

_nth = func.row_number().over(partition_by=records.c.message_id, order_by=records.c.number)
_numbered = select(records.c.number, _nth.label("nth")).subquery()
_first_doubled = select(func.min(_numbered.c.number)).where(_numbered.c.nth > 1)
_in_order = select(records).order_by(records.c.number).execution_options(yield_per=1000)
#: What the runtime remembers as handled was recorded in the same transaction.
_unrecorded = (
    select(func.min(inbox.c.message_id))
    .outerjoin(records, records.c.message_id == inbox.c.message_id)
    .where(
        inbox.c.handler == record.name,
        inbox.c.status == Status.DONE.value,
        records.c.number.is_(None),
    )
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check of the chain came to."""

    #: How many records there are, up to the break.
    records: int
    #: Of the last of these. Noted elsewhere, it tells later whether the chain was made anew.
    digest: str
    broken_at: int | None = None
    why: str | None = None

    def __str__(self) -> str:
        if self.broken_at is None:
            return f"unbroken: {self.records} records, the last with the digest {self.digest}"
        return f"broken at record {self.broken_at}: {self.why}"


def check(db: Connection) -> Verdict:
    """Go along the chain, up to its end or to the first record that is wrong."""
    doubled = db.scalar(_first_doubled)
    number, digest = 0, NONE_BEFORE
    for row in db.execute(_in_order).mappings():
        if row["number"] > number + 1:
            gap = f"missing: the next that is there is {row['number']}"
            return Verdict(number, digest, number + 1, gap)
        if fault := _fault(row, number, digest, doubled):
            return Verdict(number, digest, row["number"], fault)
        number, digest = row["number"], row["digest"]
    if (lost := db.scalar(_unrecorded)) is not None:
        gap = f"missing: no record tells of message {lost}, which the service has handled"
        return Verdict(number, digest, number + 1, gap)
    return Verdict(number, digest)


def _fault(row: RowMapping, before: int, digest: str, doubled: int | None) -> str | None:
    """What is wrong with a record that follows this number and digest, if anything is."""
    if row["number"] <= before:
        return "doubled: another record has its number"
    if row["number"] == doubled:
        return f"doubled: another record tells of its message {row['message_id']}"
    if row["digest"] != digest_of(row):
        return "changed: its digest is not that of what it says"
    if row["previous"] != digest:
        return "changed: it does not hold the digest of the record before it"
    return None


@contextmanager
def _reading(settings: Settings) -> Iterator[Connection]:
    """The service's database, without its lock: it goes on meanwhile."""
    engine = connect(settings.database_of(service.name))
    absent = CannotRunError(
        f"{service.name} has no records in {engine.url.render_as_string(hide_password=True)}: "
        "run the service ('choreo up'), or correct CHOREO_VAR or CHOREO_DATABASE_URL"
    )
    if engine.dialect.name == "sqlite" and not Path(f"{engine.url.database}").exists():
        raise absent
    try:
        with engine.connect() as db:
            if not inspect(db).has_table(records.name):
                raise absent
            yield db
    except SQLAlchemyError as error:
        raise CannotRunError(
            f"the database of {service.name} cannot be read: {describe(error)}"
        ) from error


def main(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check that the chain of records is unbroken, while the service runs or not.

    It finds records that were changed, are missing or doubled. Who could write to the database
    may have made the whole chain anew: note the last digest elsewhere, and look for it later.

    Exit code 0: unbroken. 1: broken. 2: there is nothing to check, or it cannot be read.
    """
    with _reading(frame.prepare()) as db:
        verdict = check(db)
    unbroken = verdict.broken_at is None
    print(json.dumps({"unbroken": unbroken, **asdict(verdict)}) if as_json else verdict)
    if not unbroken:
        raise typer.Exit(frame.FOUND_SOMETHING)


if __name__ == "__main__":
    app = typer.Typer(
        add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False
    )
    app.command(epilog="Example: python -m services.audit.verify --json")(main)
    try:
        app(prog_name="python -m services.audit.verify")
    except (CannotRunError, DefinitionError) as error:
        print(f"verify: {error}", file=sys.stderr)
        sys.exit(CANNOT_RUN)
