"""The choreography as a picture: an SVG that a browser shows as it is, light or dark."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from choreo.map.cards import Card, cards
from choreo.map.drawn import Json
from choreo.map.layout import HEAD, INSET, NOTE, Layout, Net, Spot
from choreo.map.paths import Point, branch, clean, length, rounded
from choreo.map.routes import Routes
from choreo.map.style import CSS, ENDS, ICONS, LINES, SIGNS, width
from choreo.map.table import name_of

#: All in pixels.
_MARGIN, _TITLE, _LEGEND, _ICON = 24, 50, 46, 18
#: What XML has no way to say (www.w3.org/TR/xml, 2.2).
_UNFIT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def picture(drawn: Json, title: str) -> str:
    """The SVG of a choreography, as `choreo.map.draw` or a part of it found it."""
    return _Picture(drawn, title, Layout(cards(drawn))).svg()


def _ends(drawn: Json) -> Iterator[tuple[str, tuple[str, str]]]:
    """The word for each message that ends a flow, and how its pill looks."""
    for flow in drawn["flows"].values():
        for word, kind in flow["ends"].items():
            yield kind, (word, "fails" if word in flow["fails"] else "ends")


def _in_words(drawn: Json, flow: Json) -> str:
    """How a flow begins and ends."""
    fails = flow["fails"]
    said = (("ends", [word for word in flow["ends"] if word not in fails]), ("fails:", fails))
    how = ", or ".join(f"{verb} {_any_of(words)}" for verb, words in said if words)
    return f"{name_of(drawn, flow['starts'])} starts it; it {how}"


def _any_of(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


class _Picture:
    def __init__(self, drawn: Json, title: str, layout: Layout) -> None:
        self._names = {kind: name_of(drawn, kind) for kind in drawn["contracts"]}
        self._title = title
        flows = list(drawn["flows"].values())
        self._subtitle = _in_words(drawn, flows[0]) if len(flows) == 1 else ""
        # A message may end several flows; the first says how it is called.
        self._ends = dict(reversed([*_ends(drawn)]))
        self._layout = layout
        self._routes = Routes(layout)
        self._left: list[float] = []
        self._wide: list[float] = []
        x = 2 * _MARGIN + max((width(lane, 13) for lane in layout.lanes), default=0)
        x += self._routes.gap_width(-1)
        for column in range(layout.columns):
            inside = [card for card in layout.cards if card.column == column]
            self._left.append(x)
            self._wide.append(max((self._card_width(card) for card in inside), default=0))
            x += self._wide[-1] + self._routes.gap_width(column)
        self._height = _TITLE + self._routes.bottom + _LEGEND
        self._legend, legend_right = self._signs()
        self._subtitle_left = _MARGIN + width(title, 20) + 12
        subtitle_right = self._subtitle_left + width(self._subtitle, 12)
        self._width = max(x, subtitle_right, legend_right) + _MARGIN - 8

    def svg(self) -> str:
        size = f'width="{self._width:.0f}" height="{self._height:.0f}"'
        box = f'viewBox="0 0 {self._width:.0f} {self._height:.0f}"'
        spoken = 'role="img" aria-labelledby="title desc"'
        lines = (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} {spoken}>',
            f'<title id="title">{escape(self._title)}</title>',
            f'<desc id="desc">{escape(" ".join(self._told()))}</desc>',
            f"<style>{CSS}</style>",
            '<rect class="ground" width="100%" height="100%" rx="10"/>',
            _text("title", _MARGIN, 34, self._title),
            _text("how", self._subtitle_left, 34, self._subtitle),
            *self._lanes(),
            *(line for net in self._layout.nets for line in self._net(net)),
            *(line for card in self._layout.cards for line in self._card(card)),
            *self._legend,
            "</svg>\n",
        )
        text = _UNFIT.sub("\ufffd", "\n".join(lines))
        # So that it says the same whatever encoding it is printed in.
        return text.encode("ascii", "xmlcharrefreplace").decode()

    def _told(self) -> Iterator[str]:
        """The picture in words, for those who cannot see it."""
        for card in self._layout.cards:
            if card.kind == "start":
                yield f"{self._list(card.says)} starts."
            else:
                hears, says = self._list(card.hears), self._list(card.says)
                yield f"{card.service}.{card.title} hears {hears} and says {says}."

    def _list(self, kinds: Iterable[str]) -> str:
        return ", ".join(self._names[kind] for kind in kinds) or "nothing"

    def _lanes(self) -> Iterator[str]:
        for number, (lane, high) in enumerate(
            zip(self._layout.lanes, self._layout.lane_height, strict=True)
        ):
            top = _TITLE + self._routes.lane_top(number)
            yield (
                f'<rect class="lane" x="{_MARGIN / 2:g}" y="{top:g}" '
                f'width="{self._width - _MARGIN:.0f}" height="{high:g}" rx="8"/>'
            )
            yield _text("service", _MARGIN, top + high / 2 + 4, lane)

    def _net(self, net: Net) -> Iterator[str]:
        paths = list(dict.fromkeys(self._paths(net)))
        if not paths:
            return
        yield f'<g class="net"><title>{escape(self._net_title(net))}</title>'
        yield f'<path class="halo" d="{"".join(paths)}"/>'
        yield from (f'<path class="line {net.style}" d="{path}"/>' for path in paths)
        for card in net.targets:
            x, y = self._left[card.column], self._y(self._layout.hears_at(card, net))
            yield f'<path class="tip {net.style}" d="M{x:.1f} {y:.1f}l-8 -4v8z"/>'
        for card in net.sources:
            x, y = self._right(card), self._y(self._layout.says_at(card, net))
            yield f'<circle class="tip {net.style}" cx="{x:.1f}" cy="{y:.1f}" r="2.8"/>'
        yield "</g>"

    def _net_title(self, net: Net) -> str:
        heard = ", ".join(f"{card.service}.{card.title}" for card in net.targets)
        return f"{self._names[net.kind]}: {LINES[net.style]} {heard}"

    def _paths(self, net: Net) -> Iterator[str]:
        """The lines of a net, each part once and from its end, so that dashes begin at the tip."""
        if not net.sources:
            return
        forth = [self._points(net, net.sources[0], target) for target in net.targets]
        for number, path in enumerate(forth):
            yield rounded(branch(path, forth[:number])[::-1])
        drawn = [path[::-1] for path in forth]
        for source in net.sources[1:]:
            back = [self._points(net, source, target)[::-1] for target in net.targets]
            yield rounded(min((branch(path, drawn) for path in back), key=length))
            drawn += back

    def _points(self, net: Net, source: Card, target: Card) -> list[Point]:
        x, y = self._right(source), self._y(self._layout.says_at(source, net))
        found = [(x, y)]
        for gap, start, end in self._routes.between(net, source, target):
            x = self._gap_left(gap) + self._routes.x_in_gap(net, gap)
            found += [(x, self._y(start)), (x, self._y(end))]
        return clean([*found, (self._left[target.column] - 6, found[-1][1])])

    def _gap_left(self, gap: int) -> float:
        if gap < 0:
            return self._left[0] - self._routes.gap_width(-1)
        return self._left[gap] + self._wide[gap]

    def _right(self, card: Card) -> float:
        return self._left[card.column] + self._wide[card.column]

    def _y(self, spot: Spot) -> float:
        return _TITLE + self._routes.y(spot)

    def _card(self, card: Card) -> Iterator[str]:
        layout, left, wide = self._layout, self._left[card.column], self._wide[card.column]
        lane = _TITLE + self._routes.lane_top(layout.lane_of[card])
        top, high = lane + layout.top[card], layout.height[card]
        shape = "pill" if card.kind == "start" else "card"
        outside = " outside" if card.calls_outside else ""
        yield f'<g class="{card.kind}">'
        if card.summary:
            yield f"<title>{escape(card.summary)}</title>"
        yield (
            f'<rect class="{shape}{outside}" x="{left:.1f}" y="{top:g}" width="{wide:.1f}" '
            f'height="{high:g}" rx="{high / 2 if card.kind == "start" else 6:g}"/>'
        )
        if card.kind != "start":
            yield _text("name", left + INSET, top + 18, card.title)
            x = left + wide - 8 - 14
            for icon in _icons(card):
                yield _icon(icon, x, top + 6)
                x -= _ICON
            if card.note:
                y = top + HEAD + NOTE - 6
                yield _text("note", left + INSET, y, card.note)
        for kind in card.says:
            yield from self._said(card, kind, left + wide - INSET, lane + layout.row(card, kind))
        yield "</g>"

    def _said(self, card: Card, kind: str, right: float, y: float) -> Iterator[str]:
        if card.kind == "start":
            x = self._left[card.column] + self._wide[card.column] / 2
            yield _text("starts", x, y + 4, self._names[kind])
            return
        heard = any(net.kind == kind and net.targets for net in self._layout.nets)
        name, look = self._names[kind], "said"
        if kind in self._ends:
            word, pill = self._ends[kind]
            wide = width(word, 12) + 14
            yield (
                f'<rect class="pill {pill}" x="{right - wide + 4:.1f}" y="{y - 8.5:g}" '
                f'width="{wide:.1f}" height="17" rx="8.5"/>'
            )
            yield _text(pill, right - wide / 2 + 4, y + 4, word)
            right -= wide + 2
        elif not heard:
            look = "said unheard"
        yield _text(look, right, y + 4, name)

    def _card_width(self, card: Card) -> float:
        if card.kind == "start":
            return 2 * INSET + width(self._names[card.says[0]], 13)
        head = width(card.title, 14) + 8 + _ICON * len(list(_icons(card)))
        rows = [
            width(self._names[kind], 12)
            + (width(self._ends[kind][0], 12) + 18 if kind in self._ends else 0)
            for kind in card.says
        ]
        return max(2 * INSET + max([head, width(card.note, 11), *rows]), 90)

    def _signs(self) -> tuple[list[str], float]:
        """The legend, and where it ends."""
        lines, x, y = list[str](), float(_MARGIN), self._height - 22
        for style in dict.fromkeys(net.style for net in self._layout.nets):
            lines.append(f'<path class="line {style}" d="M{x:.1f} {y - 4:g}h26"/>')
            lines.append(f'<path class="tip {style}" d="M{x + 32:.1f} {y - 4:g}l-8 -4v8z"/>')
            lines.append(_text("note", x + 38, y, LINES[style]))
            x += 38 + width(LINES[style], 11) + 22
        for icon in dict.fromkeys(icon for card in self._layout.cards for icon in _icons(card)):
            lines.append(_icon(icon, x, y - 11))
            lines.append(_text("note", x + 20, y, SIGNS[icon]))
            x += 20 + width(SIGNS[icon], 11) + 22
        said = {kind for card in self._layout.cards for kind in card.says}
        there = {look for kind, (_, look) in self._ends.items() if kind in said}
        for look in (look for look in ENDS if look in there):
            place = f'x="{x:.1f}" y="{y - 11:g}" width="26" height="14" rx="7"'
            lines.append(f'<rect class="pill {look}" {place}/>')
            lines.append(_text("note", x + 32, y, ENDS[look]))
            x += 32 + width(ENDS[look], 11) + 22
        return lines, x


def _text(look: str, x: float, y: float, text: str) -> str:
    return f'<text class="{look}" x="{x:.1f}" y="{y:g}">{escape(text)}</text>'


def _icons(card: Card) -> Iterator[str]:
    if card.kind in ICONS:
        yield card.kind
    if card.has_limit:
        yield "deadline"
    if card.calls_outside:
        yield "outside"


def _icon(name: str, x: float, y: float) -> str:
    return f'<path class="icon {name}" transform="translate({x:.1f} {y:g})" d="{ICONS[name]}"/>'
