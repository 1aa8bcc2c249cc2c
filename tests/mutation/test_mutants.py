"""Tests that every deliberate fault in the services' code is found by the check or a rehearsal.

Each has the schedules and the seeds of the services without a fault, which are green.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from mutation.mutants import DIFFS, MUTANTS, Mutant
from mutation.patched import PROJECT, changes, copy, judge

pytestmark = pytest.mark.timeout(900)

#: Its time is up before it is paid, and whoever writes to the customer hears of that first.
PAID_TOO_LATE = (
    ("start", "orders.place", "", ()),
    ("deliver", "orders.place", "orders.place", ("orders.placed",)),
    ("deliver", "orders.placed", "inventory.reserve", ("inventory.stock_reserved",)),
    ("deadline", "orders.placed", "orders.expire", ("orders.cancelled",)),
    ("deliver", "orders.cancelled", "notifications.apologise", ("notifications.email_sent",)),
    ("deliver", "inventory.stock_reserved", "payments.capture", ("payments.captured",)),
    ("deliver", "payments.captured", "notifications.confirm", ("notifications.email_sent",)),
)

_each = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)


@pytest.mark.parametrize("command", sorted({one.command for one in MUTANTS}))
def test_nothing_is_found_where_there_is_no_fault(command: str, tmp_path: Path) -> None:
    verdict = judge(copy(tmp_path), command)
    assert not verdict.findings
    assert verdict.returncode == 0


@_each
def test_a_fault_is_found(mutant: Mutant, tmp_path: Path) -> None:
    verdict = judge(copy(tmp_path, mutant.diff), mutant.command)
    assert verdict.returncode == 1, f"choreo {mutant.command} is green, and {mutant.wrong}"
    assert any(re.match(mutant.says, one) for one in verdict.findings), verdict.findings


@_each
def test_a_fault_changes_what_the_code_does(mutant: Mutant, tmp_path: Path) -> None:
    copy(tmp_path, mutant.diff)
    files = {one.file for one in changes(mutant.diff)}
    assert files
    for file in files:
        before, after = (ast.parse((folder / file).read_text()) for folder in (PROJECT, tmp_path))
        assert ast.dump(before) != ast.dump(after)


def test_a_cancelled_order_is_not_confirmed(tmp_path: Path) -> None:
    """Few schedules go so: `unless` is found to be gone where one is led there."""
    steps = [
        {"do": do, "type": f"{kind}.v1", "about": 0, "to": to, "role": "step",
         "outcome": [f"{one}.v1" for one in said]}
        for do, kind, to, said in PAID_TOO_LATE
    ]  # fmt: skip
    trace = {"rule": "pivot", "flow": "order", "what": "it is confirmed", "trace": steps}
    replays = []
    [gone] = [one.diff for one in MUTANTS if one.name == "unless_gone"]
    for diff in ("", gone):
        folder = tmp_path / ("faulty" if diff else "sound")
        folder.mkdir()
        (copy(folder, diff) / "late.json").write_text(json.dumps(trace), encoding="utf-8")
        replays += judge(folder, "rehearse --trace late.json --runs 50").said["replays"]
    sound, faulty = replays
    [why] = sound["instead"]
    assert why.startswith("notifications.confirm answered nothing (cancelled before it began)")
    assert [one["kind"] for one in faulty["wrong"]] == ["confirmations"]


def test_every_diff_is_a_fault_of_the_table() -> None:
    assert sorted(one.name for one in MUTANTS) == sorted(one.stem for one in DIFFS.iterdir())


def test_a_change_needs_the_one_place_that_it_is_for(tmp_path: Path) -> None:
    diff = MUTANTS[0].diff
    copy(tmp_path, diff)
    [change, *_] = changes(diff)
    with pytest.raises(ValueError, match="has 0 times, and should have once"):
        change.apply((tmp_path / change.file).read_text())
