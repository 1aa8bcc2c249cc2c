"""The merged log of `choreo up`."""

from __future__ import annotations

import asyncio
import json

import pytest

from choreo.cli.up import _Output
from choreo.settings import Settings

CONSUMING = json.dumps({"service": "shop", "event": "consuming", "level": "info"})


def test_shows_each_line_as_it_is_behind_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    output = _Output(Settings(), ["shop", "warehouse"])
    output("shop", CONSUMING)
    output("warehouse", "Traceback [bold]")
    output("shop", "{no json")
    assert capsys.readouterr().out.splitlines() == [
        f"shop      | {CONSUMING}",
        "warehouse | Traceback [bold]",
        "shop      | {no json",
    ]


def test_writes_lines_for_people_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    output = _Output(Settings(log_format="console"), ["shop"])
    failed = {
        "service": "shop",
        "event": "failed",
        "level": "error",
        "exception": "one\ntwo",
        "n": 1,
    }
    output("shop", json.dumps(failed))
    first, *trace = capsys.readouterr().out.splitlines()
    assert "failed" in first
    assert "n=1" in first
    assert "service" not in first
    assert trace == ["shop   | one", "shop   | two"]


async def test_says_when_all_are_running_however_little_it_shows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = _Output(Settings(log_level="warning"), ["shop", "desk"])
    output.expect(["shop", "desk"])
    output("shop", CONSUMING)
    output("shop", CONSUMING)  # started again
    await asyncio.sleep(0)
    assert capsys.readouterr().out == ""
    output("desk", CONSUMING)
    await asyncio.sleep(0)
    output("desk", json.dumps({"event": "careful", "level": "warning"}))
    said, warned = capsys.readouterr().out.splitlines()
    assert said == "choreo | all 2 services are running; Ctrl-C stops them"
    assert "careful" in warned
