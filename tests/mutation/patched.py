"""A copy of the project with a fault in it, and the commands that judge it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked

PROJECT = Path(__file__).parents[2]
#: A command that has used a core for so long runs away, and is killed.
RUNAWAY_S = 300
#: What is copied, for a fault to be put in; the rest of the project is used as it is.
_COPIED = ("contracts", "services")
_SHARED = ("audits", "choreo", "pyproject.toml", "rehearsals", "sandboxes")


@dataclass(frozen=True, slots=True)
class Change:
    """One place of the project's code, with other text there."""

    file: str
    old: str
    new: str

    def apply(self, text: str) -> str:
        """The file's text, changed; raises ValueError unless there is one place for it."""
        if (found := text.count(self.old)) != 1:
            raise ValueError(f"{self.file} has {found} times, and should have once:\n{self.old}")
        return text.replace(self.old, self.new)


def changes(diff: str) -> Iterator[Change]:
    """Read a unified diff whose hunks have no line numbers: it holds while other code moves."""
    for of_file in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        head, *hunks = re.split(r"^@@\n", of_file, flags=re.MULTILINE)
        for hunk in hunks:
            lines = hunk.splitlines(keepends=True)
            old = "".join(one[1:] or one for one in lines if one[0] != "+")
            new = "".join(one[1:] or one for one in lines if one[0] != "-")
            yield Change(head.splitlines()[0], old, new)


def copy(folder: Path, diff: str = "") -> Path:
    """Copy what a fault can be put in, put it in, and link to the rest."""
    for name in _SHARED:
        (folder / name).symlink_to(PROJECT / name)
    for name in _COPIED:
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for one in changes(diff):
        file = folder / one.file
        file.write_text(one.apply(file.read_text(encoding="utf-8")), encoding="utf-8")
    return folder


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a command ended."""

    returncode: int
    said: Any

    @property
    def findings(self) -> list[str]:
        """What a check found, by rule, or a rehearsal, by the invariant or whoever else says so."""
        if "findings" in self.said:
            return [f"{one['rule']}: {one['what']}" for one in self.said["findings"]]
        failure = self.said["failure"] or {"wrong": ()}
        return [f"{one['kind']}: {one['what']}" for one in failure["wrong"]]


def judge(folder: Path, command: str) -> Verdict:
    """Have `choreo` judge the project in a folder; raises AssertionError if that cannot be done."""
    words = [*command.split(), "--json"]
    done = forked.choreo(*words, cwd=folder, env=os.environ, cpu_s=RUNAWAY_S)
    assert done.returncode >= 0, f"choreo {command} ran away: signal {-done.returncode}"
    # An error that nobody expected has the exit code 1, too, and no answer.
    assert done.returncode in (0, 1), f"choreo {command} cannot run: {done.stderr}"
    assert done.stdout, f"choreo {command} broke off: {done.stderr}"
    return Verdict(done.returncode, json.loads(done.stdout))
