"""Writes what is derived from the code: the agreement, docs/choreography.md and all pictures.

The agreement is contracts/choreography.json. Each flow has a picture, docs/flow-<name>.svg.
A sequence diagram stands within a page, below the command that prints it:

    <!-- picture: choreo map orders.process --sequence -->
    ```mermaid
    ...
    ```
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import program
import typer

from choreo.cli import app
from choreo.map import Json
from choreo.map.table import name_of, rows

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
AGREEMENT = ROOT / "contracts/choreography.json"
PICTURE = re.compile(r"(<!-- picture: choreo (.*?) -->\n\n```mermaid\n)(.*?)(?=```)", re.DOTALL)
#: They hear nearly everything and lead to nothing: a picture is clearer without them.
WATCHERS = ("audit", "crm")
WITHOUT = " ".join(f"--without {service}" for service in WATCHERS)

HEAD = f"""\
# The choreography

Drawn by `scripts/draw` from the signatures of the handlers and from `contracts/flows.py`; a test
fails when it is stale. [The map](map.md) tells how to read the pictures, and how to draw your own.
They leave out {" and ".join(f"`{one}`" for one in WATCHERS)}, which hear nearly everything.
"""
TABLE = """
## Every message

| message | topic | v | published by | who reacts | undone by |
| --- | --- | --- | --- | --- | --- |
"""


def main(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 if anything is stale.")
    ] = False,
) -> None:
    """Write contracts/choreography.json, docs/choreography.md and every picture anew.

    Exit code 0: done, or nothing is stale. 1: something is. 2: it cannot run.

    For example:

        scripts/draw
        scripts/draw --check
    """
    found = stale()
    for path, text in found.items():
        print(f"{'stale' if check else 'written' if text else 'removed'}: {path.relative_to(ROOT)}")
        if check:
            continue
        if text:
            path.write_text(text, encoding="utf-8")
        else:
            path.unlink()
    if check and found:
        raise typer.Exit(1)


def stale() -> dict[Path, str]:
    """The files that do not say what the code says, with what they should say; "": be gone."""
    agreed = _printed("map --json")
    found = json.loads(agreed)
    # A flow may be there no more.
    drawn = dict.fromkeys(sorted(DOCS.glob("flow-*.svg")), "")
    drawn |= {AGREEMENT: agreed, DOCS / "choreography.svg": _printed(f"map --svg {WITHOUT}")}
    for name in found["flows"]:
        drawn[DOCS / f"flow-{name}.svg"] = _printed(f"map --flow {name} --svg {WITHOUT}")
    for page in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))):
        drawn[page] = PICTURE.sub(
            lambda found: found[1] + _printed(found[2]), page.read_text(encoding="utf-8")
        )
    drawn[DOCS / "choreography.md"] = "".join([HEAD, *_flows(found), TABLE, *_table(found)])
    return {
        path: text
        for path, text in drawn.items()
        if (path.read_text(encoding="utf-8") if path.exists() else "") != text
    }


def _flows(drawn: Json) -> Iterator[str]:
    for name, flow in drawn["flows"].items():
        starts = name_of(drawn, flow["starts"])
        ends = "".join(
            f"- {word}{', and all is undone' if word in flow['fails'] else ''}: "
            f"`{name_of(drawn, kind)}`\n"
            for word, kind in flow["ends"].items()
        )
        title = name.replace("_", " ").capitalize()
        yield f"\n## {title}\n\n`{starts}` starts it; one of these ends it:\n\n{ends}\n"
        yield f"![{starts}, and what it sets off](flow-{name}.svg)\n"
    yield "\n## The whole\n\n![Every service and every message](choreography.svg)\n"


def _table(drawn: Json) -> Iterator[str]:
    """A line for each reaction; the message stands in the first."""
    for row in rows(drawn):
        said = "<br>".join(row.published_by) or "outside"
        message = (f"`{row.name}`", f"`{row.topic}`", str(row.version), said)
        lines = [(f"[{one.handler}](../{one.place})", one.undo) for one in row.reactions]
        for number, line in enumerate(lines or [("nobody", "")]):
            cells = (*(("",) * 4 if number else message), *line)
            yield f"| {' | '.join(cells)} |\n"


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
