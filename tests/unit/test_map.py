"""The map tells what the signatures say, and always in the same order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from choreo import map as maps
from choreo import mermaid
from choreo.cli import app, frame
from choreo.errors import CannotRunError
from choreo.settings import Settings

_AGREED = """
from pydantic import BaseModel
from choreo import Command, Event

class Item(BaseModel):
    sku: str

class Want(Command, topic="MAP.want", subject="id"):
    '''Ask for things.

    At length.
    '''
    id: str
    items: tuple[Item, ...]
    note: str | None = None

class Given(Event, topic="MAP.given", version=2, subject="id"):
    id: str

class Refused(Event, topic="MAP.refused"):
    pass

class Over(Event, topic="MAP.over"):
    pass

class Taken(Event, topic="MAP.taken"):
    pass
"""

_GIVER = """
from datetime import timedelta
from choreo import Service
from AGREED.all import Given, Over, Refused, Taken, Want

service = Service("giver")

@service.on
def give(wanted: Want) -> Given | Refused:
    '''Give what is wanted.

    Or not.
    '''
    return Refused()

@give.undo
def take(cause: Over, given: Given) -> Taken:
    return Taken()

@service.deadline(Want, within=timedelta(minutes=2), until=Taken | Refused)
def hurry(wanted: Want) -> Over | None:
    return None
"""

_WATCHER = """
from choreo import Service
from AGREED.all import Given, Over, Taken

service = Service("a_watcher")

@service.on(final="seen is seen", unless=Over)
async def see(given: Given) -> None:
    pass

@service.on(final="seen is seen")
def see_more(given: Given | Taken) -> None:
    pass
"""


@pytest.fixture
def drawn(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> dict[str, Any]:
    # Modules and contracts are the process's: each test brings its own.
    number = abs(hash(request.node.name))
    agreed, parts, topic = f"agreed_{number}", f"parts_{number}", f"map{number}"
    for path, text in {
        f"{agreed}/__init__.py": "",
        f"{agreed}/all.py": _AGREED,
        f"{parts}/__init__.py": "",
        f"{parts}/giver/__init__.py": _GIVER,
        f"{parts}/watcher.py": _WATCHER,
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("AGREED", agreed).replace("MAP", topic))
    monkeypatch.syspath_prepend(tmp_path)
    found = json.dumps(maps.draw(Settings(services=parts, contracts=agreed)))
    named: dict[str, Any] = json.loads(
        found.replace(topic, "map").replace(agreed, "agreed").replace(parts, "parts")
    )
    return named


def test_contracts(drawn: dict[str, Any]) -> None:
    assert list(drawn["contracts"]) == [
        "map.given.v2", "map.over.v1", "map.refused.v1", "map.taken.v1", "map.want.v1",
    ]  # fmt: skip
    assert drawn["contracts"]["map.want.v1"] == {
        "class": "agreed.all.Want",
        "kind": "command",
        "summary": "Ask for things.",
        "topic": "map.want",
        "version": 1,
        "exchange": "map.commands",
        "subject": "id",
        "fields": {"id": "string", "items": "[Item]", "note": "string | null?"},
        "published_by": [],
        "heard_by": ["giver"],
    }
    given = drawn["contracts"]["map.given.v2"]
    assert (given["kind"], given["exchange"], given["version"]) == ("event", "map", 2)
    assert (given["published_by"], given["heard_by"]) == (["giver"], ["a_watcher"])
    # The giver ends its deadline by itself when it publishes this, and so does not hear it.
    assert drawn["contracts"]["map.refused.v1"]["heard_by"] == []
    assert drawn["contracts"]["map.over.v1"]["heard_by"] == ["a_watcher", "giver"]


def test_services(drawn: dict[str, Any]) -> None:
    assert list(drawn["services"]) == ["a_watcher", "giver"]
    assert drawn["services"]["giver"] == {
        "queue": "giver",
        "handlers": {
            "give": {
                "kind": "step",
                "summary": "Give what is wanted.",
                "place": "parts/giver/__init__.py",
                "calls_outside": False,
                "consumes": ["map.want.v1"],
                "publishes": ["map.given.v2", "map.refused.v1"],
                "undone_by": "take",
            },
            "take": {
                "kind": "undo",
                "summary": "",
                "place": "parts/giver/__init__.py",
                "calls_outside": False,
                "consumes": ["map.over.v1"],
                "publishes": ["map.taken.v1"],
                "undoes": "give",
                "outcomes": ["map.given.v2"],
            },
            "hurry": {
                "kind": "deadline",
                "summary": "",
                "place": "parts/giver/__init__.py",
                "calls_outside": False,
                "consumes": ["map.want.v1"],
                "publishes": ["map.over.v1"],
                "within_s": 120.0,
                "until": ["map.taken.v1", "map.refused.v1"],
            },
        },
    }
    see = drawn["services"]["a_watcher"]["handlers"]["see"]
    assert see["place"] == "parts/watcher.py"
    assert see["calls_outside"] is True
    assert (see["final"], see["unless"]) == ("seen is seen", ["map.over.v1"])


# What one message sets off.


def handlers(drawn: dict[str, Any]) -> dict[str, list[str]]:
    return {service: list(one["handlers"]) for service, one in drawn["services"].items()}


def handler(consumes: str, publishes: str, **more: Any) -> dict[str, Any]:
    takes, says = consumes.split(), publishes.split()
    return {"kind": "step", "calls_outside": False, "consumes": takes, "publishes": says, **more}


#: What a conductor's service has besides.
TRIP = {
    "starts": "a.go.v1",
    "stages": [
        [
            {
                "step": "book",
                "sends": ["a.book.v1"],
                "each": True,
                "good": ["a.booked.v1"],
                "bad": [],
                "undo": ["a.unbook.v1"],
                "undone": ["a.free.v1"],
            }
        ]
    ],
    "ends": ["a.over.v1"],
    "fails": [],
}
#: What a deadline has besides.
LATE: dict[str, Any] = {"kind": "deadline", "within_s": 5.0, "until": ["a.booked.v1"]}


def conducted() -> dict[str, Any]:
    """A conductor `trip` in `desk`, which asks `hotel`; `desk` does other things as well."""
    services = {
        "audit": {"hear": handler("a.booked.v1 a.paid.v1 a.over.v1 a.other.v1", "")},
        "desk": {
            "take": handler("a.want.v1", "a.go.v1 a.no.v1"),
            "begin_trip": handler("a.go.v1", "a.book.v1", conductor="trip"),
            "book_done": handler("a.booked.v1", "a.over.v1", conductor="trip"),
            "book_late": handler("a.book.v1", "a.unbook.v1", conductor="trip", **LATE),
            "count": handler("a.booked.v1", ""),
        },
        "hotel": {
            "book": handler("a.book.v1", "a.booked.v1", undone_by="cancel"),
            "cancel": handler("a.unbook.v1 a.gone.v1", "a.free.v1", kind="undo", undoes="book"),
            "ask": handler("a.other.v1", "a.booked.v1", calls_outside=True),
        },
        "purse": {
            "pay": handler("a.paid.v1", "a.receipt.v1", undone_by="return"),
            "return": handler("a.over.v1", "a.returned.v1", kind="undo", undoes="pay"),
        },
    }
    hearers = {"a.book.v1": ["hotel"], "a.unbook.v1": ["hotel"], "a.over.v1": ["audit", "purse"]}
    kinds = {
        kind
        for one in services.values()
        for handler in one.values()
        for kind in (*handler["consumes"], *handler["publishes"])
    }
    return {
        "contracts": {
            kind: {
                "class": f"agreed.{kind.split('.')[1].title()}",
                "topic": kind.removesuffix(".v1"),
                "kind": "event",
                "published_by": [],
                "heard_by": hearers.get(kind, []),
            }
            for kind in sorted(kinds)
        },
        "services": {
            name: {"queue": name, "handlers": one}
            | ({"conductors": {"trip": TRIP}} if name == "desk" else {})
            for name, one in sorted(services.items())
        },
    }


def test_what_a_message_sets_off() -> None:
    found = maps.reach(conducted(), "Want")
    assert handlers(found) == {
        "audit": ["hear"],
        "desk": ["take", "begin_trip", "book_done", "book_late", "count"],
        "hotel": ["book", "cancel"],
    }
    assert list(found["contracts"]) == [
        "a.book.v1", "a.booked.v1", "a.free.v1", "a.go.v1", "a.no.v1", "a.over.v1", "a.unbook.v1",
        "a.want.v1",
    ]  # fmt: skip
    # Of what a handler takes, only what comes.
    hotel = found["services"]["hotel"]["handlers"]
    assert hotel["cancel"]["consumes"] == ["a.unbook.v1"]
    assert found["services"]["audit"]["handlers"]["hear"]["consumes"] == [
        "a.booked.v1", "a.over.v1",
    ]  # fmt: skip


def test_a_conductor_takes_part_only_where_it_begins() -> None:
    found = maps.reach(conducted(), "a.other")
    assert handlers(found) == {"audit": ["hear"], "desk": ["count"], "hotel": ["ask"]}
    assert "conductors" not in found["services"]["desk"]
    assert maps.reach(conducted(), "Go")["services"]["desk"]["conductors"] == {"trip": TRIP}
    assert list(found["contracts"]) == ["a.booked.v1", "a.other.v1"]


def test_an_undo_takes_part_only_where_its_step_does() -> None:
    assert handlers(maps.reach(conducted(), "a.over.v1")) == {"audit": ["hear"]}
    found = maps.reach(conducted(), "a.paid.v1")
    assert handlers(found) == {"audit": ["hear"], "purse": ["pay"]}


def test_a_service_that_only_watches_is_left_out() -> None:
    drawn = conducted()
    found = maps.reach(drawn, "a.want", without=("audit", "hotel"))
    assert handlers(found) == {"desk": ["take", "begin_trip", "book_late"]}
    assert drawn == conducted()


def test_nobody_reacts() -> None:
    found = maps.reach(conducted(), "Free")
    assert (found["services"], list(found["contracts"])) == ({}, ["a.free.v1"])


@pytest.mark.parametrize(
    ("message", "without", "why"),
    [
        ("a.wnt", (), r"^no message 'a\.wnt'; did you mean 'a\.want'\?$"),
        ("wholly else", (), "^no message 'wholly else'$"),
        ("a.want", ("audit", "who", "nobody"), "^no service nobody, who$"),
    ],
)
def test_what_there_is_not(message: str, without: tuple[str, ...], why: str) -> None:
    with pytest.raises(CannotRunError, match=why):
        maps.reach(conducted(), message, without=without)


def test_a_conductor_is_one_box_with_six_corners() -> None:
    found = maps.reach(conducted(), "Want", without=("audit",))
    assert (
        mermaid.flowchart(found)
        == """\
flowchart LR
  subgraph desk
    desk.take[take]
    desk.trip{{trip}}
    desk.count[count]
  end
  subgraph hotel
    hotel.book[book]
    hotel.cancel[cancel]
  end
  desk.take --> a.go.v1>Go]
  desk.take --> a.no.v1>No]
  desk.trip --> a.book.v1>Book]
  desk.trip --> a.over.v1>Over]
  desk.trip --> a.unbook.v1>Unbook]
  hotel.book --> a.booked.v1>Booked]
  hotel.cancel --> a.free.v1>Free]
  a.want.v1>Want] --> desk.take
  a.go.v1>Go] --> desk.trip
  a.booked.v1>Booked] --> desk.trip
  a.booked.v1>Booked] --> desk.count
  a.book.v1>Book] --> hotel.book
  a.unbook.v1>Unbook] -.-> hotel.cancel"""
    )


def test_what_a_conductor_does_step_by_step() -> None:
    assert (
        mermaid.sequences(maps.reach(conducted(), "Want"))
        == """\
sequenceDiagram
  participant desk
  Note over desk: Go
  desk->>hotel: each Book
  hotel-->>desk: Booked
  desk-)audit: Over
  opt a step was refused, or not answered in time: newest first
    desk->>hotel: each Unbook
    hotel-->>desk: Free
  end"""
    )
    assert mermaid.sequences(maps.reach(conducted(), "a.other")) == ""


def test_a_call_outside_is_a_rounded_box() -> None:
    found = mermaid.flowchart(maps.reach(conducted(), "a.other"))
    assert "    hotel.ask([ask])\n" in found
    assert "    desk.count[count]\n" in found


@pytest.fixture
def choreo(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What `choreo map` prints of the conducted trip."""
    monkeypatch.setattr(frame, "prepare", Settings)
    monkeypatch.setattr(maps, "draw", lambda _: conducted())

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
    assert json.loads(choreo("--json")) == conducted()


def test_the_command_tells_what_a_conductor_does(choreo: Callable[..., str]) -> None:
    shown = choreo("a.want.v1")
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert any("begin_trip" in line and "conducts trip" in line for line in lines)
    assert any("cancel" in line and "undoes book" in line for line in lines)
    assert "count" in shown
    assert "return" not in shown


def test_the_command_names_what_there_is_not(choreo: Callable[..., str]) -> None:
    with pytest.raises(CannotRunError, match="no message 'nothing'"):
        choreo("nothing")
    with pytest.raises(CannotRunError, match="no service who"):
        choreo("a.want", "--without", "who")
