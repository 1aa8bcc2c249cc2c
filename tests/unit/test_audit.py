"""The auditor on evidence made by hand: what is wrong, what is open, what is not its to judge."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import timedelta
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from choreo import Ask, CannotRunError, Command, Conductor, Event, Service
from choreo.audit import (
    Announced,
    Evidence,
    Finding,
    Kept,
    Severity,
    judge,
    project_audits,
)
from choreo.audit.evidence import GRACE_S, UNSURE
from choreo.contract import Message, encode
from choreo.envelope import Envelope, timestamp
from choreo.settings import Settings

NOW = 1_800_000_000.0
AGO = NOW - 3600


class Opened(Event, topic="audited.opened", subject="door"):
    door: str


class Locked(Event, topic="audited.locked", subject="door"):
    door: str


class Rung(Event, topic="audited.rung", subject="door"):
    door: str


class Closed(Event, topic="audited.closed", subject="door"):
    door: str


class Paint(Command, topic="audited.paint", subject="door"):
    door: str


class Painted(Event, topic="audited.painted", subject="door"):
    door: str


class Scrape(Command, topic="audited.scrape", subject="door"):
    door: str


class Done(Event, topic="audited.done", subject="door"):
    door: str


class Failed(Event, topic="audited.failed", subject="door"):
    door: str


service = Service("doorman")


@service.on(final="said")
def ring(opened: Opened) -> tuple[Rung, ...] | None:
    """Ring, as often as need be."""


@service.deadline(Opened, within=timedelta(minutes=10), until=Closed)
def lock(opened: Opened) -> Locked:
    """Lock what nobody closes."""
    return Locked(door=opened.door)


def paint(begin: Opened) -> Paint:
    """Paint the door."""
    return Paint(door=begin.door)


def scrape(painted: Paint) -> Scrape:
    """Take the paint off."""
    return Scrape(door=painted.door)


def done(begin: Opened) -> Done:
    """Tell that it is done."""
    return Done(door=begin.door)


def failed(begin: Opened) -> Failed:
    """Tell that it is not."""
    return Failed(door=begin.door)


def event(
    identifier: str,
    said: Message,
    *,
    flow: str = "f",
    cause: str | None = None,
    source: str = "/stranger/x",
    at: float = AGO,
    **given: Any,
) -> Announced:
    wire_type = type(said).__address__.wire_type
    envelope = Envelope(identifier, wire_type, source, timestamp(at), flow, cause, "1", **given)
    return Announced(envelope, encode(said), at)


def some(**values: Any) -> Any:
    """A row of a table."""
    return SimpleNamespace(**values)


def row(handler: str, message_id: str = "f", status: str = "done", **given: Any) -> Any:
    values = {"flow": "f", "subject": "1", "outcome": None, "undo": None, "at": AGO + 1}
    return some(handler=handler, message_id=message_id, status=status, **values | given)


def due(kind: str, handler: str, message_id: str = "f", **given: Any) -> Any:
    values = {"flow": "f", "subject": "1", "at": NOW + 60, "owner": None, "attempts": 0,
              "error": None, "properties": "{}"}  # fmt: skip
    return some(kind=kind, handler=handler, message_id=message_id, **values | given)


OPENED = event("f", Opened(door="1"))
ARMED = row("lock.arm")
CLOSED = some(flow="f", handler="lock", subject="1", at=AGO + 2)


def evidence(
    *messages: Announced, settled: bool = False, waiting: int = 0, cut: bool = False, **kept: Any
) -> Evidence:
    """A doorman who keeps this; by default he has heard of one door, and that it was closed."""
    keeps = {"inbox": [row("ring"), ARMED], "tombstones": [CLOSED], **kept}
    return Evidence(
        Settings(), [Kept(service, **keeps)], messages or [OPENED], began=NOW,
        waiting={"doorman": waiting}, is_settled=settled, is_cut=cut,
    )  # fmt: skip


def found(evidence: Evidence) -> list[tuple[str, Severity]]:
    return [(one.kind, one.severity) for one in judge(evidence).findings]


WRONG, OPEN, NOTED = Severity.WRONG, Severity.OPEN, Severity.NOTED


def test_nothing_is_wrong() -> None:
    verdict = judge(evidence())
    assert verdict.findings == ()
    assert (verdict.flows, verdict.judged, verdict.messages, verdict.effects) == (1, 1, 1, 2)
    assert verdict.as_json()["wrong"] == 0


# Missing.


def test_what_nobody_handled_is_wrong_once_nothing_can_handle_it() -> None:
    """The queue is empty, the service is quiet, and it handled such events before."""
    late = event("late", Opened(door="1"), at=AGO + 60, flow="f", cause="f")
    inbox = [row("ring"), ARMED]
    assert found(evidence(OPENED, late, inbox=inbox)) == [("missing", WRONG)] * 2
    assert found(evidence(OPENED, late, inbox=inbox, waiting=3)) == [("missing", OPEN)] * 2
    busy = [*inbox, row("ring", "other", flow="g", at=NOW - 1)]
    assert found(evidence(OPENED, late, inbox=busy)) == [("missing", OPEN)] * 2
    assert found(evidence(OPENED, late, inbox=busy, settled=True)) == [("missing", WRONG)] * 2


def test_what_is_young_is_open() -> None:
    young = event("young", Opened(door="1"), at=NOW - GRACE_S / 2, cause="f")
    assert found(evidence(OPENED, young)) == [("missing", OPEN)] * 2
    assert found(evidence(OPENED, young, settled=True)) == [("missing", WRONG)] * 2


def test_what_came_before_a_handler_was_there_is_open() -> None:
    other = [row("ring", "g", flow="g", at=AGO + 999), ARMED]
    [one] = judge(evidence(inbox=other)).findings
    assert one.severity is OPEN
    assert "added later?" in one.what


def test_what_was_refused_is_not_missing() -> None:
    letter = some(id="l", kind="", handler="", message_id="f", flow="f", subject="1",
                             reason="no\nmore", last_failed=AGO)  # fmt: skip
    assert found(evidence(inbox=[], dead=[letter])) == [("dead letter", NOTED)]
    back = due("retry", "", "l", properties='{"message_id": "f"}')
    assert found(evidence(inbox=[], due=[back])) == []


# Lost, doubled, phantoms.


def test_where_any_number_is_allowed_equals_are_doubled() -> None:
    first, second = (
        event(name, Rung(door="1"), cause="f", source="/doorman/ring") for name in ("a", "b")
    )
    assert found(evidence(OPENED, first)) == []
    assert found(evidence(OPENED, first, second)) == [("doubled", WRONG)]


def test_the_same_message_may_come_again() -> None:
    assert found(evidence(OPENED, OPENED)) == []


def test_what_the_journal_has_lost_is_noted() -> None:
    rung = event("r", Rung(door="1"), cause="gone", source="/doorman/ring")
    inbox = [row("ring"), ARMED, row("ring", "gone")]
    assert found(evidence(OPENED, rung, inbox=inbox)) == [("gap", NOTED)]


def test_a_command_stands_behind_the_event_before_it() -> None:
    rung = event(
        "r", Rung(door="1"), cause="c", source="/doorman/ring",
        command="audited.paint.v1", last_event="f",
    )  # fmt: skip
    inbox = [row("ring"), ARMED, row("ring", "c")]
    assert found(evidence(OPENED, rung, inbox=inbox)) == []


def gave_up(body: bytes, source: str = "/doorman/dead") -> Announced:
    """What announces a dead letter of the doorman, about `f`."""
    envelope = Envelope("l", "choreo.dead_lettered.v1", source, timestamp(AGO), "f", "f", "1")
    return Announced(envelope, body, AGO)


def test_what_was_refused_is_not_missing_when_its_letter_is_gone() -> None:
    of = evidence(OPENED, gave_up(b'{"handler": ""}'), inbox=[])
    assert of.given_up == {("doorman", "", "f")}
    assert found(of) == []


@pytest.mark.parametrize(
    "letter",
    [
        gave_up(b"{}"),
        gave_up(b"[" * 100_000),
        gave_up(b'{"handler": []}'),
        gave_up(b"7"),
        event("l", Rung(door="1"), cause="f", source="/doorman/dead"),
    ],
    ids=["lacks", "deep", "odd", "number", "another type"],
)
def test_a_strangers_letter_gives_nothing_up(letter: Announced) -> None:
    of = evidence(OPENED, letter, inbox=[row("ring", "g", flow="g"), ARMED])
    assert of.given_up == set()
    assert ("phantom", WRONG) in found(of)


# Deadlines.


@pytest.mark.parametrize(
    ("kept", "wrong"),
    [
        ({"tombstones": []}, [("deadline lost", WRONG)]),
        ({"tombstones": [], "due": [due("deadline", "lock")]}, [("deadline", OPEN)]),
        ({"due": [due("deadline", "lock", at=NOW - 600)]}, [("deadline", OPEN)]),
        ({"inbox": [row("ring"), ARMED, row("lock.until", "c")], "tombstones": []},
         [("not stopped", WRONG), ("deadline lost", WRONG)]),
    ],
)  # fmt: skip
def test_a_deadline_is_due_or_ended(kept: Any, wrong: list[tuple[str, Severity]]) -> None:
    assert found(evidence(**kept)) == wrong


def test_a_deadline_that_has_run_has_said_so() -> None:
    locked = event("l", Locked(door="1"), cause="f", source="/doorman/lock")
    assert found(evidence(OPENED, locked, tombstones=[])) == []


# Runs of conductors.


def _conducted(run: str, task: str, *, limit: bool = True) -> list[str]:
    conducting = Service("painter")
    conductor = Conductor(
        conducting,
        "painting",
        starts=Opened,
        steps=[Ask(paint, good=Painted, within=timedelta(hours=2), undo=scrape)],
        ends=done,
        fails=failed,
    )
    assert conductor.name == "painting"
    rows = {"flow": "f", "subject": "1", "run": "f", "conductor": "painting"}
    kept = Kept(
        conducting,
        inbox=[row("begin_painting")],
        due=[due("deadline", "paint_late", "command")] if limit else [],
        runs=[some(**rows, status=run, failed_step=None, moved="")],
        tasks=[some(**rows, step="paint", status=task)],
    )
    verdict = judge(Evidence(Settings(), [kept], [OPENED], began=NOW))
    return [f"{one.severity}: {one.what}" for one in verdict.findings if one.kind == "run"]


def test_a_run_has_ended() -> None:
    assert _conducted("done", "done") == []
    assert _conducted("failed", "undone") == []
    assert _conducted("running", "asked") == ["open: is running, and waits for paint 1"]
    assert _conducted("running", "done") == ["wrong: is running, and waits for nothing"]
    assert _conducted("done", "asked") == ["wrong: has done, though paint is not answered"]
    assert _conducted("failed", "done") == ["wrong: has failed, and paint 1 is not taken back"]
    assert _conducted("running", "asked", limit=False) == [
        "wrong: awaits paint 1 without a time limit",
        "open: is running, and waits for paint 1",
    ]


# What is judged.


def test_what_the_journal_no_longer_holds_is_not_judged() -> None:
    many = [event(f"m{n}", Rung(door="1"), flow=f"m{n}", at=AGO + 10) for n in range(UNSURE)]
    late = event("new", Opened(door="1"), flow="new", at=AGO + 20)
    old = [row("ring"), ARMED]
    whole = evidence(*many, late, inbox=old)
    assert (len(whole.flows), len(whole.judged)) == (UNSURE + 2, UNSURE + 2)
    after = evidence(*many, late, inbox=old, cut=True)
    assert (len(after.flows), set(after.judged)) == (UNSURE + 2, {"new"})


def test_what_the_services_have_forgotten_is_not_judged() -> None:
    forgotten = NOW - Settings().retention_days * 86400 - 1
    old = event("f", Opened(door="1"), at=forgotten)
    assert found(evidence(old, inbox=[], tombstones=[], settled=True)) == []


# The project's own checks.


def test_they_are_asked_about_flows_that_have_ended() -> None:
    def check(of: Evidence) -> Iterable[Finding]:
        for flow in of.ended:
            yield Finding("seen", "", flow=flow)
        message, said = next(of.of(Opened))
        assert (message.id, said) == ("f", Opened(door="1"))
        assert of.begun_by("f") == {"doorman.ring", "doorman.lock.arm"}

    young = event("g", Rung(door="1"), flow="g", at=NOW - 1)
    waits = row("ring", "h", "waiting", flow="h")
    again = due("retry", "ring", "h", flow="h")
    of = evidence(OPENED, young, inbox=[row("ring"), ARMED, waits], due=[again])
    verdict = judge(of, [check])
    assert [(one.kind, one.flow) for one in verdict.findings] == [
        ("seen", "f"), ("under way", "h"),
    ]  # fmt: skip


@pytest.mark.parametrize("module", ["no_such_module", "choreo.errors"])
def test_a_module_without_checks_is_refused(module: str) -> None:
    with pytest.raises(CannotRunError, match=module):
        project_audits(module)


def test_twice_as_many_messages_are_no_more_than_twice_the_work() -> None:
    """Half of them are one long flow; to compare each with each would be four times the work."""
    _, once, twice = map(steps_to_judge, (2, 1000, 2000))  # the first fills caches
    assert twice < 2 * once


def steps_to_judge(count: int) -> int:
    """How many steps of the interpreter it takes to judge so many messages."""
    messages, inbox, tombstones = [], [], []
    for number in range(count // 2):
        flow = "long" if number % 2 else f"flow{number}"
        ids = f"o{number}", f"r{number}"
        messages += [
            event(ids[0], Opened(door="1"), flow=flow, cause="f"),
            event(ids[1], Rung(door="1"), flow=flow, cause=ids[0], source="/doorman/ring"),
        ]
        inbox += [row("ring", ids[0], flow=flow), row("lock.arm", ids[0], flow=flow)]
        tombstones.append(some(flow=flow, handler="lock", subject="1", at=AGO))
    steps = 0

    def count_step(frame: FrameType, event: str, _: object) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return count_step

    before = sys.gettrace()
    sys.settrace(count_step)
    try:
        verdict = judge(evidence(*messages, inbox=inbox, tombstones=tombstones))
    finally:
        sys.settrace(before)
    assert (verdict.messages, verdict.findings) == (count, ())
    return steps
