"""What one message sets off, and that part in the language of Mermaid."""

from __future__ import annotations

import json
from typing import Any

import pytest

from choreo import map as maps
from choreo.errors import CannotRunError
from choreo.map import mermaid

# What one message sets off.


def handlers(drawn: dict[str, Any]) -> dict[str, list[str]]:
    return {service: list(one["handlers"]) for service, one in drawn["services"].items()}


def handler(consumes: str, publishes: str, **more: Any) -> dict[str, Any]:
    takes, says = consumes.split(), publishes.split()
    fixed = {"kind": "step", "place": "parts.py:1", "calls_outside": False}
    return fixed | {"consumes": takes, "publishes": says} | more


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
                "version": 1,
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
        "flows": {
            "trip": {
                "starts": "a.want.v1",
                "ends": {"no": "a.no.v1", "over": "a.over.v1"},
                "fails": ["no"],
            }
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


def test_what_began_on_the_way_to_a_message_goes_on() -> None:
    # The conductor runs, and the hotel has booked: it may be asked to take that back.
    found = maps.reach(conducted(), "Book", without=("audit",))
    assert handlers(found) == {
        "desk": ["book_done", "book_late", "count"],
        "hotel": ["book", "cancel"],
    }
    # In the flow that comes to this one, the step of the undo has run.
    assert handlers(maps.reach(conducted(), "Unbook")) == {"hotel": ["cancel"]}


def test_a_flow_has_its_own_ends_alone() -> None:
    drawn = conducted()
    drawn["flows"]["other"] = {
        "starts": "a.other.v1", "ends": {"done": "a.booked.v1"}, "fails": ["done"],
    }  # fmt: skip
    assert list(maps.reach(drawn, "Want")["flows"]) == ["trip"]
    found = maps.flow(drawn, "trip", without=("audit",))
    assert found == maps.reach(conducted(), "Want", without=("audit",))
    # From the middle of flows, those ends that are still to come.
    flows = maps.reach(drawn, "Book")["flows"]
    ends = {name: one["ends"] for name, one in flows.items()}
    assert ends == {"trip": {"over": "a.over.v1"}, "other": {"done": "a.booked.v1"}}
    assert {name: one["fails"] for name, one in flows.items()} == {"trip": [], "other": ["done"]}


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
        ("Wnt", (), r"^no message 'Wnt'; did you mean 'Want'\?$"),
        ("a.want.v2", (), r"^no message 'a\.want\.v2'; did you mean 'a\.want\.v1'\?$"),
        ("wholly else", (), "^no message 'wholly else'$"),
        ("a.want", ("audit", "hotl"), r"^no service 'hotl': did you mean 'hotel'\?$"),
        ("a.want", ("x",), "^no service 'x': there is audit, desk, hotel, purse$"),
    ],
)
def test_what_there_is_not(message: str, without: tuple[str, ...], why: str) -> None:
    with pytest.raises(CannotRunError, match=why):
        maps.reach(conducted(), message, without=without)


def test_a_name_of_two_messages_is_none() -> None:
    drawn = conducted()
    drawn["contracts"]["a.want.v2"] = drawn["contracts"]["a.want.v1"] | {"version": 2}
    for name in ("a.want", "Want"):
        with pytest.raises(
            CannotRunError, match=rf"^'{name}' is a.want.v1 or a.want.v2: say which$"
        ):
            maps.reach(drawn, name)
    assert maps.find(drawn, "a.want.v2") == "a.want.v2"


def test_there_is_no_such_flow() -> None:
    with pytest.raises(CannotRunError, match=r"^no flow 'trp': did you mean 'trip'\?$"):
        maps.flow(conducted(), "trp")
    with pytest.raises(CannotRunError, match=r"^no flow 'trip': there is none$"):
        maps.flow(conducted() | {"flows": {}}, "trip")


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
    with pytest.raises(CannotRunError, match=r"^no conductor takes part, and --sequence"):
        mermaid.sequences(maps.reach(conducted(), "a.other"))


@pytest.mark.parametrize("word", ["end", "style", "note"])
def test_no_name_begins_or_ends_anything_in_mermaid(word: str) -> None:
    drawn = json.loads(json.dumps(conducted()).replace("desk", word).replace("a.go", f"{word}.go"))
    services = drawn["services"]
    services[word]["handlers"][word] = handler("a.booked.v1", "")
    lines = [line.strip() for line in mermaid.flowchart(drawn).splitlines()]
    assert {f"subgraph {word}_", f"{word}_.{word}[{word}_]"} <= set(lines)
    assert f"{word}_.take --> {word}_.go.v1>Go]" in lines
    assert lines.count("end") == sum(line.startswith("subgraph ") for line in lines)
    assert not [line for line in lines if line.startswith((f"{word}.", f"subgraph {word}."))]
    assert mermaid.sequences(drawn).splitlines()[1:4] == [
        f"  participant {word}_", f"  Note over {word}_: Go", f"  {word}_->>hotel: each Book",
    ]  # fmt: skip


def test_a_call_outside_is_a_rounded_box() -> None:
    found = mermaid.flowchart(maps.reach(conducted(), "a.other"))
    assert "    hotel.ask([ask])\n" in found
    assert "    desk.count[count]\n" in found
