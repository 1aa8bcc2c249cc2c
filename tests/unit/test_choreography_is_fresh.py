"""The agreement in a file says what the signatures say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def draw(option: str) -> str:
    """What `choreo map` prints.

    In a process of its own: other tests declare contracts, too, and settings are not its matter.
    """
    drawn = subprocess.run(
        [sys.executable, "-m", "choreo", "map", option],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert drawn.returncode == 0, drawn.stderr
    return drawn.stdout


def test_choreography_json_is_fresh() -> None:
    kept = (ROOT / "contracts/choreography.json").read_text(encoding="utf-8")
    assert kept == draw("--json"), (
        "contracts/choreography.json is stale; write it anew and look at what changed: "
        "choreo map --json > contracts/choreography.json"
    )


def test_the_picture_in_the_readme_is_fresh() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, after = readme.partition("<!-- picture")
    shown = after.partition("```mermaid\n")[2].partition("```")[0]
    assert shown == draw("--mermaid"), "put the output of 'choreo map --mermaid' into README.md"
