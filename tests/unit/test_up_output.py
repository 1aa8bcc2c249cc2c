"""The merged log of `choreo up`."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
from typing import Literal

import pytest

from choreo.cli.up import _Output
from choreo.settings import Settings


class Disk(io.StringIO):
    """What the output is written to."""

    is_full = False

    def write(self, text: str) -> int:
        """Write, where there is room."""
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(text)


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


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize(
    "line",
    [
        '{"event": "x", "exception": {"type": "E"}}',
        '{"event": "x", "stack": 9}',
        '{"event": "x", "level": []}',
        '{"event": 1, "level": 30}',
        '{"event": ["consuming"], "exc_info": "x"}',
        "{}",
        '{"a": ' + "[" * 100_000,
    ],
)
def test_shows_also_what_is_no_entry_of_a_log(
    line: str, form: Literal["console", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    output = _Output(Settings(log_format=form), ["shop"])
    output("shop", line)
    output("shop", "next")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("shop   | ")
    assert len(said[0]) > len("shop   | ")
    assert said[1:] == ["shop   | next"]


def test_a_full_disk_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = _Output(Settings(), ["shop"])
    output.on_broken_pipe = pytest.fail
    disk = Disk()
    monkeypatch.setattr("sys.stdout", disk)
    disk.is_full = True
    output("shop", "one")
    output("shop", "two")
    disk.is_full = False
    output("shop", "three")
    assert disk.getvalue() == "shop   | three\n"
    assert capsys.readouterr().err == "choreo: the log is lost now: No space left on device\n"


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
