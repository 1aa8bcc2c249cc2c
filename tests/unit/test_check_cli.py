"""Tests `choreo check`: what it prints, what it exits with, and that its page shows the same."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import forked
import pytest
from test_check_services import anew
from test_docs import ROOT, copy, files_in
from typer.testing import CliRunner

from choreo import CannotRunError, Flow
from choreo.check import Choreography
from choreo.check import explore as exploring
from choreo.cli import app
from choreo.contract import contract_of
from services import inventory, notifications

_PAGE = ROOT / "docs/check.md"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SECONDS = re.compile(r"\d+\.\d\d( *│)$", re.MULTILINE)


def test_a_sound_flow() -> None:
    result = CliRunner().invoke(app, ["check", "registration"])
    assert result.exit_code == 0, result.output
    assert "registered, rejected" in result.stdout
    assert "nothing found: no run breaks a rule" in result.stdout
    assert not result.stderr


def test_a_flow_that_is_not_there() -> None:
    result = CliRunner().invoke(app, ["check", "registartion"])
    assert isinstance(result.exception, CannotRunError)
    assert str(result.exception) == "no flow 'registartion': did you mean 'registration'?"


def test_of_one_flow_only_what_it_comes_to_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    anew(monkeypatch)
    monkeypatch.setattr(inventory.hold, "taken_back_by", None)
    monkeypatch.setattr(inventory.hold, "final", None)
    result = CliRunner().invoke(app, ["check", "registration", "registration"])
    assert result.exit_code == 0
    assert result.stdout.count("registered, rejected") == 1
    result = CliRunner().invoke(app, ["check", "registration", "conducted_order"])
    assert result.exit_code == 1
    assert "no-undo  inventory.hold has neither" in result.stdout


def test_a_flow_that_is_too_large_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The findings of the signatures, of the other flows, and of its own so far."""
    anew(monkeypatch)
    monkeypatch.setattr(notifications.confirm, "unless", ())
    monkeypatch.setattr(inventory.hold, "taken_back_by", None)
    monkeypatch.setattr(inventory.hold, "final", None)
    monkeypatch.setattr(exploring, "MOST", 1000)
    result = CliRunner().invoke(app, ["check"])
    assert "no-undo  inventory.hold has neither" in result.stdout
    assert "pivot  order: notifications.confirm cannot be undone" in result.stdout
    assert "registered, rejected" in result.stdout
    assert "No flow comes to" not in result.stdout
    assert isinstance(result.exception, CannotRunError)
    assert str(result.exception).startswith("flow trip: there are more than ")


def test_what_is_found_is_told_to_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    anew(monkeypatch)
    monkeypatch.setattr(notifications.confirm, "unless", ())
    result = CliRunner().invoke(app, ["check", "order", "--json"])
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    [finding] = said["findings"]
    assert finding["rule"] == "pivot"
    assert finding["flow"] == "order"
    file, _, line = finding["place"].rpartition(":")
    assert "final=_FINAL" in (ROOT / file).read_text().splitlines()[int(line) - 1]
    start, *steps = finding["trace"]
    assert start == {
        "do": "start", "type": "orders.place.v1", "about": 0, "to": "", "role": "",
        "outcome": [], "note": "",
    }  # fmt: skip
    assert steps[0] == {
        "do": "deliver", "type": "orders.place.v1", "about": 0, "to": "orders.place",
        "role": "step", "outcome": ["orders.placed.v1"], "note": "",
    }  # fmt: skip
    assert steps[-1]["to"] == "notifications.confirm"
    _follows([start, *steps])
    [explored] = said["explored"]
    assert explored["ends"] == ["fulfilled", "cancelled", "rejected"]
    assert explored["transitions"] >= explored["states"] > 500


def _follows(trace: list[dict[str, object]]) -> None:
    """Whatever is delivered was sent before."""
    under_way = [trace[0]["type"]]
    for step in trace[1:]:
        assert step["type"] in under_way
        outcome = step["outcome"]
        assert isinstance(outcome, list)
        assert all(contract_of(kind) for kind in outcome)
        under_way += outcome


def test_a_project_without_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: list[Flow] = []
    found = Choreography.of.__func__  # type: ignore[attr-defined]

    def without(settings: object) -> Choreography:
        of: Choreography = found(Choreography, settings)
        return Choreography(of.services, nothing, of.contracts)

    monkeypatch.setattr(Choreography, "of", without)
    result = CliRunner().invoke(app, ["check"])
    assert "No flow is declared, so only the signatures were checked." in result.stdout
    # What starts a flow is then a command that nobody sends.
    assert "unpublished  nobody sends PlaceOrder (orders.place.v1)" in result.stdout
    assert result.exit_code == 1


def test_the_page_shows_what_the_command_prints(tmp_path: Path) -> None:
    copy(tmp_path, "contracts", "services")
    for name, text in files_in(ROOT / "docs/write-a-service.md").items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    blocks = _BLOCK.findall(_PAGE.read_text())
    added, in_a_test = [text for language, text in blocks if language == "python"]
    exec(in_a_test, found := dict[str, Any]())
    found["test_the_choreography_is_sound"]()
    [shown] = [text for language, text in blocks if not language]
    service = tmp_path / "services/wrapping/__init__.py"
    service.write_text(f"{service.read_text()}\n\n{added}")
    assert _timeless(_checked(tmp_path, 1)) == _timeless(shown)
    service.write_text(
        service.read_text().replace('be unsent")', 'be unsent", unless=OrderCancelled)')
    )
    assert "nothing found" in _checked(tmp_path, 0)


def _timeless(text: str) -> str:
    return _SECONDS.sub(r"0.00\1", text)


def _checked(folder: Path, code: int) -> str:
    env = os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"}
    ran = forked.choreo("check", "order", cwd=folder, env=env)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout
