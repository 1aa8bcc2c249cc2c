"""A schedule: every decision of a rehearsal, drawn from a seed or given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

N = TypeVar("N", int, float)

#: What is decided, about what, and the how manyth time that this was to be decided.
Key = tuple[str, str, int]
#: How often what is worth most is among what is drawn.
_BEST = 0.9


@dataclass(frozen=True, slots=True)
class Decision:
    """Something other than the plain course of things; 0 would be the plain one."""

    kind: str
    about: str
    nth: int
    value: int

    @property
    def key(self) -> Key:
        """What it decides."""
        return self.kind, self.about, self.nth

    def __str__(self) -> str:
        return f"{self.kind} {self.about}".rstrip() + (f" ({self.nth})" if self.nth > 1 else "")


class Schedule:
    """Decides; whatever it decides otherwise than plainly is in `taken`.

    Drawn from the seed alone; or, where decisions are given, exactly these, and all else plainly.
    Both are the same on every machine.
    """

    def __init__(self, seed: int, given: Iterable[Decision] | None = None) -> None:
        self.seed = seed
        self.taken: list[Decision] = []
        #: From then on everything is plain: the faults have stopped.
        self.is_calm = False
        self._random = Random(f"schedule {seed}")  # noqa: S311 - no secret
        self._counts: Counter[tuple[str, str]] = Counter()
        self._given: dict[Key, int] | None = None
        self._asides: dict[int, list[Decision]] = {}
        if given is not None:
            given = list(given)
            self._given = {one.key: one.value for one in given}
            for one in given:
                self._asides.setdefault(one.nth, []).append(one)

    def decide(self, kind: str, about: str, chance: float, options: int = 1) -> int:
        """Whether something happens: 0, or which of so many options (1, 2, ...)."""
        key = (kind, about)
        nth = self._counts[key] = self._counts[key] + 1
        if self._given is not None:
            value = 0 if self.is_calm else self._given.get((kind, about, nth), 0)
        elif self.is_calm or self._random.random() >= chance:
            return 0
        else:
            value = 1 if options == 1 else 1 + int(self._random.random() * options)
        if value:
            self.taken.append(Decision(kind, about, nth, value))
        return value

    def choose(self, kind: str, many: int, chance: float) -> int:
        """One of so many things that can all happen now; 0 is the first, which is the plain one."""
        value = self.decide(kind, "", chance, max(1, many - 1))
        return value if value < many else 0

    def aside(
        self,
        nth: int,
        chances: Mapping[str, float],
        about: Callable[[str], Sequence[str]],
        options: int,
    ) -> Iterator[Decision]:
        """What happens beside the course of things after so many steps: of a kind, to something.

        `about` names what it can happen to now; in so many ways.
        """
        if self.is_calm:
            return
        if self._given is not None:
            for one in self._asides.get(nth, ()):
                if one.kind in chances and one.about in about(one.kind):
                    self.taken.append(one)
                    yield one
            return
        drawn = self._random.random()
        for kind, chance in chances.items():
            drawn -= chance
            if drawn < 0:
                if names := about(kind):
                    name = names[int(self._random.random() * len(names))]
                    one = Decision(kind, name, nth, 1 + int(self._random.random() * options))
                    self.taken.append(one)
                    yield one
                return

    def swarm(self, chances: Mapping[str, float], always: Collection[str]) -> dict[str, float]:
        """Most of these chances, more or less, so that seeds differ in what goes wrong.

        Source: Groce et al., "Swarm Testing", ISSTA 2012.
        """
        random = self._random
        return {
            kind: chance
            * random.choice((0.8, 1.0, 1.3) if kind in always else (0.0, 0.0, 0.3, 1.0, 5.0))
            for kind, chance in chances.items()
        }

    def one_of(self, *numbers: N) -> N:
        """How the decisions of this schedule are drawn; without consequence once they are given."""
        return self._random.choice(numbers)

    def among(
        self, kind: str, names: Sequence[str], best: Sequence[str], most: int
    ) -> list[tuple[int, str]]:
        """Up to so many of these, each with its number: most often one, and one of the best."""
        if self._given is not None:
            found = [one for some in self._asides.values() for one in some if one.kind == kind]
        else:
            random = self._random
            many = 1 + int(random.random() ** 5 * most)
            drawn = [random.choice(names) for _ in range(many)]
            if best and random.random() < _BEST:
                drawn[0] = random.choice(best)
            found = [Decision(kind, name, nth, 1) for nth, name in enumerate(drawn, 1)]
        self.taken += found
        return [(one.nth, one.about) for one in found]

    def as_json(self) -> dict[str, Any]:
        """What another run can be given."""
        decisions = [[one.kind, one.about, one.nth, one.value] for one in self.taken]
        return {"seed": self.seed, "decisions": decisions}
