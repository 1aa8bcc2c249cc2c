"""The picture shows the whole choreography; no line runs through a card, or hides another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choreo.map import svg
from choreo.map.cards import cards, duration
from choreo.map.style import width

DOCS = Path(__file__).parents[2] / "docs"
Box = tuple[float, float, float, float]
Point = tuple[float, float]
Piece = tuple[Point, Point]

KINDS = [f"a.{letter}{letter * 9 if letter == 'c' else ''}.v1" for letter in "bcdefgh"]


#: What a handler of a kind has besides.
MORE: dict[str, dict[str, Any]] = {"undo": {"undoes": "go"}, "deadline": {"within_s": 90.0}}


@st.composite
def choreographies(draw: st.DrawFn) -> dict[str, Any]:
    """Handlers that hear and say anything: circles, crowds, strangers."""
    some = st.lists(st.sampled_from(KINDS), max_size=3, unique=True)
    services: dict[str, Any] = {}
    for number in range(draw(st.integers(1, 5))):
        handlers: dict[str, Any] = {}
        for name in ("go", "go_on", "give_it_all_back", "hurry")[: draw(st.integers(1, 4))]:
            kind = draw(st.sampled_from(("step", "step", "undo", "deadline")))
            handlers[name] = {
                "kind": kind,
                "place": "parts.py",
                "calls_outside": draw(st.booleans()),
                "consumes": draw(some.filter(bool)),
                "publishes": draw(some),
            }
            handlers[name] |= MORE.get(kind, {})
        services[f"service{number}"] = {"handlers": handlers}
    contracts = {kind: {"class": f"agreed.{kind.split('.')[1].title()}"} for kind in KINDS}
    flow = {
        "starts": KINDS[0], "ends": {"well": KINDS[1], "badly": KINDS[2]}, "fails": ["badly"],
    }  # fmt: skip
    return {"contracts": contracts, "services": services, "flows": {"it": flow}}


class Drawn:
    """What stands in a picture."""

    def __init__(self, text: str) -> None:
        self.root = ET.fromstring(text)
        for one in self.root.iter():
            one.tag = one.tag.rpartition("}")[2]
        self.width, self.height = (float(self.root.attrib[name]) for name in ("width", "height"))
        groups = [one for one in self.root.iter("g") if one.get("class") != "net"]
        self.cards = [_box(one.find("rect")) for one in groups]
        self.texts = ["".join(one.itertext()) for one in self.root.iter("text")]
        self.nets = [Net(one) for one in self.root.iter("g") if one.get("class") == "net"]


class Net:
    """The lines of one message."""

    def __init__(self, group: ET.Element) -> None:
        self.title = group.findtext("title") or ""
        paths = group.findall("path")
        lines = [one for one in paths if "line" in one.attrib["class"].split()]
        self.styles = {one.attrib["class"] for one in lines}
        self.lines = [list(_pieces(one.attrib["d"])) for one in lines]
        tips = [one for one in paths if "tip" in one.attrib["class"].split()]
        self.tips = [_points(one.attrib["d"])[0] for one in tips]
        circles = group.findall("circle")
        self.ports = [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in circles]


def _box(rect: ET.Element | None) -> Box:
    assert rect is not None
    x, y, wide, high = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
    return x, y, x + wide, y + high


def _points(data: str) -> list[Point]:
    numbers = [float(one) for one in re.findall(r"-?[\d.]+", data)]
    return list(zip(numbers[::2], numbers[1::2], strict=False))


def _pieces(data: str) -> Iterator[Piece]:
    """The straight pieces of a line; a round corner is its two sides."""
    yield from pairwise(_points(data))


def _near(one: float, other: float) -> bool:
    return abs(one - other) < 0.3


def _on(point: Point, piece: Piece) -> bool:
    (x, y), (left, right), (top, bottom) = (
        point,
        *(sorted(part) for part in zip(*piece, strict=True)),
    )
    return left - 0.3 <= x <= right + 0.3 and top - 0.3 <= y <= bottom + 0.3


def _enters(piece: Piece, box: Box) -> bool:
    (left, right), (top, bottom) = (sorted(part) for part in zip(*piece, strict=True))
    return left < box[2] - 1 and right > box[0] + 1 and top < box[3] - 1 and bottom > box[1] + 1


def _hides(one: Piece, other: Piece) -> bool:
    """Whether two pieces lie on one another for more than a corner."""
    for across in (0, 1):
        along = 1 - across
        lies = [
            piece[0][across] for piece in (one, other) if _near(*(end[across] for end in piece))
        ]
        if len(lies) == 2 and abs(lies[0] - lies[1]) < 1:
            spans = [sorted(end[along] for end in piece) for piece in (one, other)]
            return min(spans[0][1], spans[1][1]) - max(spans[0][0], spans[1][0]) > 7
    return False


def must_be_clear(picture: Drawn) -> None:
    """No card on another, no line through a card or along another line, none loose."""
    for box in picture.cards:
        assert 0 < box[0] < box[2] < picture.width
        assert 0 < box[1] < box[3] < picture.height
    for one, other in combinations(picture.cards, 2):
        apart = one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]
        assert apart, "cards lie on one another"
    for net in picture.nets:
        pieces = [piece for line in net.lines for piece in line]
        for piece in pieces:
            assert not any(_enters(piece, box) for box in picture.cards), net.title
            assert all(0 < x < picture.width and 0 < y < picture.height for x, y in piece)
        for x, y in net.tips:
            assert any(_near(box[0], x) and box[1] < y < box[3] for box in picture.cards)
            assert any(_on((x - 6, y), piece) for piece in pieces), net.title
        for x, y in net.ports:
            assert any(_near(box[2], x) and box[1] < y < box[3] for box in picture.cards)
            assert any(_on((x, y), piece) for piece in pieces), net.title
        for number, line in enumerate(net.lines[1:], 1):
            others = [piece for other in net.lines[:number] for piece in other]
            ends = (line[0][0], line[-1][1])
            assert any(_on(end, piece) for end in ends for piece in others), net.title
    for net, beside in combinations(picture.nets, 2):
        for piece in (piece for line in net.lines for piece in line):
            hidden = (_hides(piece, other) for line in beside.lines for other in line)
            assert not any(hidden), f"{net.title} | {beside.title}"


@given(drawn=choreographies())
@settings(max_examples=30, deadline=None)
def test_every_picture_is_clear(drawn: dict[str, Any]) -> None:
    must_be_clear(Drawn(svg.picture(drawn, "All & everything")))


@pytest.mark.parametrize("file", sorted(DOCS.glob("*.svg")), ids=lambda file: str(file.stem))
def test_the_pictures_of_the_project_are_clear(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    must_be_clear(Drawn(text))
    # It is one file, and does nothing by itself.
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"<script|<image|href|@import|url\(|@font-face", text)
    assert text.count("http") == 1, "only the name of the format"


@given(drawn=choreographies())
@settings(max_examples=30, deadline=None)
def test_every_handler_and_message_is_there(drawn: dict[str, Any]) -> None:
    picture = Drawn(svg.picture(drawn, "All"))
    for name, service in drawn["services"].items():
        assert picture.texts.count(name) == 1
        for handler, what in service["handlers"].items():
            assert handler in picture.texts
            for kind in what["publishes"]:
                assert drawn["contracts"][kind]["class"].removeprefix("agreed.") in picture.texts
    heard = {
        (kind, what["kind"])
        for service in drawn["services"].values()
        for what in service["handlers"].values()
        for kind in what["consumes"]
    }
    assert len(picture.nets) == len(heard)
    assert sum(len(net.tips) for net in picture.nets) == sum(
        len(what["consumes"])
        for service in drawn["services"].values()
        for what in service["handlers"].values()
    )


def drawn_of(text: str) -> Drawn:
    """The picture of handlers, each as `service.name | kind | what it hears | what it says`."""
    services: dict[str, Any] = {}
    for line in text.split(";"):
        name, kind, hears, says = line.split("|")
        service, _, handler = name.strip().partition(".")
        one: dict[str, Any] = {
            "kind": kind.strip(), "place": "p.py", "calls_outside": handler.endswith("_out"),
            "consumes": hears.split(), "publishes": says.split(),
        }  # fmt: skip
        one |= MORE.get(kind.strip(), {})
        services.setdefault(service, {"handlers": {}})["handlers"][handler] = one
    kinds = {
        kind for line in text.split(";") for part in line.split("|")[2:] for kind in part.split()
    }
    contracts = {kind: {"class": f"agreed.{kind.title()}"} for kind in sorted(kinds)}
    flow = {"starts": "want", "ends": {"well": "given", "badly": "over"}, "fails": ["badly"]}
    return Drawn(
        svg.picture({"contracts": contracts, "services": services, "flows": {"gift": flow}}, "gift")
    )


def test_what_undoes_and_what_a_clock_starts_look_different() -> None:
    picture = drawn_of(
        "a.go_out | step | want | given; a.back | undo | over | ; b.late | deadline | given | over"
    )
    styles = {net.title.partition(":")[0]: net.styles for net in picture.nets}
    assert styles == {"Want": {"line flow"}, "Over": {"line undo"}, "Given": {"line deadline"}}
    kinds = [one.get("class") for one in picture.root.iter("g") if one.get("class") != "net"]
    assert kinds == ["start", "step", "undo", "deadline"]
    icons = [
        one.get("class") for one in picture.root.iter("path") if "icon" in one.get("class", "")
    ]
    assert set(icons) == {"icon outside", "icon undo", "icon deadline"}
    assert "undoes go" in picture.texts
    assert "after 90 s" in picture.texts


def test_the_ends_are_marked() -> None:
    picture = drawn_of("a.go | step | want | given over")
    assert {"well", "badly"} <= set(picture.texts)
    assert "Want starts it; it ends well, or fails: badly" in picture.texts
    pills = [one.get("class") for one in picture.root.iter("rect") if one.get("rx") == "8.5"]
    assert pills == ["pill ends", "pill fails"]
    words = {one.text: one.get("class") for one in picture.root.iter("text")}
    assert (words["well"], words["badly"]) == ("ends", "fails")
    assert {"ends the flow", "ends it, and all is undone"} <= set(picture.texts)


NAMES = st.text(min_size=1, max_size=8) | st.sampled_from(
    ["a & b", "<lambda>", "größer 😀", '"', "]]>", "\x1b[0m", "\ud800"]
)


@given(names=st.lists(NAMES, min_size=7, max_size=7))
@settings(max_examples=50, deadline=None)
def test_it_is_well_formed_whatever_the_names_are(names: list[str]) -> None:
    service, name, conductor, step, word, kind, title = names
    part = {"step": step, "sends": ["want"], "each": False, "good": ["want"], "bad": []}
    table = {"starts": "want", "ends": ["want"], "fails": [], "stages": [[part]]}
    handler = {
        "kind": "undo", "undoes": conductor, "summary": title, "calls_outside": True,
        "consumes": ["want"], "publishes": ["want"],
    }  # fmt: skip
    drawn = {
        "contracts": {"want": {"class": kind}},
        "services": {service: {"handlers": {name: handler}, "conductors": {conductor: table}}},
        "flows": {title: {"starts": "want", "ends": {word: "want"}, "fails": []}},
    }
    text = svg.picture(drawn, title)
    assert text.isascii(), "so it is the same in every encoding"
    texts = Drawn(text).texts
    wanted = {service, name, conductor, step, word, f"undoes {conductor}"}
    assert {one for one in wanted if one.isprintable()} <= set(texts)


def test_the_words_around_a_small_picture_are_in_it() -> None:
    picture = drawn_of("a.go_out | undo | want | given over")
    sizes = {"note": 11, "title": 20, "how": 12}
    found = [one for one in picture.root.iter("text") if one.get("class") in sizes]
    assert len(found) > 5
    for one in found:
        left, size = float(one.attrib["x"]), sizes[one.attrib["class"]]
        assert left + width(one.text or "", size) < picture.width


def test_the_flow_leads_to_the_right() -> None:
    picture = drawn_of(
        "b.third | step | y | given; a.first | step | want | x; c.second | step | x | y"
    )
    start, third, first, second = picture.cards
    assert start[2] < first[0] < first[2] < second[0] < second[2] < third[0]


def test_a_circle_has_a_picture() -> None:
    picture = drawn_of("a.go | step | x want | y; b.go | step | y | x")
    must_be_clear(picture)
    must_be_clear(drawn_of("a.go | step | x | y; b.go | step | y | x; c.go | step | want | "))


def test_it_is_told_in_words() -> None:
    told = drawn_of("a.go | step | want | given; b.on | step | given |").root.findtext("desc")
    assert told == "Want starts. a.go hears Want and says Given. b.on hears Given and says nothing."


def test_nobody_reacts() -> None:
    kinds = {"want": {"class": "agreed.Want"}}
    must_be_clear(Drawn(svg.picture({"contracts": kinds, "services": {}, "flows": {}}, "Want")))


def test_a_conductor_is_a_card_for_each_stage() -> None:
    part = {"step": "hold", "sends": ["hold"], "each": False, "good": ["held"], "bad": ["lacking"]}
    tell = {"step": "tell", "sends": ["told"], "each": False, "good": [], "bad": []}
    table = {
        "starts": "want", "ends": ["given"], "fails": ["over"],
        "stages": [[part | {"undo": ["drop"], "undone": ["dropped"]}], [tell, tell]],
    }  # fmt: skip
    handler = {"kind": "step", "place": "p.py", "calls_outside": False}
    desk = {"begin_it": handler | {"conductor": "it", "consumes": ["want"], "publishes": ["hold"]}}
    desk["hold_late"] = desk["begin_it"] | {"kind": "deadline", "within_s": 60.0}
    shelf = {
        "hold": handler | {"consumes": ["hold"], "publishes": ["held", "lacking"]},
        "drop": handler
        | {"kind": "undo", "undoes": "hold", "consumes": ["drop"], "publishes": ["dropped"]},
    }
    drawn = {
        "contracts": {
            kind: {"class": kind.title()}
            for kind in (
                "want",
                "hold",
                "held",
                "lacking",
                "told",
                "drop",
                "dropped",
                "given",
                "over",
            )
        },
        "services": {
            "desk": {"handlers": desk, "conductors": {"it": table}},
            "shelf": {"handlers": shelf},
        },
        "flows": {},
    }
    found = {card.title: card for card in cards(drawn) if card.service == "desk" and card.title}
    assert {title: (card.hears, card.says) for title, card in found.items()} == {
        "hold": (["want"], ["hold"]),
        # What waits for no answer goes out with the end.
        "tell + tell": (["held"], ["told", "given"]),
        "give up": (["lacking", "dropped"], ["drop", "over"]),
    }
    assert [found[title].column for title in ("hold", "tell + tell", "give up")] == [1, 3, 3]
    assert {title: card.note for title, card in found.items()} == {
        "hold": "it, within 1 min", "tell + tell": "it", "give up": "it, newest first",
    }  # fmt: skip
    picture = Drawn(svg.picture(drawn, "All"))
    must_be_clear(picture)
    assert {"has a time limit", "a stage of a conductor"} <= set(picture.texts)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.5, "0.5 s"),
        (90, "90 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (86_400, "1 day"),
        (172_800, "2 days"),
    ],
)
def test_a_time_in_words(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
