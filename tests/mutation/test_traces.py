"""Tests that what the check finds in services with a fault really happens when they run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mutation.mutants import MUTANTS
from mutation.patched import copy, judge

pytestmark = pytest.mark.long

#: The fault, the flow in which the check finds it, and a word for what is wrong in the end. Where a
#: mail goes out before its service has heard that the order is cancelled, no invariant calls it so.
REPLAYED = (
    ("deadline_gone", "order", "end"),
    ("past_the_pivot", "order", "parcels"),
    ("two_deciders", "order", "end"),
    ("unless_gone", "order", None),
    ("unless_gone", "conducted_order", None),
    ("undo_of_one_way", "trip", "places"),
    ("conducted_without_undo", "conducted_order", "stock"),
)


def _replays(folder: Path, flow: str, found: Any, runs: int) -> tuple[int, list[dict[str, Any]]]:
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
    verdict = judge(folder, f"rehearse --trace found.json --flow {flow} --runs {runs}")
    return verdict.returncode, verdict.said["replays"]


@pytest.mark.parametrize(("name", "flow", "kind"), REPLAYED, ids=str)
def test_a_finding_replays(name: str, flow: str, kind: str | None, tmp_path: Path) -> None:
    [mutant] = [one for one in MUTANTS if one.name == name]
    found = judge(copy(tmp_path, mutant.diff), f"check {flow}").said
    traces = [one for one in found["findings"] if one["trace"]]
    returncode, replays = _replays(tmp_path, flow, found, 100)
    assert returncode == 1
    assert [one["rule"] for one in replays] == [one["rule"] for one in traces]
    for replay, finding in zip(replays, traces, strict=True):
        assert replay["happens"], replay["instead"]
        assert replay["steps"] == len(finding["trace"])
        assert replay["flows"]
        if kind is None:
            assert not replay["wrong"]
        else:
            assert kind in {one["kind"] for one in replay["wrong"]}


def test_a_finding_does_not_replay_without_the_fault(tmp_path: Path) -> None:
    """The services do otherwise, and where they do is said."""
    faulty, sound = tmp_path / "faulty", tmp_path / "sound"
    for folder in (faulty, sound):
        folder.mkdir()
    [mutant] = [one for one in MUTANTS if one.name == "past_the_pivot"]
    found = judge(copy(faulty, mutant.diff), "check order").said
    [finding] = [one for one in found["findings"] if one["trace"]]
    returncode, [replay] = _replays(copy(sound), "order", finding, 20)
    assert returncode == 0
    assert not replay["happens"]
    assert replay["steps"] == len(finding["trace"]) - 1
    assert list(replay["instead"]) == ["no shipping.booked waits for shipping.collect"]
