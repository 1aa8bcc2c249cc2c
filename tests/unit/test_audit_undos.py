"""The auditor counts what an undo has announced by the outcomes that it took back."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from choreo import Event, Service
from choreo.audit import Announced, Evidence, Kept, judge
from choreo.contract import Message, encode
from choreo.envelope import Envelope, timestamp
from choreo.settings import Settings

NOW = 1_800_000_000.0
AGO = NOW - 3600


class Booked(Event, topic="seats.booked"):
    pass


class SeatKept(Event, topic="seats.kept"):
    pass


class Cancelled(Event, topic="seats.cancelled"):
    pass


class Freed(Event, topic="seats.freed"):
    pass


service = Service("seats")


@service.on
def keep(booked: Booked) -> tuple[SeatKept, SeatKept]:
    """Keep two seats."""
    return SeatKept(), SeatKept()


@keep.undo
def free(cause: Cancelled, kept: SeatKept) -> Freed:
    """Free one seat."""
    return Freed()


def event(identifier: str, said: Message, cause: str | None, source: str) -> Announced:
    wire_type = type(said).__address__.wire_type
    envelope = Envelope(identifier, wire_type, source, timestamp(AGO), "f", cause, None)
    return Announced(envelope, encode(said), AGO)


def row(handler: str, message_id: str, **given: Any) -> Any:
    values = {"flow": "f", "subject": None, "outcome": None, "undo": None, "at": AGO + 1}
    return SimpleNamespace(
        handler=handler, message_id=message_id, status="done", **{**values, **given}
    )


@pytest.mark.parametrize(("times", "found"), [(1, ["lost"]), (2, []), (3, ["doubled"])])
def test_it_says_the_same_for_each_of_two_outcomes(times: int, found: list[str]) -> None:
    kept = "seats.kept.v1"
    messages = [
        event("f", Booked(), None, "/stranger/x"),
        *(event(f"kept-{number}", SeatKept(), "f", "/seats/keep") for number in range(2)),
        event("over", Cancelled(), "f", "/stranger/x"),
        *(event(f"freed-{number}", Freed(), "over", "/seats/free") for number in range(times)),
    ]
    inbox = [
        row("keep", "f", outcome=json.dumps([[kept, {}], [kept, {}]]), undo="done"),
        row("free", "over"),
    ]
    buried: Any = SimpleNamespace(flow="f", handler="keep", subject="", at=AGO + 2)
    evidence = Evidence(
        Settings(), [Kept(service, inbox=inbox, tombstones=[buried])], messages, began=NOW,
        waiting={"seats": 0}, is_settled=True, is_cut=False,
    )  # fmt: skip
    assert [one.kind for one in judge(evidence).findings] == found
