"""Plays a flow: every step that may come next at a given moment, as the runtime would take it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from choreo.check.alternatives import NOTHING, SAME, Alternative
from choreo.check.choreography import name, wire
from choreo.check.conduct import Conducting, Onward, Sent
from choreo.check.finding import Happening
from choreo.check.model import Model, Receiver, Watch
from choreo.check.state import ALL, Armed, Done, Draft, Post, Run, State
from choreo.service import Handler, Service
from choreo.store.runs import TaskStatus

#: A cycle is followed so often.
TURNS = 2


@dataclass(frozen=True, slots=True)
class Move:
    """One step of a run, and the moment after it."""

    do: str
    kind: int
    about: int
    to: str
    role: str
    state: State
    sent: Sent = ()
    #: Why nothing came of it, where that is not the handler's choice.
    note: str = ""
    #: The end by which the flow had failed when a final step ran that does not follow from it.
    too_late: int | None = None
    #: The deadline by which the step that is undone was forgotten.
    forgotten: str = ""
    #: The handler of a cycle that ran once more.
    again: int | None = None


class Play:
    """The steps of one flow; `lost` is an outside call that is never answered."""

    def __init__(self, model: Model, lost: str | None = None) -> None:
        self.model = model
        self.lost = lost
        self.conducting = [Conducting(model, number) for number in range(len(model.conductors))]
        self._roles: dict[str, Callable[[State, Post, Receiver], Iterator[Move]]] = {
            "step": self._step,
            "undo": self._undo,
            "unless": self._unless,
            "arm": self._arm,
            "until": self._until,
            "conduct": self._conduct,
        }

    def begin(self) -> State:
        """The flow's first message is under way."""
        draft = Draft(State())
        start = self.model.index[self.model.flow.starts]
        about = ALL if self.model.subject(start) is None else 0
        self._send(draft, "", ((start, about),), after=False)
        return draft.state()

    def conductors_of(self, receiver: Receiver) -> list[Conducting]:
        """Those of a receiver's service."""
        return [one for one in self.conducting if one.conductor.service is receiver.service]

    def can_receive(self, state: State, post: Post) -> bool:
        """Whether a message is handled: not if its call is lost, or a cycle went round enough."""
        receiver = self.model.receivers[post.to]
        if receiver.role != "step" or state.buried(receiver.of, post.about):
            return True
        if self.lost is not None and receiver.name == self.lost:
            return False
        return not self._is_enough(state, receiver.of)

    def _is_enough(self, state: State, handler: int) -> bool:
        """Whether a cycle went round so often that no more is learnt."""
        return handler in self.model.capped and dict(state.turns).get(handler, 0) >= TURNS

    def deliver(self, state: State, post: Post) -> Iterator[Move]:
        """Whatever may come of handing a message to one receiver."""
        receiver = self.model.receivers[post.to]
        return self._roles[receiver.role](state, post, receiver)

    def in_time(self, state: State, *, is_long: bool = False) -> Iterator[Move]:
        """Whatever may come of a deadline that is up; a long one is so after all else."""
        for one in dict.fromkeys(state.armed):
            deadline = self.model.deadline(one.deadline)
            is_due = self.model.is_long(deadline.within) == is_long
            if not is_due or self._is_enough(state, one.deadline):
                continue
            for said in self.choices(state, deadline, one.kind):
                draft = Draft(state)
                if is_long:
                    self._forget(draft, deadline.service, name(deadline))
                draft.armed = _without(draft.armed, one)
                sent = _about(said, one.about)
                self._send(draft, deadline.service.name, sent, after=one.after)
                again = self._turn(draft, one.deadline)
                yield self._time_up(one.kind, one.about, name(deadline), draft, sent, again=again)
        for run in state.runs:
            conducting = self.conducting[run.conductor]
            for task in run.tasks:
                if not conducting.may_be_late(task, is_long=is_long):
                    continue
                to = conducting.handler(task, TaskStatus.LATE)
                for onward, sent in conducting.settle(run, task, TaskStatus.LATE):
                    draft = _moved(Draft(state), run, onward)
                    if is_long:
                        self._forget(draft, conducting.conductor.service, to)
                    self._send(draft, conducting.conductor.service.name, sent, after=False)
                    command = conducting.commands[task.part]
                    yield self._time_up(command, task.about, to, draft, sent)

    def _forget(self, draft: Draft, but: Service, late: str) -> None:
        """Have all services but one forget what they did."""
        draft.is_late = True
        draft.done = [
            one if self.model.step(one.step).service is but else one._replace(forgotten=late)
            for one in draft.done
        ]

    @staticmethod
    def _time_up(
        kind: int, about: int, to: str, draft: Draft, sent: Sent, *, again: int | None = None
    ) -> Move:
        return Move("deadline", kind, about, to, "deadline", draft.state(), sent, again=again)

    # What the receivers do.

    def _step(self, state: State, post: Post, receiver: Receiver) -> Iterator[Move]:
        step, watch = self.model.step(receiver.of), self.model.watches[receiver.of]
        if state.buried(watch.number, post.about):
            yield _given(receiver, post, Draft(state, post), note="cancelled before it began")
            return
        for said in self.choices(state, step, post.kind):
            draft = Draft(state, post)
            sent = _about(said, post.about)
            self._send(draft, step.service.name, sent, after=self._after(post))
            _remember(draft, state, watch, post, sent)
            for taken in watch.takes_back:
                _take_back(draft, taken, post.about)
                draft.bury(_plainly(taken), post.about)
            again = self._turn(draft, watch.number)
            too_late = None
            if watch.is_final and (sent or step.is_async):
                too_late = self._too_late(state, watch, post, sent)
            yield _given(receiver, post, draft, sent, too_late=too_late, again=again)

    def _turn(self, draft: Draft, handler: int) -> int | None:
        """Count a turn of a cycle; gives the handler if it is the last that is followed."""
        if handler not in self.model.capped:
            return None
        turns = dict(draft.turns)
        turns[handler] = turns.get(handler, 0) + 1
        draft.turns = tuple(sorted(turns.items()))
        return handler if turns[handler] == TURNS else None

    def _undo(self, state: State, post: Post, receiver: Receiver) -> Iterator[Move]:
        undo = receiver.handler
        if undo is None:
            raise TypeError(f"{receiver} is no undo")
        base = Draft(state, post)
        base.bury(receiver.of, post.about)
        wanted = {self.model.index[kind] for kind in undo.signature.outcomes}
        done = _take_back(base, receiver.of, post.about)
        found = [outcome for one in done for outcome in one.outcomes if outcome[0] in wanted]
        forgotten = next((one.forgotten for one in done if one.forgotten), "")
        marked, note = base.state(), "" if found else "nothing to undo"
        for chosen in product(self.choices(state, undo, post.kind), repeat=len(found)):
            draft = Draft(marked)
            sent = tuple(
                (kind, self._undone_about(kind, about, post, outcome))
                for alternative, outcome in zip(chosen, found, strict=True)
                for kind, about in alternative
            )
            self._send(draft, undo.service.name, sent, after=self._after(post))
            yield _given(receiver, post, draft, sent, note=note, forgotten=forgotten)

    def _undone_about(self, kind: int, about: int, post: Post, outcome: tuple[int, int]) -> int:
        """What an undo's message is about: its outcome's subject first of all."""
        if self.model.subject(kind) == self.model.subject(outcome[0]):
            return outcome[1]
        return post.about if about == SAME else about

    def _unless(self, state: State, post: Post, receiver: Receiver) -> Iterator[Move]:
        draft = Draft(state, post)
        draft.bury(receiver.of, post.about)
        yield _given(receiver, post, draft)

    def _arm(self, state: State, post: Post, receiver: Receiver) -> Iterator[Move]:
        draft = Draft(state, post)
        self._set(draft, receiver.of, post.kind, post.about, after=self._after(post))
        yield _given(receiver, post, draft)

    def _until(self, state: State, post: Post, receiver: Receiver) -> Iterator[Move]:
        draft = Draft(state, post)
        _clear(draft, receiver.of, post.about)
        yield _given(receiver, post, draft)

    def _conduct(self, state: State, post: Post, receiver: Receiver) -> Iterator[Move]:
        """Have the conductors of a service take a message: each as it stood before."""
        ways: list[tuple[Draft, Sent]] = [(Draft(state, post), ())]
        by = []
        for one in self.conductors_of(receiver):
            for run, to, onwards in _concerned(one, state, post):
                by.append(to)
                ways = [
                    (_moved(draft, run, new), (*sent, *more))
                    for draft, sent in ways
                    for new, more in onwards
                ]
        idle = name(self.model.conducted[receiver.number, post.kind][0])
        for draft, sent in ways:
            self._send(draft, receiver.service.name, sent, after=self._after(post))
            note = "" if by else "not awaited"
            yield _given(receiver, post, draft, sent, to=by[0] if by else idle, note=note)

    # What all of them share.

    def choices(self, state: State, handler: Handler[..., Any], kind: int) -> Sequence[Alternative]:
        """What a handler may publish now."""
        has_ended = state.has_ended(handler.service.name)
        return self.model.choices(handler, kind, has_ended=has_ended)

    def _after(self, post: Post) -> bool:
        return post.after or post.kind in self.model.failing

    def _too_late(self, state: State, watch: Watch, post: Post, sent: Sent) -> int | None:
        """The end after which a final step ran, though it does not follow from it.

        A step that announces an end itself is not meant: that is a fault of its own.
        """
        stops = {(kind, about) for kind in watch.unless for about in (ALL, post.about)}
        if self._after(post) or not stops.isdisjoint(state.said):
            return None
        if any(kind in self.model.ends for kind, _ in sent):
            return None
        return next((kind for kind, _ in state.ends if kind in self.model.failing), None)

    def _send(self, draft: Draft, service: str, sent: Sent, *, after: bool) -> None:
        """Put messages under way; those of a service arm and end its own deadlines."""
        model = self.model
        for kind, about in sent:
            for receiver in model.to.get(kind, ()):
                draft.posts.append(Post(receiver.number, kind, about, after))
            if kind in model.ends:
                draft.ends = (*draft.ends, (kind, service))
            if kind in model.told:
                draft.said |= {(kind, about)}
            for one in model.arms.get((service, kind), ()):
                self._set(draft, one, kind, about, after=after)
            for one in model.untils.get((service, kind), ()):
                _clear(draft, one, about)

    def _set(self, draft: Draft, number: int, kind: int, about: int, *, after: bool) -> None:
        """Arm a deadline, unless what ends it was seen."""
        is_over = (number, ALL) in draft.stones or (number, about) in draft.stones
        if not is_over:
            draft.armed = (*draft.armed, Armed(number, kind, about, after))

    def told(self, move: Move) -> Happening:
        """A move, as it is told to people and to the rehearsal."""
        outcome = tuple(wire(self.model.kinds[kind]) for kind, _ in move.sent)
        kind = wire(self.model.kinds[move.kind])
        return Happening(move.do, kind, move.about, move.to, move.role, outcome, move.note)

    def told_lost(self, state: State) -> Iterator[Happening]:
        """The outside calls that are never answered."""
        for post in state.posts if self.lost is not None else ():
            receiver = self.model.receivers[post.to]
            if receiver.role == "step" and receiver.name == self.lost:
                kind = wire(self.model.kinds[post.kind])
                yield Happening("lost", kind, post.about, receiver.name, "step")


def _about(said: Alternative, about: int) -> Sent:
    return tuple((kind, about if one == SAME else one) for kind, one in said)


def _given(
    receiver: Receiver, post: Post, draft: Draft, sent: Sent = (), *, to: str = "", **more: Any
) -> Move:
    """A message was handed to a receiver."""
    to = to or receiver.name
    return Move("deliver", post.kind, post.about, to, receiver.role, draft.state(), sent, **more)


def _plainly(step: int) -> int:
    """The mark, beside the tombstones, that a plain step took a step back: it stops nothing."""
    return -1 - step


def _remember(draft: Draft, state: State, watch: Watch, post: Post, sent: Sent) -> None:
    """Keep what a step did, if something takes it back."""
    outcomes = tuple(one for one in sent if one[0] in watch.accepted)
    if outcomes or (not sent and NOTHING in watch.accepted):
        plain = state.buried(_plainly(watch.number), post.about)
        overtaken = plain or any(number == watch.number for number, _ in state.stones)
        done = Done(watch.number, post.about, outcomes, overtaken=overtaken)
        draft.done = (*draft.done, done)


def _take_back(draft: Draft, step: int, about: int) -> Sequence[Done]:
    """Take back what of a step a subject reaches; gives it."""
    found = [one for one in draft.done if one.step == step and about in (ALL, one.about)]
    draft.done = [one for one in draft.done if one not in found]
    return found


def _clear(draft: Draft, deadline: int, about: int) -> None:
    """End a deadline, also one that is not armed yet."""
    draft.bury(deadline, about)
    draft.armed = [
        one for one in draft.armed if one.deadline != deadline or about not in (ALL, one.about)
    ]


def _without(armed: Sequence[Armed], one: Armed) -> Sequence[Armed]:
    """Those but one: a deadline that was armed twice is up twice."""
    place = armed.index(one)
    return (*armed[:place], *armed[place + 1 :])


def _moved(draft: Draft, old: Run | None, new: Run) -> Draft:
    """A moment in which a run has gone on; the one before stays as it is."""
    found = Draft(draft.state())
    found.runs = (*(one for one in found.runs if one != old), new)
    return found


def _concerned(
    one: Conducting, state: State, post: Post
) -> Iterator[tuple[Run | None, str, list[Onward]]]:
    """For each run that a message concerns: which handler takes it, and how it may go on."""
    mine = [run for run in state.runs if run.conductor == one.number]
    if post.kind == one.starts and all(run.about != post.about for run in mine):
        begins = f"{one.conductor.service.name}.begin_{one.conductor.name}"
        yield None, begins, list(one.begin(post.about))
    for run in mine:
        if awaited := one.awaited(run, post.kind, post.about):
            yield run, one.handler(*awaited[0]), list(one.settle_all(run, awaited))
