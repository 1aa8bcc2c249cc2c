"""What the signatures alone show: who hears what nobody says, who owns what, what lacks an undo."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from choreo.check.choreography import Choreography, name, where, wire
from choreo.check.finding import Finding, Rule
from choreo.contract import Command
from choreo.flow import Flow
from choreo.service import Handler, Service, Step
from choreo.signature import MessageType


def of_signatures(
    choreography: Choreography, elsewhere: Collection[MessageType] = ()
) -> Iterator[Finding]:
    """Every finding for which no flow need be played, but about what is only said `elsewhere`."""
    for kind in _kinds(choreography):
        if kind not in elsewhere:
            yield from _of_contract(choreography, kind)
    yield from _owners(choreography, elsewhere)
    for service in choreography.services:
        for step in service.steps:
            if not set(step.signature.consumes) <= set(elsewhere):
                yield from _of_step(choreography, step)


def _kinds(choreography: Choreography) -> list[MessageType]:
    starts = (flow.starts for flow in choreography.flows)
    ends = (end for flow in choreography.flows for end in flow.ends.values())
    used = {*choreography.hearers, *choreography.publishers, *starts, *ends}
    every = used.union(choreography.contracts)
    # What the runtime itself announces (dead letters) is no project's contract.
    own = (kind for kind in every if not kind.__module__.startswith("choreo."))
    return sorted(own, key=wire)


def _of_contract(choreography: Choreography, kind: MessageType) -> Iterator[Finding]:
    # Who hears few things first: it tells more than who hears everything.
    heard = sorted(choreography.hearers.get(kind, []), key=lambda one: len(one.signature.consumes))
    said = choreography.publishers.get(kind, [])
    starts = [flow for flow in choreography.flows if flow.starts is kind]
    ends = [flow for flow in choreography.flows if kind in flow.ends.values()]
    at = (heard or said)[0].place if heard or said else where(kind)
    kept = any(_keeps(one.service, kind) for one in said)
    what = f"{kind.__name__} ({wire(kind)})"
    if kind not in choreography.contracts:
        yield Finding(
            Rule.UNDECLARED,
            f"{what} is used, and no module of the contracts package declares it",
            "move it to the contracts package: what services agree on stands there",
            at,
        )
    if not (heard or ends or kept):  # an end is for whoever started the flow
        begun = [f"the flow {flow.name} starts with it" for flow in starts]
        uses = [f"{_names(said)} publishes it"] if said else begun or ["it is declared"]
        yield Finding(
            Rule.UNHEARD,
            f"nobody hears {what}: {' and '.join(uses)}",
            "subscribe a handler to it, or delete it",
            (said or starts)[0].place if said or starts else where(kind),
        )
    if not (said or starts):
        yield from _unpublished(choreography, kind, heard, ends)


def _keeps(service: Service, kind: MessageType) -> bool:
    """Whether a service needs an event of its own: for an undo, or for a deadline."""
    if issubclass(kind, Command):
        return False
    undone = (one for undo in service.handlers.values() for one in undo.signature.outcomes)
    timed = (one for late in service.deadlines for one in (*late.signature.consumes, *late.until))
    return kind in (*undone, *timed)


def _unpublished(
    choreography: Choreography,
    kind: MessageType,
    heard: Sequence[Handler[..., Any]],
    ends: Sequence[Flow],
) -> Iterator[Finding]:
    what, topic = f"{kind.__name__} ({wire(kind)})", kind.__address__.topic
    others = sorted(
        one.__address__.version
        for one in choreography.publishers
        if one.__address__.topic == topic and one is not kind
    )
    places = [*(one.place for one in heard), *(flow.place for flow in ends)]
    wanted = [f"it is waited for by {_names(heard)}"] if heard else []
    wanted += [f"the flow {flow.name} ends with it" for flow in ends]
    why = f"; {', and '.join(wanted)}" if wanted else ""
    if others and wanted:
        versions = ", ".join(f"v{one}" for one in others)
        yield Finding(
            Rule.UNPUBLISHED_VERSION,
            f"nobody publishes {what}, only {versions} of it{why}",
            "take the version that is published, or publish both for a while",
            places[0],
        )
    elif not others:
        verb = "sends" if issubclass(kind, Command) else "publishes"
        yield Finding(
            Rule.UNPUBLISHED,
            f"nobody {verb} {what}{why}",
            "publish it, let a flow start with it, or delete it",
            places[0] if places else where(kind),
        )


def _owners(choreography: Choreography, elsewhere: Collection[MessageType]) -> Iterator[Finding]:
    """A command belongs to the service that handles it, an event to the one that announces it."""
    of: dict[tuple[str, bool], list[Handler[..., Any]]] = {}
    for kind, heard in choreography.hearers.items():
        if issubclass(kind, Command) and kind not in elsewhere:
            of.setdefault((kind.__address__.topic, True), []).extend(heard)
    for kind, said in choreography.publishers.items():
        if not issubclass(kind, Command) and kind not in elsewhere:
            of.setdefault((kind.__address__.topic, False), []).extend(said)
    for (topic, is_command), handlers in sorted(of.items(), key=lambda one: one[0]):
        services = sorted({one.service.name for one in handlers})
        if len(services) > 1:
            does = "handle" if is_command else "publish"
            yield Finding(
                Rule.TWO_OWNERS,
                f"{' and '.join(services)} both {does} {topic}: {_names(handlers)}",
                "give it to one of them; what the other has to say is a contract of its own",
                handlers[-1].place,
            )


def _of_step(choreography: Choreography, step: Step[..., Any]) -> Iterator[Finding]:
    undo = step.taken_back_by
    if undo is None and step.final is None:
        yield Finding(
            Rule.NO_UNDO,
            f"{name(step)} has neither an undo nor a reason why it needs none",
            f"declare @{step.name}.undo, or @service.on(final='why')",
            step.place,
        )
    if undo is None:
        return
    ways = undo.signature.returns
    if len(ways.single) + len(ways.several) < 2:
        return
    stuck = [kind for kind in undo.signature.publishes if not _goes_on(choreography, kind)]
    if len(stuck) > 1:
        yield Finding(
            Rule.FALLIBLE_UNDO,
            f"{name(undo)} ends as one of {', '.join(one.__name__ for one in stuck)}; whichever "
            f"it is, {step.name} counts as undone and nobody tries again",
            "let it raise where it fails, so that it is tried again; or act on the bad answer",
            undo.place,
        )


def _goes_on(choreography: Choreography, kind: MessageType) -> bool:
    """Whether somebody does more about it than to remember it."""
    return any(
        one.signature.publishes or one.is_async or one.conductor or one.kind == "undo"
        for one in choreography.hearers.get(kind, ())
    )


def _names(handlers: Iterable[Handler[..., Any]]) -> str:
    return ", ".join(dict.fromkeys(name(one) for one in handlers))
