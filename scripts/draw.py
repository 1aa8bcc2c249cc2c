"""Writes what is derived from the code: contracts/choreography.json and the pictures in the pages.

A picture in a page stands below the command that prints it:

    <!-- picture: choreo map orders.place --mermaid -->
    ```mermaid
    ...
    ```
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Annotated

import program
import typer

from choreo.cli import app

ROOT = Path(__file__).parents[1]
AGREEMENT = ROOT / "contracts/choreography.json"
PICTURE = re.compile(r"(<!-- picture: choreo (.*?) -->\n\n```mermaid\n)(.*?)(?=```)", re.DOTALL)


def main(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 if anything is stale.")
    ] = False,
) -> None:
    """Write contracts/choreography.json and the pictures of README.md and docs/ anew.

    Exit code 0: done, or nothing is stale. 1: something is. 2: it cannot run.

    For example:

        scripts/draw
        scripts/draw --check
    """
    found = stale()
    for path, text in found.items():
        print(f"{'stale' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and found:
        raise typer.Exit(1)


def stale() -> dict[Path, str]:
    """The files that do not say what the code says, with what they should say."""
    drawn = {AGREEMENT: _printed("map --json")}
    for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))):
        drawn[page] = PICTURE.sub(
            lambda found: found[1] + _printed(found[2]), page.read_text(encoding="utf-8")
        )
    return {
        path: text
        for path, text in drawn.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }


def _printed(arguments: str) -> str:
    """What a choreo command prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        app(arguments.split(), standalone_mode=False)
    return printed.getvalue()


if __name__ == "__main__":
    # The settings of whoever runs it are not its matter, and choreo looks at the working folder.
    for name in [name for name in os.environ if name.startswith("CHOREO_")]:
        del os.environ[name]
    os.chdir(ROOT)
    program.run("draw", main)
