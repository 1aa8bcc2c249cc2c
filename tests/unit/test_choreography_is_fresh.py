"""What is derived from the signatures says what the signatures say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize("page", ["README.md", "docs/processes.md"])
def test_every_picture_of_a_page_is_derived(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text.count("<!-- picture: choreo map ") == text.count("```mermaid") > 0
