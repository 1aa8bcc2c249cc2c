"""Checks a choreography: its signatures, and then every run of its flows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from choreo.check.ahead import members
from choreo.check.choreography import Choreography, name, wire
from choreo.check.explore import Exploration, explore, explore_apart
from choreo.check.finding import Explored, Finding, Happening, Report, Rule
from choreo.check.model import Model
from choreo.check.static import of_signatures
from choreo.check.verdict import Fault
from choreo.check.words import in_words
from choreo.flow import Flow
from choreo.signature import MessageType

#: How many states are searched for the shortest run; if there are more, one that is short is told.
_SHORTEST = 30_000
Tell = Callable[[str, int], None]


def check(
    choreography: Choreography,
    flows: Sequence[Flow] | None = None,
    tell: Tell = lambda _flow, _states: None,
) -> Report:
    """Check the signatures, and every run of these flows (None: of all).

    The signatures of what only other flows come to are left out.
    `tell` is told from time to time which flow is explored, and how many states it has so far.
    A flow of too many states is followed as far as may be, and told as such.
    """
    chosen = choreography.flows if flows is None else flows
    others = [flow for flow in choreography.flows if flow not in chosen]
    elsewhere = _said_in(choreography, others)
    if elsewhere:
        elsewhere -= _said_in(choreography, chosen)
    findings = list(of_signatures(choreography, elsewhere))
    explored: list[Explored] = []
    for flow in chosen:
        # Where nobody takes its first message, that is a finding already.
        if flow.starts in choreography.hearers:
            found, seen = _of_flow(Model(choreography, flow), tell)
            findings += found
            explored.append(seen)
    reached = {one for each in explored for one in each.reached}
    is_all = flows is None and all(one.is_whole for one in explored)
    every = [name(one) for one in choreography.handlers] if is_all else []
    return Report(findings, explored, [one for one in every if one not in reached])


def _said_in(choreography: Choreography, flows: Sequence[Flow]) -> set[MessageType]:
    """What these flows may come to, and what they are declared to."""
    declared = {kind for flow in flows for kind in (flow.starts, *flow.ends.values())}
    models = [Model(choreography, flow) for flow in flows]
    return declared | {model.kinds[kind] for model in models for kind in members(model.comes)}


def _of_flow(model: Model, tell: Tell) -> tuple[list[Finding], Explored]:
    def told(states: int) -> None:
        tell(model.flow.name, states)

    every = list(_explored(model, told))
    findings, told_of = list[Finding](), set[Fault]()
    for one, seen, lost in every:
        findings += _findings(model, one, seen, lost, told_of)
        told_of |= seen.faults.keys()
    all_of = [seen for _, seen, _ in every]
    is_whole = all(one.is_whole for one in all_of)
    announced = {kind for one in all_of for kind in one.announced}
    if is_whole:
        findings += _unreached(model, announced)
    return findings, Explored(
        flow=model.flow.name,
        states=sum(one.states for one in all_of),
        transitions=sum(one.transitions for one in all_of),
        ends=[word for kind, word in model.ends.items() if kind in announced],
        seconds=sum(one.seconds for one in all_of),
        is_whole=is_whole,
        reached=frozenset[str]().union(*(one.reached for one in all_of)),
    )


def _explored(
    model: Model, tell: Callable[[int], None]
) -> Iterator[tuple[Model, Exploration, str | None]]:
    """Explore a flow with each of its branches, then with each outside call lost.

    Where that comes to too many states, the rest is left.
    """
    reached, count = set[str](), 0
    waiting: list[str | None] = [None]
    while waiting:
        lost = waiting.pop(0)
        for part, seen in explore_apart(model, lost=lost, before=count, tell=tell):
            yield part, seen, lost
            if not seen.is_whole:
                return
            count += seen.states
            reached |= seen.reached
        if lost is None:
            waiting += _awaited_calls(model, reached)


def _awaited_calls(model: Model, reached: Collection[str]) -> list[str]:
    """The outside calls that ran and that something may follow from."""
    calls = [one for one in model.receivers if one.role == "step" and one.name in reached]
    return [
        one.name
        for one in calls
        if model.step(one.of).is_async
        and any(
            kind in model.to or kind in model.ends or (one.service.name, kind) in model.arms
            for kind in members(model.bits(model.step(one.of).signature.publishes))
        )
    ]


def _findings(
    model: Model, part: Model, seen: Exploration, lost: str | None, but: Collection[Fault]
) -> list[Finding]:
    """Each fault in words, with the shortest run that shows it.

    That is one of the part in which it was found; that nothing ends a flow, all of it shows.
    """
    faults = {fault: trace for fault, trace in seen.faults.items() if fault not in but}
    without_end = {fault for fault in faults if fault.rule is Rule.NO_END}
    shortest: dict[Fault, list[Happening]] = {}
    for of, wanted in ((model, without_end), (part, faults.keys() - without_end)):
        if wanted:
            shortest |= explore(of, lost=lost, wanted=wanted, most=_SHORTEST).faults
    return [
        Finding(fault.rule, *in_words(model, fault), model.flow.name, shortest.get(fault, trace))
        for fault, trace in faults.items()
    ]


def _unreached(model: Model, announced: Collection[int]) -> Iterator[Finding]:
    """The ends that no run comes to; one that nobody publishes is a finding already."""
    for kind, word in model.ends.items():
        publishers = model.choreography.publishers.get(model.kinds[kind])
        if kind not in announced and publishers:
            fault = Fault(Rule.UNREACHED_END, (name(publishers[0]), word, wire(model.kinds[kind])))
            yield Finding(fault.rule, *in_words(model, fault), model.flow.name)
