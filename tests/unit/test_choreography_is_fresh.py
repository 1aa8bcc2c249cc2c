"""What is derived from the signatures says what the signatures say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import ROOT, copy


def test_nothing_is_stale() -> None:
    """In a process of its own: other tests declare contracts, too."""
    checked = subprocess.run(
        [sys.executable, "scripts/draw.py", "--check"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONUTF8": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = checked.stdout + checked.stderr
    assert checked.returncode == 0, f"run 'scripts/draw' and look at what changed: {said}"


@pytest.mark.parametrize(
    "page", ["README.md", "docs/choreography.md", "docs/map.md", "docs/processes.md"]
)
def test_every_picture_is_one_that_is_kept_fresh(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert shown
    assert text.count("<!-- picture: choreo map ") == text.count("```mermaid")
    for picture in shown:
        assert re.fullmatch(r"(docs/)?(flow-\w+|choreography)\.svg", picture)


def test_what_is_stale_is_named_and_written(tmp_path: Path) -> None:
    copy(tmp_path, "contracts", "services", "docs", "scripts")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "docs/flow-gone.svg").write_text("<svg/>")
    (tmp_path / "docs/choreography.md").write_text("# Old\n")
    (tmp_path / "docs/flow-order.svg").unlink()
    changed = ["docs/choreography.md", "docs/flow-gone.svg", "docs/flow-order.svg"]

    def draw(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "scripts/draw.py", *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONUTF8": "1", "PYTHONPATH": f"{tmp_path}:{ROOT}"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    checked = draw("--check")
    assert checked.returncode == 1, checked.stderr
    assert sorted(checked.stdout.splitlines()) == [f"stale: {name}" for name in changed]
    assert sorted(draw().stdout.splitlines()) == [
        "removed: docs/flow-gone.svg",
        "written: docs/choreography.md",
        "written: docs/flow-order.svg",
    ]
    assert draw("--check").returncode == 0
    for name in ("docs/choreography.md", "docs/flow-order.svg"):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()
