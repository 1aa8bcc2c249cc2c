"""Lines of straight pieces: drawn once where they share a way, and with round corners."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

Point = tuple[float, float]

#: Of a corner, in pixels.
RADIUS = 6


def clean(points: Iterable[Point]) -> list[Point]:
    """The corners of a line: no point twice, and none in the middle of a straight piece."""
    path: list[Point] = []
    for point in points:
        if path and point == path[-1]:
            continue
        if len(path) > 1 and _direction(path[-2], path[-1]) == _direction(path[-1], point):
            path.pop()
        path.append(point)
    return path


def branch(path: Sequence[Point], drawn: Iterable[Sequence[Point]]) -> list[Point]:
    """The part of a line that is not drawn yet: from where it leaves those that begin like it."""
    shared = max((_shared(path, other) for other in drawn), default=0)
    return _after(path, shared - RADIUS) if shared > RADIUS else list(path)


def length(path: Sequence[Point]) -> float:
    """How long a line is."""
    return sum(_far(one, other) for one, other in pairwise(path))


def _shared(path: Sequence[Point], other: Sequence[Point]) -> float:
    found = 0.0
    pieces = zip(pairwise(path), pairwise(other), strict=False)
    for (start, end), (other_start, other_end) in pieces:
        if start != other_start or _direction(start, end) != _direction(other_start, other_end):
            break
        found += min(_far(start, end), _far(start, other_end))
        if end != other_end:
            break
    return found


def _after(path: Sequence[Point], way: float) -> list[Point]:
    """What is left of a line behind a part of it."""
    for number, (start, end) in enumerate(pairwise(path)):
        far = _far(start, end)
        if way < far:
            across, down = _direction(start, end)
            return [(start[0] + across * way, start[1] + down * way), *path[number + 1 :]]
        way -= far
    return []


def _far(one: Point, other: Point) -> float:
    return abs(one[0] - other[0]) + abs(one[1] - other[1])


def _direction(start: Point, end: Point) -> tuple[int, int]:
    across, down = end[0] - start[0], end[1] - start[1]
    return (across > 0) - (across < 0), (down > 0) - (down < 0)


def rounded(path: Sequence[Point]) -> str:
    """The data of an SVG path through points, with round corners."""
    found = [f"M{_number(path[0])}"]
    for before, corner, after in zip(path, path[1:], path[2:], strict=False):
        for other, sign in ((before, "L"), (after, "Q")):
            far = abs(other[0] - corner[0]) + abs(other[1] - corner[1])
            part = min(RADIUS, far / 2) / far
            near = (
                corner[0] + (other[0] - corner[0]) * part,
                corner[1] + (other[1] - corner[1]) * part,
            )
            found.append(
                f"L{_number(near)}" if sign == "L" else f"Q{_number(corner)} {_number(near)}"
            )
    return "".join([*found, f"L{_number(path[-1])}"])


def _number(point: Point) -> str:
    return " ".join(f"{round(one, 1):g}" for one in point)
