"""How the lines of a picture run: in streets between the lanes and tracks between the columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from choreo.map.cards import Card
from choreo.map.layout import Layout, Net, Spot

#: All in pixels.
TRACK, GAP_MARGIN, STREET = 9, 15, 14
#: What it costs, in pixels of a detour, to run along a street, and beside another line there.
_STREET_COST, _BESIDE_COST = 30, 12


@dataclass(eq=False)
class Link:
    """A part of a net that leads past whole columns, from one gap to another."""

    net: Net
    #: A gap has the number of the column before it.
    gaps: tuple[int, int]
    spot: Spot


@dataclass(eq=False)
class Rise:
    """The upright part of a net in one gap."""

    net: Net
    gap: int
    left: list[Spot] = field(default_factory=list)
    right: list[Spot] = field(default_factory=list)
    track: int = 0


class Routes:
    """Every line of a layout; with them it is known how high a street, how wide a gap must be."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._links: list[Link] = []
        self._rises: dict[tuple[Net, int], Rise] = {}
        self._streets = [float(STREET)] * (len(layout.lanes) + 1)
        for net in sorted(layout.nets, key=self._reach):
            self._route(net)
        self._share_streets()
        for gap in range(-1, layout.columns):
            self._share_gap([one for one in self._rises.values() if one.gap == gap])

    @property
    def bottom(self) -> float:
        """The height of all lanes and streets."""
        return self.lane_top(len(self._layout.lanes))

    def lane_top(self, lane: int) -> float:
        """Where a lane begins, below the first street."""
        return sum(self._streets[: lane + 1]) + sum(self._layout.lane_height[:lane])

    def y(self, spot: Spot) -> float:
        """The height of a spot, below the top of the first street."""
        above = self._streets[spot.lane] if spot.street else 0
        return self.lane_top(spot.lane) - above + spot.below

    def gap_width(self, gap: int) -> float:
        """How wide the gap after a column is."""
        tracks = [one.track for one in self._rises.values() if one.gap == gap]
        return 2 * GAP_MARGIN + TRACK * max(tracks, default=0) if tracks else 2 * GAP_MARGIN

    def x_in_gap(self, net: Net, gap: int) -> float:
        """Where a net rises in a gap, from where the gap begins."""
        return GAP_MARGIN + TRACK * self._rises[net, gap].track

    def between(self, net: Net, source: Card, target: Card) -> list[tuple[int, Spot, Spot]]:
        """The rises on the way from one card to another: in which gap, from where to where."""
        at, trunk = self._layout.says_at(source, net), _trunk(net)
        found: list[tuple[int, Spot, Spot]] = []
        for gap, to in ((source.column, trunk), (trunk, target.column - 1)):
            if gap != to:
                [link] = [
                    one for one in self._links if one.net is net and set(one.gaps) == {gap, to}
                ]
                found.append((gap, at, link.spot))
                at = link.spot
        found.append((target.column - 1, at, self._layout.hears_at(target, net)))
        return found

    def _reach(self, net: Net) -> tuple[int, int]:
        """Short lines are routed first, and so run straight."""
        columns = [card.column for card in (*net.sources, *net.targets)]
        return max(columns) - min(columns), self._layout.nets.index(net)

    def _route(self, net: Net) -> None:
        if not net.sources:
            return
        layout, trunk = self._layout, _trunk(net)
        ports: dict[int, list[Spot]] = {}
        for card in net.sources:
            spot = layout.says_at(card, net)
            self._rise(net, card.column).left.append(spot)
            ports.setdefault(card.column, []).append(spot)
        for card in net.targets:
            spot = layout.hears_at(card, net)
            self._rise(net, card.column - 1).right.append(spot)
            ports.setdefault(card.column - 1, []).append(spot)
        for gap in sorted(set(ports) - {trunk}, key=lambda gap: abs(gap - trunk)):
            spot = self._choose(net, trunk, gap, ports.get(trunk, []), ports[gap])
            self._links.append(Link(net, (trunk, gap), spot))
            ports.setdefault(trunk, []).append(spot)
            for one, other in ((trunk, gap), (gap, trunk)):
                rise = self._rise(net, one)
                (rise.left if other < one else rise.right).append(spot)

    def _rise(self, net: Net, gap: int) -> Rise:
        return self._rises.setdefault((net, gap), Rise(net, gap))

    def _choose(
        self, net: Net, trunk: int, gap: int, there: Sequence[Spot], here: Sequence[Spot]
    ) -> Spot:
        """The height at which a line passes columns: straight from a port if that is free."""
        layout = self._layout
        columns = range(min(trunk, gap) + 1, max(trunk, gap) + 1)
        straight = [
            spot
            for spot in (*here, *there)
            if not spot.street
            and layout.is_free(spot, columns)
            and layout.is_apart(spot, net, columns[0] - 1)
            and not self._taken(spot, trunk, gap)
        ]
        streets = [Spot(lane, STREET / 2, street=True) for lane in range(len(layout.lanes) + 1)]

        def cost(spot: Spot) -> float:
            y = self.y(spot)
            found = sum(
                max(y, *map(self.y, ports)) - min(y, *map(self.y, ports)) for ports in (here, there)
            )
            if spot.street:
                beside = sum(
                    one.spot == spot and _overlap(one.gaps, (trunk, gap)) for one in self._links
                )
                found += _STREET_COST + _BESIDE_COST * beside
            return found

        return min((*straight, *streets), key=cost)

    def _taken(self, spot: Spot, trunk: int, gap: int) -> bool:
        return any(
            not link.spot.street
            and link.spot.lane == spot.lane
            and abs(link.spot.below - spot.below) < 6
            and _overlap(link.gaps, (trunk, gap))
            for link in self._links
        )

    def _share_streets(self) -> None:
        """Give the links of each street tracks of their own where they run side by side."""
        moved: dict[Link, Spot] = {}
        for street in range(len(self._streets)):
            tracks: list[list[Link]] = []
            inside = [one for one in self._links if one.spot.street and one.spot.lane == street]
            for link in sorted(inside, key=self._leans):
                free = (
                    number
                    for number, track in enumerate(tracks)
                    if not any(_overlap(link.gaps, one.gaps) for one in track)
                )
                number = next(free, len(tracks))
                if number == len(tracks):
                    tracks.append([])
                tracks[number].append(link)
                moved[link] = Spot(street, STREET / 2 + TRACK * number, street=True)
            self._streets[street] = STREET + TRACK * max(0, len(tracks) - 1)
        for link, spot in moved.items():
            for gap in link.gaps:
                rise = self._rises[link.net, gap]
                other = sum(link.gaps) - gap
                side = rise.left if other < gap else rise.right
                side[side.index(link.spot)] = spot
            link.spot = spot

    def _leans(self, link: Link) -> float:
        """What comes from above and goes back there runs above."""
        ends = [self._rises[link.net, gap] for gap in link.gaps]
        return sum(self.y(spot) for end in ends for spot in (*end.left, *end.right))

    def _share_gap(self, rises: list[Rise]) -> None:
        """Order the rises of a gap so that few lines cross, and pack them into tracks."""
        upright = [one for one in rises if len(set(map(self.y, (*one.left, *one.right)))) > 1]
        spans = {
            one: (
                min(map(self.y, (*one.left, *one.right))),
                max(map(self.y, (*one.left, *one.right))),
            )
            for one in upright
        }
        worse = {
            (a, b): self._crossings(a, b, spans) for a in upright for b in upright if a is not b
        }
        order = _best_order(upright, partial(_cost, worse))
        for number, one in enumerate(order):
            low, high = spans[one]
            before = [
                other.track
                for other in order[:number]
                if spans[other][0] - 6 < high and low < spans[other][1] + 6
            ]
            one.track = max(before, default=-1) + 1

    def _crossings(self, a: Rise, b: Rise, spans: dict[Rise, tuple[float, float]]) -> float:
        """How often two rises cross if the first is left of the second."""
        low, high = spans[b]
        found = sum(low <= self.y(spot) <= high for spot in a.right)
        low, high = spans[a]
        found += sum(low <= self.y(spot) <= high for spot in b.left)
        # Lines on one another would look like one.
        found += 20 * sum(
            abs(self.y(one) - self.y(other)) < 5 for one in a.right for other in b.left
        )
        return found


def _trunk(net: Net) -> int:
    return max(card.column for card in net.sources)


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return max(min(one), min(other)) <= min(max(one), max(other))


def _cost(worse: dict[tuple[Rise, Rise], float], order: Sequence[Rise]) -> float:
    return sum(worse[a, b] for number, a in enumerate(order) for b in order[number + 1 :])


def _best_order(rises: list[Rise], cost: partial[float]) -> list[Rise]:
    """The best order that moving one at a time leads to."""
    best, least = rises, cost(rises)
    while True:
        moved = (
            [*rest[:to], one, *rest[to:]]
            for one in best
            for rest in [[other for other in best if other is not one]]
            for to in range(len(best))
        )
        nearest = min(moved, key=cost, default=best)
        if (now := cost(nearest)) >= least:
            return best
        best, least = nearest, now
