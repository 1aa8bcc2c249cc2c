"""A flow ends once, as the process that its first message starts declares."""

from __future__ import annotations

import pytest
from test_audit import (
    NOW,
    OPENED,
    Closed,
    Locked,
    Opened,
    Rung,
    event,
    evidence,
    row,
)

from choreo import Flow, Service
from choreo.audit import (
    Announced,
    Evidence,
    Kept,
    Severity,
    ends,
    judge,
)
from choreo.contract import Message
from choreo.settings import Settings

watch = Flow("watch", starts=Opened, ends={"locked": Locked, "closed": Closed})
porter = Service("porter")
opening = Flow("opening", starts=Opened, ends={"rung": Rung})
closing = Flow("closing", starts=Closed, ends={"locked": Locked})


@porter.on(final="said")
def either(begun: Opened | Closed) -> None:
    """Hear both."""


@porter.on(final="said")
def also(begun: Opened) -> None:
    """Hear one of them."""


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ([Closed(door="1")], []),
        ([], ["watch ended 0 times: in no way"]),
        ([Rung(door="1")], ["watch ended 0 times: in no way"]),
        (
            [Closed(door="1"), Locked(door="1")],
            ["watch ended 2 times: audited.closed.v1, audited.locked.v1"],
        ),
    ],
)
def test_a_flow_ends_once_as_its_process_declares(said: list[Message], wrong: list[str]) -> None:
    answers = [event(f"m{number}", one, cause="f") for number, one in enumerate(said)]
    verdict = judge(evidence(OPENED, *answers, settled=True), [ends([watch])])
    found = [one for one in verdict.findings if one.kind == "end"]
    assert {one.what for one in found} == set(wrong)
    assert all(one.severity is Severity.WRONG for one in found)
    assert {one.handler for one in found} <= {"doorman.ring", "doorman.lock.arm"}


def test_what_begins_it_says_which_process_it_is() -> None:
    """A handler may begin several, several may hear one's beginning, one may be another's part."""
    rung, closed = event("m", Rung(door="1"), cause="f"), event("c", Closed(door="1"), cause="f")
    locked = event("l", Locked(door="1"), cause="c")
    assert _ends_found(OPENED, rung) == []
    assert _ends_found(OPENED) == ["opening ended 0 times: in no way"]
    assert _ends_found(OPENED, closed, locked, rung) == []


def _ends_found(*messages: Announced) -> list[str]:
    kept = Kept(porter, inbox=[row("either"), row("also")])
    of = Evidence(Settings(), [kept], messages, began=NOW, is_settled=True)
    findings = judge(of, [ends([closing, opening])]).findings
    return [one.what for one in findings if one.kind == "end"]
