"""Where the cards of a picture stand: each in the lane of its service, in its column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from choreo.map.cards import Card, Kind

Style = Literal["flow", "undo", "deadline"]
_STYLES: dict[Kind, Style] = {"undo": "undo", "deadline": "deadline"}

#: All in pixels.
HEAD, NOTE, ROW, PORT, INSET = 26, 14, 19, 11, 12
START = 5.5
STACK, LANE_MARGIN = 10, 10.0
#: What it costs, in lanes that a line crosses, that a service stands above one that begins earlier.
_DOWN = 6


@dataclass(eq=False)
class Net:
    """All that one message leads to in one way: from whoever says it to whoever hears it."""

    kind: str
    style: Style
    sources: list[Card] = field(default_factory=list)
    targets: list[Card] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Spot:
    """A height: so far below the top of a lane, or on a track of the street above it."""

    lane: int
    below: float = 0
    street: bool = False


class Layout:
    """Lanes, columns and the ports of the cards; heights are within a lane until it is routed."""

    def __init__(self, cards: Sequence[Card]) -> None:
        self.cards = cards
        self.nets = _nets(cards)
        self.lanes = _ordered(cards, self.nets)
        self.lane_of = {card: self.lanes.index(card.service) for card in cards}
        self.columns = 1 + max((card.column for card in cards), default=0)
        self.hears = {
            card: sorted(
                (net for net in self.nets if card in net.targets),
                key=lambda net: _mean(self.lane_of[one] for one in net.sources),
            )
            for card in cards
        }
        self.height = {card: self._height(card) for card in cards}
        #: Where each card begins, below the top of its lane.
        self.top: dict[Card, float] = {}
        self.lane_height = [self._stack(lane) for lane in range(len(self.lanes))]

    def says_at(self, card: Card, net: Net) -> Spot:
        """Where a net leaves a card."""
        several = [one for one in self.nets if one.kind == net.kind and card in one.sources]
        offset = (several.index(net) - (len(several) - 1) / 2) * 7
        return Spot(self.lane_of[card], self.row(card, net.kind) + offset)

    def hears_at(self, card: Card, net: Net) -> Spot:
        """Where a net comes to a card."""
        below = self.top[card] + HEAD / 2 + 2 + self.hears[card].index(net) * PORT
        return Spot(self.lane_of[card], below)

    def row(self, card: Card, kind: str) -> float:
        """The middle of the line that names a message, below the top of the lane."""
        head = START if card.kind == "start" else HEAD + (NOTE if card.note else 0)
        return self.top[card] + head + (card.says.index(kind) + 0.5) * ROW

    def is_apart(self, spot: Spot, net: Net, column: int) -> bool:
        """Whether no line of another net leaves a card of the column at this height."""
        return not any(
            abs(self.says_at(card, other).below - spot.below) < 5
            for other in self.nets
            if other is not net
            for card in other.sources
            if card.column == column and self.lane_of[card] == spot.lane
        )

    def is_free(self, spot: Spot, columns: Iterable[int]) -> bool:
        """Whether no card of the lane stands in the way of a line at this height."""
        wanted = set(columns)
        return not any(
            self.lane_of[card] == spot.lane
            and card.column in wanted
            and self.top[card] - 6 < spot.below < self.top[card] + self.height[card] + 6
            for card in self.cards
        )

    def _height(self, card: Card) -> float:
        if card.kind == "start":
            return ROW + 2 * START
        lines = HEAD + (NOTE if card.note else 0) + ROW * len(card.says) + (6 if card.says else 4)
        return max(lines, HEAD + 2 + PORT * (len(self.hears[card]) - 1))

    def _stack(self, lane: int) -> float:
        """Place the cards of a lane below each other, and return how high it is."""
        highest = 0.0
        for column in range(self.columns):
            below = LANE_MARGIN
            inside = [c for c in self.cards if self.lane_of[c] == lane and c.column == column]
            for card in sorted(inside, key=self._pull):
                self.top[card] = below
                while self._meets(card) and self.top[card] < below + STACK:
                    self.top[card] += STACK / 4
                below = self.top[card] + self.height[card] + STACK
            highest = max(highest, below - STACK)
        return highest + LANE_MARGIN

    def _meets(self, card: Card) -> bool:
        """Whether a line to a card would begin at the height of another from the column before."""
        return any(
            not self.is_apart(self.hears_at(card, net), net, card.column - 1)
            for net in self.hears[card]
        )

    def _pull(self, card: Card) -> float:
        """The lane that the lines of a card lead to, on average."""
        others = [
            self.lane_of[other]
            for net in self.nets
            for other in (
                *(net.sources if card in net.targets else ()),
                *(net.targets if card in net.sources else ()),
            )
        ]
        return _mean(others) if others else self.lane_of[card]


def _nets(cards: Sequence[Card]) -> list[Net]:
    found: dict[tuple[str, Style], Net] = {}
    for card in cards:
        style = _STYLES.get(card.kind, "flow")
        for kind in card.hears:
            found.setdefault((kind, style), Net(kind, style)).targets.append(card)
    for card in cards:
        for kind in card.says:
            for one in found.values():
                if one.kind == kind:
                    one.sources.append(card)
    return list(found.values())


def _ordered(cards: Sequence[Card], nets: Sequence[Net]) -> list[str]:
    """The order of the lanes in which the lines are short and lead down from the start.

    It is the best that moving one lane at a time leads to.
    """
    first: dict[str, int] = {}
    for card in sorted(cards, key=lambda card: card.column):
        first.setdefault(card.service, card.column)

    def length(order: Sequence[str]) -> float:
        at = {lane: number for number, lane in enumerate(order)}
        found: float = _DOWN * sum(
            first[above] > first[below]
            for number, above in enumerate(order)
            for below in order[number + 1 :]
        )
        for net in nets:
            places = [at[card.service] for card in (*net.sources, *net.targets)]
            found += max(places) - min(places)
            middle = _mean(at[card.service] for card in net.sources)
            found += 0.3 * sum(abs(at[card.service] - middle) for card in net.targets)
        return found

    best = list(first)
    while True:
        moved = (
            [*rest[:to], lane, *rest[to:]]
            for lane in best
            for rest in [[one for one in best if one != lane]]
            for to in range(len(best))
        )
        nearest = min(moved, key=length, default=best)
        if length(nearest) >= length(best):
            return best
        best = nearest


def _mean(numbers: Iterable[float]) -> float:
    found = list(numbers)
    return sum(found) / len(found)
