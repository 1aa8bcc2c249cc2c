"""The map tells what the signatures say, and always in the same order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from choreo import map as maps
from choreo.map.table import Reaction, Row, rows
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

_FLOWS = """
from choreo import Flow
from AGREED.all import Over, Refused, Want

gift = Flow("gift", starts=Want, ends={"over": Over, "refused": Refused}, fails=["over"])
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
        f"{agreed}/flows.py": _FLOWS,
        f"{parts}/__init__.py": "",
        f"{parts}/giver/__init__.py": _GIVER,
        f"{parts}/watcher.py": _WATCHER,
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("AGREED", agreed).replace("MAP", topic))
    monkeypatch.syspath_prepend(tmp_path)
    lines = getattr(request, "param", False)
    found = json.dumps(maps.draw(Settings(services=parts, contracts=agreed), lines=lines))
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


def test_flows(drawn: dict[str, Any]) -> None:
    assert drawn["flows"] == {
        "gift": {
            "starts": "map.want.v1",
            "ends": {"over": "map.over.v1", "refused": "map.refused.v1"},
            "fails": ["over"],
        }
    }


@pytest.mark.parametrize("drawn", [True], indirect=True)
def test_a_line_for_each_message(drawn: dict[str, Any]) -> None:
    given, over, refused, taken, want = rows(drawn)
    assert want == Row(
        "Want", "map.want", 1, (),
        (
            Reaction("giver.give", "take", "parts/giver/__init__.py:8"),
            Reaction("giver.hurry", "2 min without Taken or Refused", "parts/giver/__init__.py:20"),
        ),
    )  # fmt: skip
    assert (given.version, given.published_by) == (2, ("giver.give",))
    assert given.reactions[0] == Reaction(
        "a_watcher.see", "final: seen is seen", "parts/watcher.py:7"
    )
    assert [(one.handler, one.undo) for one in over.reactions] == [("giver.take", "undoes give")]
    assert (refused.published_by, refused.reactions) == (("giver.give",), ())
    assert taken.published_by == ("giver.take",)
