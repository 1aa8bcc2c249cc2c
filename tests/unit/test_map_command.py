"""The command draws, tells and refuses what it should."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from rich.console import Console
from test_map_reach import conducted
from typer.testing import CliRunner

from choreo import map as maps
from choreo.cli import app, frame
from choreo.errors import CannotRunError
from choreo.map import mermaid, svg
from choreo.map.table import rows
from choreo.map.tree import tree
from choreo.settings import Settings


@pytest.fixture
def choreo(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What `choreo map` prints of the conducted trip."""
    monkeypatch.setattr(frame, "prepare", Settings)
    monkeypatch.setattr(maps, "draw", lambda _, *, lines: conducted())

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["map", *arguments])
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return run


def test_the_command_draws_what_a_message_sets_off(choreo: Callable[..., str]) -> None:
    drawn = maps.reach(conducted(), "a.want", without=("audit", "hotel"))
    chosen = ("a.want", "--without", "audit", "--without", "hotel")
    assert json.loads(choreo(*chosen, "--json")) == drawn
    assert choreo("a.want", "--sequence").startswith("sequenceDiagram\n  participant desk\n")
    assert choreo(*chosen, "--mermaid") == f"{mermaid.flowchart(drawn)}\n"
    assert choreo(*chosen, "--svg") == svg.picture(drawn, "Want")
    assert json.loads(choreo("--json")) == conducted()


def test_the_command_draws_a_flow(choreo: Callable[..., str]) -> None:
    drawn = maps.flow(conducted(), "trip", without=("audit",))
    assert choreo("--flow", "trip", "--without", "audit", "--svg") == svg.picture(drawn, "trip")
    assert choreo("--flow", "trip").startswith("Want\n└── desk.take")


def test_the_command_leaves_out_who_only_watches(choreo: Callable[..., str]) -> None:
    assert "audit" in choreo()
    assert "audit" not in choreo("--without", "audit")


def test_what_one_message_sets_off_is_a_tree(choreo: Callable[..., str]) -> None:
    assert (
        choreo("a.want.v1")
        == """\
Want
└── desk.take  parts.py:1
    ├── Go
    │   └── desk.begin_trip  parts.py:1
    │       └── Book
    │           ├── hotel.book  parts.py:1
    │           │   └── Booked
    │           │       ├── audit.hear  parts.py:1
    │           │       ├── desk.book_done  parts.py:1
    │           │       │   └── Over  ■ ends over
    │           │       │       └── audit.hear  parts.py:1
    │           │       └── desk.count  parts.py:1
    │           └── ◷ desk.book_late  after 5 s without Booked  parts.py:1
    │               └── Unbook
    │                   └── ↶ hotel.cancel  undoes book  parts.py:1
    │                       └── Free
    └── No  □ fails: no
"""
    )


def test_a_message_is_shown_once(choreo: Callable[..., str]) -> None:
    drawn = conducted()
    drawn["services"]["desk"]["handlers"]["count"]["publishes"] = ["a.want.v1", "a.no.v1"]
    shown = tree(maps.reach(drawn, "Want"), "a.want.v1")
    console = frame.console()
    with console.capture() as printed:
        console.print(shown)
    assert printed.get().count("Want  ↑ above") == 1
    # Nobody reacts to this one, so nothing of it stands above.
    assert printed.get().count("No  □ fails: no\n") == 2
    assert "calls outside" not in printed.get()
    assert "hotel.ask  calls outside  parts.py:1" in choreo("Other")


def test_the_whole_is_a_table(choreo: Callable[..., str]) -> None:
    lines = [" ".join(line.replace("│", " ").split()) for line in choreo().splitlines()]
    assert "Book a.book 1 desk.begin_trip desk.book_late 5 s without Booked parts.py:1" in lines
    assert "hotel.book cancel parts.py:1" in lines
    assert "Over a.over 1 desk.book_done audit.hear parts.py:1" in lines


@pytest.mark.parametrize("width", [80, 100, 140, 200])
def test_no_name_in_the_table_is_cut(
    width: int, choreo: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = json.loads(
        json.dumps(conducted())
        .replace("begin_trip", "begin_a_journey_of_many_legs")
        .replace("parts.py", "services/far_away/__init__.py")
    )
    monkeypatch.setattr(maps, "draw", lambda _, *, lines: drawn)
    monkeypatch.setattr(frame, "console", lambda: Console(width=width, markup=False))
    shown = choreo()
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    words = set(re.findall(r"[\w./:]+", shown))
    for row in rows(drawn):
        reactions = {part for one in row.reactions for part in (one.handler, one.place)}
        assert {row.name, row.topic, *row.published_by, *reactions} <= words


def test_a_name_that_is_too_long_is_folded(
    choreo: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame, "console", lambda: Console(width=24, markup=False))
    shown = choreo()
    assert "…" not in shown
    assert re.search(r"│ desk.tak │\n│ +a.want +│ e +│", shown)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("Want", "--flow", "trip"), "give a MESSAGE or --flow, not both"),
        (("--svg", "--json"), "give one of --svg, --mermaid, --sequence and --json"),
    ],
)
def test_the_command_shows_one_thing(
    arguments: tuple[str, ...], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    result = CliRunner().invoke(app, ["map", *arguments])
    assert result.exit_code == 2
    assert why in result.stderr


def test_the_command_names_what_there_is_not(choreo: Callable[..., str]) -> None:
    with pytest.raises(CannotRunError, match="no message 'nothing'"):
        choreo("nothing")
    with pytest.raises(CannotRunError, match="no service 'who'"):
        choreo("a.want", "--without", "who")
    with pytest.raises(CannotRunError, match="no flow 'tour'"):
        choreo("--flow", "tour")
