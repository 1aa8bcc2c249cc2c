"""Finds messages that may as well be delivered first: their order among the others is no matter.

This is partial order reduction by persistent sets: whatever may come before these messages, or
between them, neither changes what they do nor is changed by it, and what they do cannot be told
apart by when it is done. No run comes back to where it was, as each delivery takes a message away
for good, so none is put off for ever.
(Godefroid, Partial-Order Methods for the Verification of Concurrent Systems, 1996, chapter 4.)
"""

from __future__ import annotations

from collections.abc import Collection

from choreo.check.model import Receiver
from choreo.check.play import Play
from choreo.check.state import Post, State
from choreo.store.runs import TaskStatus


def apart(play: Play, state: State) -> Collection[Post]:
    """As few messages as may be that meet nothing else under way, or to come; () if all meet."""
    fewest: Collection[Post] = ()
    for post in dict.fromkeys(state.posts):
        if play.can_receive(state, post):
            found = _together(play, state, post)
            if found and (not fewest or len(found) < len(fewest)):
                fewest = found
            if len(fewest) == 1:
                break
    return fewest


def _together(play: Play, state: State, post: Post) -> Collection[Post]:
    """A message, those that it meets, that these meet, and so on; () if it cannot be told."""
    found, waiting = {post: None}, [post]
    while waiting:
        met = _meets(play, state, waiting.pop())
        if met is None:
            return ()
        waiting += (one for one in met if one not in found)
        found |= dict.fromkeys(met)
    return found


def _meets(play: Play, state: State, post: Post) -> Collection[Post] | None:
    """The messages under way that a message meets, at once or by what they lead to.

    None if it may meet a deadline, or is such that its order always matters.
    """
    receiver = play.model.receivers[post.to]
    match receiver.role:
        case "step":
            return _step_meets(play, state, post, receiver)
        case "undo" | "unless":
            watch = play.model.watches[receiver.of]
            if not watch.triggers & play.model.comes:
                return ()  # there is nothing to undo or to stop in this flow
            if not receiver.is_plain:
                return None
            kinds, rivals = watch.triggers | watch.stoppers, watch.receivers | watch.stopped_by
            return _rivals(play, state, post, kinds, rivals)
        case "arm" | "until":
            return () if state.buried(receiver.of, post.about) else None
        case "conduct":
            return () if _is_over(play, state, post, receiver) else None


def _step_meets(
    play: Play, state: State, post: Post, receiver: Receiver
) -> Collection[Post] | None:
    model = play.model
    step, watch = model.step(receiver.of), model.watches[receiver.of]
    if state.buried(watch.number, post.about):
        return ()
    if watch.takes_back or watch.number in model.capped:
        return None
    if not receiver.is_plain:
        # A service that has ended the flow stays silent, whatever comes.
        silent = not (watch.is_undone or step.is_async)
        return () if silent and not any(play.choices(state, step, post.kind)) else None
    unwanted = watch.stoppers | (model.failing_mask if watch.is_final else 0)
    return _rivals(play, state, post, unwanted, watch.stopped_by)


def _is_over(play: Play, state: State, post: Post, receiver: Receiver) -> bool:
    """Whether the conductors of a service will never act on a message."""
    starts = 0
    for one in play.conductors_of(receiver):
        mine = [run for run in state.runs if run.conductor == one.number]
        if any(run.awaits(TaskStatus.ASKED) or run.awaits(TaskStatus.UNDOING) for run in mine):
            return False
        if post.kind == one.starts and all(run.about != post.about for run in mine):
            return False
        starts |= 1 << one.starts
    others = (one for one in state.posts if one.to == receiver.number)
    begins = any(starts >> one.kind & 1 for one in others)
    return not begins and _rivals(play, state, post, starts, ()) == []


def _rivals(
    play: Play, state: State, post: Post, kinds: int, receivers: Collection[int]
) -> list[Post] | None:
    """The other messages that lead to these kinds or go to these receivers.

    None if time that is up may lead to the kinds.
    """
    ahead, others = play.model.ahead(state.deciders), list(state.posts)
    others.remove(post)
    if any(ahead.of_deadline[one.deadline] & kinds for one in state.armed):
        return None
    if any(
        ahead.of_kind[play.conducting[run.conductor].commands[task.part]] & kinds
        for run in state.runs
        for task in run.tasks
        if task.status == TaskStatus.ASKED
    ):
        return None
    return [
        one for one in others if one.to in receivers or ahead.of_delivery[one.to, one.kind] & kinds
    ]
