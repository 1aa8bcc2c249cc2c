"""Explores a flow: every moment that it may come to, breadth first, and what is wrong with it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from choreo.check import reduce
from choreo.check.branches import branches
from choreo.check.choreography import wire
from choreo.check.finding import Happening
from choreo.check.model import Model
from choreo.check.play import Move, Play
from choreo.check.state import ALL, State
from choreo.check.verdict import Fault, at_rest, on_the_way

#: A flow of more states than this is not explored further: nobody would wait for it.
MOST = 500_000
_TELL_EVERY = 1000


@dataclass
class Exploration:
    """What was seen."""

    states: int = 0
    transitions: int = 0
    seconds: float = 0.0
    #: Whether every run was followed.
    is_whole: bool = True
    #: Every kind that was sent, as bits.
    said: int = 0
    #: The kinds of end that were announced.
    announced: set[int] = field(default_factory=set)
    #: `service.handler` of each that ran.
    reached: set[str] = field(default_factory=set)
    #: The first of each kind, with the run that leads to it.
    faults: dict[Fault, list[Happening]] = field(default_factory=dict)


def explore(
    model: Model,
    *,
    lost: str | None = None,
    wanted: Collection[Fault] | None = None,
    before: int = 0,
    most: int | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> Exploration:
    """Follow every run of a flow.

    `lost`: an outside call that is never answered; then runs are followed until they have an end.
    `wanted`: follow each order of deliveries, until each of these faults has its shortest run.
    `before`: how many states of the flow were seen by others; they count.
    `tell` is told from time to time how many states there are.
    If there are more than `most` (None: MOST), the rest is left, and what was seen is not whole.
    """
    began = time.perf_counter()
    search = _Search(Play(model, lost), wanted)
    while search.queue and not search.has_all and search.seen.is_whole:
        search.look_at(search.queue.popleft())
        count = before + len(search.came)
        search.seen.is_whole = count <= (MOST if most is None else most)
        if count // _TELL_EVERY > (before + search.seen.states) // _TELL_EVERY:
            tell(count)
        search.seen.states = len(search.came)
    search.seen.seconds = time.perf_counter() - began
    return search.seen


def explore_apart(
    model: Model,
    *,
    lost: str | None = None,
    before: int = 0,
    tell: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[Model, Exploration]]:
    """Explore a flow without its branches, and then with one of them at a time.

    What comes of all branches together is what comes of each: none of them touches another, and
    none the rest. So a service that only listens costs what it adds, and not times what it does.
    """
    apart = branches(model)
    every = frozenset[int]().union(*apart)
    rest = model.without(every)
    seen = explore(rest, lost=lost, before=before, tell=tell)
    yield rest, seen
    said = seen.said
    for branch in apart:
        if any(model.watches[one].triggers & said for one in branch):
            part = model.without(every - branch)
            before += seen.states
            seen = explore(part, lost=lost, before=before, tell=tell)
            yield part, seen


class _Search:
    """A search under way."""

    def __init__(self, play: Play, wanted: Collection[Fault] | None) -> None:
        self.play = play
        self.wanted = wanted
        self.seen = Exploration()
        start = play.begin()
        starts = play.model.index[play.model.flow.starts]
        self.seen.said = 1 << starts
        self.seen.reached.update(play.model.listeners.get(starts, ()))
        #: How each state was come to first.
        self.came: dict[State, tuple[State, Move] | None] = {start: None}
        self.queue = deque([start])

    @property
    def has_all(self) -> bool:
        """Whether everything that is wanted was found."""
        return self.wanted is not None and self.seen.faults.keys() >= set(self.wanted)

    def _goes_on(self, state: State) -> bool:
        """Whether more can be learnt: what has two ends is wrong already.

        Where a call is lost, one end is enough, unless what it undoes may be forgotten.
        """
        return len(state.ends) < (2 if self.play.lost is None or state.is_late else 1)

    def look_at(self, state: State) -> None:
        """Take every step that may come next."""
        is_at_rest = True
        for move in self._moves(state):
            is_at_rest = False
            self._note(move)
            for fault in on_the_way(self.play.model, move):
                self._found(fault, state, move)
            if move.state not in self.came:
                self.came[move.state] = (state, move)
                if self._goes_on(move.state):
                    self.queue.append(move.state)
        for fault in at_rest(self.play, state) if is_at_rest else ():
            self._found(fault, state)

    def _moves(self, state: State) -> Iterator[Move]:
        """What may come next; where the order does not matter, of few messages alone."""
        play, is_at_rest = self.play, True
        apart = reduce.apart(play, state) if self.wanted is None else ()
        for post in apart or dict.fromkeys(state.posts):
            if play.can_receive(state, post):
                is_at_rest = False
                yield from play.deliver(state, post)
        for move in play.in_time(state) if not apart else ():
            is_at_rest = False
            yield move
        if is_at_rest:
            yield from play.in_time(state, is_long=True)

    def _note(self, move: Move) -> None:
        seen, model = self.seen, self.play.model
        seen.transitions += 1
        if not move.note and move.role not in ("unless", "arm", "until"):
            seen.reached.add(move.to)
        for kind, _ in move.sent:
            seen.said |= 1 << kind
            seen.reached.update(model.listeners.get(kind, ()))
            if kind in model.ends:
                seen.announced.add(kind)

    def _found(self, fault: Fault, state: State, last: Move | None = None) -> None:
        if fault in self.seen.faults or (self.wanted is not None and fault not in self.wanted):
            return
        moves = [] if last is None else [last]
        before = self.came[state]
        while before is not None:
            moves.append(before[1])
            before = self.came[before[0]]
        starts = self.play.model.flow.starts
        about = ALL if starts.__address__.subject is None else 0
        first = Happening("start", wire(starts), about)
        told = (self.play.told(move) for move in reversed(moves))
        self.seen.faults[fault] = [first, *told, *self.play.told_lost(state)]
