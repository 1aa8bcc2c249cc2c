"""What a stranger writes is shown, and cannot steer the terminal of whoever looks at it."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from choreo import Ask, Command, Conductor, Event, Service, discovery, log
from choreo.audit import Finding, Verdict
from choreo.cli import audit, dead, frame, runs
from choreo.cli.doctor import _table
from choreo.cli.watch import Lines
from choreo.doctor import Finding as Found
from choreo.doctor import State
from choreo.record import properties_of
from choreo.seams import Delivery
from choreo.settings import Settings
from choreo.store import tables
from choreo.store.database import connect
from choreo.terminal import escaped, shown

#: Sets the title, clears the screen, deletes, turns the line round.
STEERS = "\x1b]0;mine\x07\x9b2J\x7f\u202e"
ID = "01a1f81d-ebf3-7000-845a-43cfb832a096"


class Wash(Command, topic="terminal.wash", subject="car"):
    car: str


class Scrub(Command, topic="terminal.scrub", subject="car"):
    car: str


class Scrubbed(Event, topic="terminal.scrubbed", subject="car"):
    car: str


def scrub(wash: Wash) -> Scrub:
    return Scrub(car=wash.car)


def tell(wash: Wash) -> None: ...


washer = Service("washer")
Conductor(
    washer, "washing", starts=Wash, ends=tell, fails=tell,
    steps=[Ask(scrub, good=Scrubbed, within=timedelta(hours=1))],
)  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a project with one service, whose database is empty."""
    found = Settings(database_url=f"sqlite:///{tmp_path}/{{service}}.db")
    monkeypatch.setattr(frame, "prepare", lambda: found)
    monkeypatch.setattr(discovery, "services", lambda _: [washer])
    with connect(found.database_of("washer")).begin() as db:
        tables.metadata.create_all(db)
        db.execute(tables.owner.insert(), {"service": "washer"})
    return found


def keep_letter(settings: Settings, body: bytes) -> None:
    came = Delivery(
        body, STEERS, f"x{STEERS}.v1", None, STEERS, {STEERS: STEERS}, {}, "e", STEERS,
        redelivered=False, tag=1,
    )  # fmt: skip
    letter = {
        "id": ID, "handler": "", "kind": "", "message_id": STEERS, "flow": STEERS,
        "subject": f"one{STEERS}\ntwo", "reason": f"no type {STEERS}", "error": f"at\n{STEERS}",
        "attempts": 1, "first_failed": 1.8e9, "last_failed": 1.8e9, "digest": b"",
        "properties": properties_of(came), "body": body,
    }  # fmt: skip
    with connect(settings.database_of("washer")).begin() as db:
        db.execute(tables.dead.insert(), letter)


def keep_run(settings: Settings, subject: str) -> None:
    about = {"conductor": "washing", "flow": STEERS, "subject": subject}
    with connect(settings.database_of("washer")).begin() as db:
        db.execute(
            tables.runs.insert(),
            {**about, "run": "1", "status": "running", "stage": 1, "start": "[]", "moved": "now"},
        )
        db.execute(
            tables.tasks.insert(),
            {
                **about, "run": "1", "step": "scrub", "status": "asked", "since": "1", "number": 1,
                "answered": 0, "command": "[]",
            },
        )  # fmt: skip


def steers(said: str) -> bool:
    return any(one in said for one in STEERS if not one.isprintable())


@given(st.text())
def test_text_keeps_its_lines_and_loses_nothing_but_its_power(text: str) -> None:
    safe = escaped(text)
    assert not steers(safe)
    assert safe.count("\n") == text.count("\n")
    assert escaped(safe) == safe
    assert "\n" not in shown(text)
    assert not steers(shown(text))


@given(st.recursive(st.text(), lambda some: st.lists(some) | st.dictionaries(st.text(), some)))
def test_json_stays_the_same_json(value: object) -> None:
    assert json.loads(escaped(json.dumps(value, indent=2, ensure_ascii=False))) == value


def test_one_line_may_be_cut() -> None:
    assert shown("word" * 10, longest=9) == "wordword…"


@pytest.mark.parametrize(
    ("body", "last"),
    [
        (f"no {STEERS}\njson".encode(), "json"),
        (json.dumps({"a": STEERS}, ensure_ascii=False).encode(), "}"),
        (b"\x9b2J", r"\x9b2J"),
        (b"[" * 100_000, "[" * 100_000),
    ],
    ids=["text", "json", "bytes", "deep"],
)
def test_a_dead_letter(
    settings: Settings, capsys: pytest.CaptureFixture[str], body: bytes, last: str
) -> None:
    keep_letter(settings, body)
    dead.show(ID[:8])
    said = capsys.readouterr().out
    assert not steers(said)
    assert "subject       one" in said
    assert "\ntwo" not in said
    assert f"\n{last}\n\ntraceback\nat\n" in said
    for group in (False, True):
        dead.list_letters(group=group)
        said = capsys.readouterr().out
        assert not steers(said)
        assert "no type" in said
    dead.list_letters(as_json=True)
    [one] = json.loads(capsys.readouterr().out)
    assert one["message_id"] == one["flow"] == STEERS
    dead.drop_letters(every=True, dry_run=True)
    said = capsys.readouterr().out
    assert said.startswith("would drop 01a1f81d of washer: x")
    assert not steers(said)


def test_a_run(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    subject = f"a:car:{STEERS}"
    keep_run(settings, subject)
    runs.show_runs()
    said = capsys.readouterr().out
    assert not steers(said)
    assert said.count("a:car:") == 2
    runs.show_runs(as_json=True)
    said = capsys.readouterr().out
    assert not steers(said)
    assert [(one["subject"], one["flow"]) for one in json.loads(said)] == [(subject, STEERS)]


def test_what_an_audit_and_a_doctor_found(capsys: pytest.CaptureFixture[str]) -> None:
    finding = Finding("phantom", f"this {STEERS}", flow=STEERS, message=STEERS, handler=STEERS)
    audit._print(Verdict(1, 1, 1, 1, (), (finding,)), alone=False)
    report = [("owed", Found(State.WRONG, f"it {STEERS}", STEERS, STEERS))]
    frame.console().print(_table(report))
    said = capsys.readouterr().out
    assert "phantom" in said
    assert "wrong" in said
    assert not steers(said)


def test_a_log_for_people() -> None:
    try:
        raise KeyError
    except KeyError as error:
        error.add_note(STEERS)
        line: dict[str, Any] = {"event": STEERS, "flow": STEERS, "n": 3, "exc_info": error}
    said = log.for_people(colors=False)(None, "error", line)
    assert isinstance(said, str)
    assert "Traceback" in said
    assert "n=3" in said
    assert not steers(said)


def test_what_passes_is_told_to_a_machine_as_it_is() -> None:
    file = io.StringIO()
    body = {"name": f":car: {STEERS}"}
    passing = Delivery(
        json.dumps(body).encode(), "1", "a.b.v1", None, None, {}, {}, "a", "a.b.v1",
        redelivered=False, tag=1,
    )  # fmt: skip
    Lines(Console(file=file, soft_wrap=True), as_json=True).take(passing, "")
    assert json.loads(file.getvalue())["body"] == body
