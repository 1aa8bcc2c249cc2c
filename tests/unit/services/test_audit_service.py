"""Audit: every event is heard, and whatever is done to a record shows."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import pytest
from service_samples import ANN, NOON, context, database, start
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

import contracts
from choreo import Connection, Context, Event
from choreo.contract import encode
from choreo.identity import Ids
from choreo.outgoing import make as make_message
from choreo.plan import make as make_plan
from choreo.record import delivery_of
from choreo.seams import SystemClock
from choreo.settings import Settings
from choreo.store import tables
from choreo.store.database import connect
from choreo.transaction import Tools, Transaction
from choreo.work import judge
from contracts.orders import OrderCancelled
from contracts.shipping import ShipmentCollected
from services.audit import chain, record, service
from services.audit.verify import check

ROOT = Path(__file__).parents[3]
EVENTS: tuple[Event, ...] = (
    OrderCancelled(order_id="o-1", customer=ANN, reason="no “tea” left"),
    ShipmentCollected(order_id="o-2", shipment_id="s-2"),
    OrderCancelled(order_id="o-3", customer=ANN, reason="declined"),
    ShipmentCollected(order_id="o-4", shipment_id="s-4"),
)


def surroundings(number: int) -> Context:
    return replace(
        context("key"),
        message_id=f"m-{number}",
        type=EVENTS[number - 1].__address__.wire_type,
        source="/orders/cancel",
        subject=f"o-{number}",
        causation=None if number == 1 else f"m-{number - 1}",
        time=NOON + timedelta(milliseconds=number),
    )


def hear(db: Connection) -> None:
    """Have every event recorded, as the runtime does it: it remembers them in the same database."""
    for number, event in enumerate(EVENTS, start=1):
        around = surroundings(number)
        record(event, around, db)
        row = {"message_id": around.message_id, "handler": "record", "digest": b"", "flow": "flow"}
        db.execute(insert(tables.inbox), {**row, "status": "done", "at": float(number)})


@pytest.fixture
def db() -> Iterator[Connection]:
    with database(service) as connection:
        tables.metadata.create_all(connection)
        yield connection


@pytest.fixture
def heard(db: Connection) -> Connection:
    hear(db)
    return db


def second(db: Connection) -> dict[str, Any]:
    """Record 2."""
    found = db.execute(select(chain.records).where(chain.records.c.number == 2))
    return dict(found.mappings().one())


def unseal(db: Connection) -> None:
    """Be somebody who may do everything in the database."""
    db.execute(text("CREATE TABLE copied AS SELECT * FROM records"))
    db.execute(text("DROP TABLE records"))
    db.execute(text("ALTER TABLE copied RENAME TO records"))


def test_no_event_of_any_context_is_missed() -> None:
    every = {
        found
        for module in pkgutil.iter_modules(contracts.__path__, "contracts.")
        for found in vars(import_module(module.name)).values()
        if isinstance(found, type) and issubclass(found, Event) and "__address__" in vars(found)
    }
    assert len(every) > 40
    assert set(record.signature.consumes) == every
    assert set(service.routes()) == every
    assert record.final


def test_a_record_says_everything_about_the_event(heard: Connection) -> None:
    first, second, *_ = heard.execute(select(chain.records)).mappings()
    said = {
        "number": 1,
        "message_id": "m-1",
        "type": "orders.cancelled.v1",
        "source": "/orders/cancel",
        "flow": "flow",
        "causation": None,
        "subject": "o-1",
        "time": "2026-03-01T12:00:00.001000+00:00",
        "body": EVENTS[0].model_dump_json(),
        "previous": "0" * 64,
    }
    as_list = json.dumps(list(said.values()), separators=(",", ":"))
    assert first == {**said, "digest": sha256(as_list.encode()).hexdigest()}
    assert (second["number"], second["previous"]) == (2, first["digest"])
    assert second["causation"] == "m-1"


def test_the_runtime_says_where_an_event_comes_from(db: Connection) -> None:
    tools = Tools(make_plan(service), Settings(), Ids(SystemClock(), Random(1)), Random(1), "test")
    cause = None
    for number, event in enumerate(EVENTS, start=1):
        sent = make_message(
            event,
            encode(event),
            identifier=f"m-{number}",
            time="2026-03-01T12:00:00.001Z",
            source="/orders/cancel",
            cause=cause,
        )
        cause = sent.envelope
        items = judge(tools.plan, delivery_of(sent), NOON.timestamp(), 1000)
        Transaction(tools, db, NOON.timestamp()).run(items)
    first, found = db.execute(select(chain.records).limit(2)).mappings()
    assert (first["causation"], found["causation"]) == (None, "m-1")
    assert (found["type"], found["source"]) == ("shipping.collected.v1", "/orders/cancel")
    assert (found["flow"], found["subject"]) == ("m-1", "o-2")
    assert found["time"] == "2026-03-01T12:00:00.001000+00:00"
    assert found["body"] == '{"order_id":"o-2","shipment_id":"s-2"}'
    assert check(db).records == len(EVENTS)
    db.execute(text("DROP TRIGGER records_keep_every_row"))
    db.execute(text("DELETE FROM records WHERE number = 4"))
    assert check(db).broken_at == 4


def test_no_two_records_have_the_same_digest_by_shifting_text(heard: Connection) -> None:
    row = dict(heard.execute(select(chain.records)).mappings().first() or {})
    shifted = {**row, "source": row["source"] + ",", "flow": row["flow"].removeprefix(",")}
    joined = {**row, "source": row["source"] + row["flow"], "flow": ""}
    nothing = {**row, "causation": ""}
    assert len({chain.digest_of(one) for one in (row, shifted, joined, nothing)}) == 4


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET body = '{}' WHERE number = 2",
        "UPDATE records SET digest = digest",
        "DELETE FROM records WHERE number = 4",
        "DELETE FROM records",
        "INSERT OR REPLACE INTO records SELECT * FROM records WHERE number = 1",
        "REPLACE INTO records SELECT 9, message_id, 1, 1, 1, 1, 1, 1, 1, 1, 1 FROM records",
    ],
)
def test_the_database_refuses_to_change_records(heard: Connection, statement: str) -> None:
    before = heard.execute(select(chain.records)).all()
    with pytest.raises(IntegrityError, match="a record is never"):
        heard.execute(text(statement))
    assert heard.execute(select(chain.records)).all() == before


def test_a_start_seals_again_and_keeps_the_records(heard: Connection) -> None:
    start(service, heard)
    assert check(heard).records == len(EVENTS)
    heard.execute(text("DROP TRIGGER records_keep_every_row"))
    start(service, heard)
    with pytest.raises(IntegrityError, match="a record is never deleted"):
        heard.execute(text("DELETE FROM records"))


def test_an_empty_chain_is_unbroken(db: Connection) -> None:
    verdict = check(db)
    assert (verdict.records, verdict.broken_at) == (0, None)


def test_a_chain_is_unbroken(heard: Connection) -> None:
    verdict = check(heard)
    last = heard.scalars(select(chain.records.c.digest).order_by(chain.records.c.number)).all()[-1]
    assert (verdict.records, verdict.digest, verdict.broken_at) == (4, last, None)
    assert str(verdict) == f"unbroken: 4 records, the last with the digest {last}"


@pytest.mark.parametrize("column", [one.name for one in chain.records.c if one.name != "number"])
@pytest.mark.parametrize("value", ["forged", None, b"\xff"])
def test_a_changed_record_shows(heard: Connection, column: str, value: object) -> None:
    unseal(heard)
    changed = text(f"UPDATE records SET {column} = :value WHERE number = 3")
    heard.execute(changed, {"value": value})
    verdict = check(heard)
    assert (verdict.records, verdict.broken_at) == (2, 3)
    assert verdict.why == "changed: its digest is not that of what it says"


def test_a_record_made_anew_shows_at_the_next(heard: Connection) -> None:
    unseal(heard)
    row = second(heard)
    row["body"] = row["body"].replace("s-2", "s-9")
    values = {"body": row["body"], "digest": chain.digest_of(row)}
    heard.execute(
        text("UPDATE records SET body = :body, digest = :digest WHERE number = 2"), values
    )
    verdict = check(heard)
    assert verdict.broken_at == 3
    assert verdict.why == "changed: it does not hold the digest of the record before it"


@pytest.mark.parametrize(
    ("numbers", "broken_at", "why"),
    [
        ([1], 1, "missing: the next that is there is 2"),
        ([2, 3], 2, "missing: the next that is there is 4"),
        ([4], 4, "missing: no record tells of message m-4, which the service has handled"),
        ([1, 2, 3, 4], 1, "missing: no record tells of message m-1, which the service has handled"),
    ],
)
def test_a_missing_record_shows(
    heard: Connection, numbers: list[int], broken_at: int, why: str
) -> None:
    unseal(heard)
    for number in numbers:
        heard.execute(text("DELETE FROM records WHERE number = :number"), {"number": number})
    verdict = check(heard)
    assert (verdict.broken_at, verdict.why) == (broken_at, why)
    assert str(verdict) == f"broken at record {broken_at}: {why}"


def copied(db: Connection, **changes: Any) -> None:
    """Enter record 2 again, with these changes."""
    db.execute(insert(chain.records), second(db) | changes)


def same_record(db: Connection) -> None:
    copied(db)


def same_number(db: Connection) -> None:
    copied(db, message_id="m-9")


def next_number(db: Connection) -> None:
    copied(db, number=5)


def perfect_forgery(db: Connection) -> None:
    row = second(db) | {"number": 5, "previous": check(db).digest}
    copied(db, **row | {"digest": chain.digest_of(row)})


@pytest.mark.parametrize(
    ("double", "broken_at", "why"),
    [
        (same_record, 2, "doubled: another record tells of its message m-2"),
        (same_number, 2, "doubled: another record has its number"),
        (next_number, 5, "doubled: another record tells of its message m-2"),
        (perfect_forgery, 5, "doubled: another record tells of its message m-2"),
    ],
)
def test_a_doubled_record_shows(
    heard: Connection, double: Callable[[Connection], None], broken_at: int, why: str
) -> None:
    unseal(heard)
    double(heard)
    verdict = check(heard)
    assert (verdict.broken_at, verdict.why) == (broken_at, why)


def verify(var: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.audit.verify", *options],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "CHOREO_VAR": str(var)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_program_says_it_with_its_exit_code(tmp_path: Path) -> None:
    nothing = verify(tmp_path)
    assert nothing.returncode == 2
    assert nothing.stderr.startswith("verify: audit has no records in sqlite:///")

    engine = connect(f"sqlite:///{tmp_path}/audit.db")
    with engine.begin() as db:
        tables.metadata.create_all(db)
        chain.tables.create_all(db)
        start(service, db)
        hear(db)
    sound = verify(tmp_path, "--json")
    assert (sound.returncode, sound.stderr) == (0, "")
    said = json.loads(sound.stdout)
    assert (said["unbroken"], said["records"], said["broken_at"]) == (True, 4, None)

    with engine.begin() as db:
        unseal(db)
        db.execute(text("UPDATE records SET subject = 'o-9' WHERE number = 3"))
    broken = verify(tmp_path)
    assert broken.returncode == 1
    assert broken.stdout == (
        "broken at record 3: changed: its digest is not that of what it says\n"
    )

    (tmp_path / "audit.db").write_bytes(b"no database, whatever its name says" * 100)
    unreadable = verify(tmp_path)
    assert unreadable.returncode == 2
    assert unreadable.stderr.startswith("verify: the database of audit cannot be read: ")


def test_the_program_shows_an_example() -> None:
    shown = verify(ROOT, "--help")
    assert shown.returncode == 0
    assert "python -m services.audit.verify --json" in shown.stdout
