"""`choreo ... | head`: who is read no more ends quietly, and has found nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from test_docs import ROOT

#: As a shell says it of a program that SIGPIPE has ended.
UNREAD = 128 + signal.SIGPIPE


def unread(command: str, *, errors: bool = False) -> subprocess.CompletedProcess[str]:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, "-m", "choreo", *command.split()],
            cwd=ROOT, stdout=writer, stderr=writer if errors else subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    "command",
    ["--help", "--version", "map", "map --json", "rehearse --runs 1", "rehearse --runs 1 --json"],
)
def test_output_that_nobody_reads_ends_a_command_quietly(command: str) -> None:
    """Long or short, a table or plain, written at once or only in the end."""
    done = unread(command)
    assert (done.returncode, done.stderr) == (UNREAD, "")


@pytest.mark.parametrize("command", ["map nosuch", "nosuch"])
def test_an_error_that_nobody_reads_is_no_traceback(command: str) -> None:
    """As `2>&1 | head` has it."""
    assert unread(command, errors=True).returncode == UNREAD


def test_what_is_read_is_there() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "choreo", "map", "--json"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == "{\n"
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == UNREAD
