"""Judges messages: none is a phantom, lost, handled by nobody, answered twice, its own cause."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

from choreo.audit.effects import is_counted
from choreo.audit.evidence import Announced, Evidence, Kept, Row, Trace
from choreo.audit.finding import Finding, Severity
from choreo.contract import Command, Event, contract_of
from choreo.service import Handler, Route
from choreo.signature import Returns


def clashes(evidence: Evidence) -> Iterator[Finding]:
    """No id stands for two messages."""
    for one in evidence.clashing.values():
        if one.envelope.flow in evidence.judged:
            yield Finding(
                "clash",
                f"two messages have this id: a {evidence.messages[one.id].envelope.type} and a "
                f"{one.envelope.type}, with different bodies",
                flow=one.envelope.flow,
                message=one.id,
            )


# Phantoms.


def phantoms(evidence: Evidence) -> Iterator[Finding]:
    """Whatever a service announced, one of its handlers did for the message that it answers."""
    for flow in evidence.judged.values():
        for one in flow.announced:
            if one.is_command:
                continue  # from an outbox: its transaction wrote the rest as well
            why = _unexplained(evidence, one)
            if why is not None:
                yield Finding(
                    "phantom",
                    f"nothing explains this {one.envelope.type}: {why}",
                    flow=flow.id,
                    message=one.id,
                    handler=_name(one.envelope.source),
                )


def gaps(evidence: Evidence) -> Iterator[Finding]:
    """What a service answered is in the journal, which is not on disk when it confirms."""
    for flow in evidence.judged.values():
        for one in flow.announced:
            before = _before(one)
            if before is None or before in evidence.messages:
                continue
            if one.envelope.service in evidence.kept:
                yield Finding(
                    "gap",
                    f"{before}, which came before this {one.envelope.type}, is not in the journal",
                    flow=flow.id,
                    message=one.id,
                    handler=_name(one.envelope.source),
                    severity=Severity.NOTED,
                )


def _unexplained(evidence: Evidence, one: Announced) -> str | None:
    """Why a message should not be there; None if it should, or if a stranger published it."""
    service, _, name = one.envelope.source.removeprefix("/").partition("/")
    kept = evidence.kept.get(service)
    if kept is None or one.gave_up is not None:
        return None
    if one.envelope.causation is None:
        return f"it answers nothing, and {service} begins no flow by itself"
    return _strayed(evidence, one) or _unearned(evidence, kept, name, one)


def _unearned(evidence: Evidence, kept: Kept, name: str, one: Announced) -> str | None:
    """Why the handler that a message names cannot have announced it."""
    service, cause = kept.service.name, str(one.envelope.causation)
    handler, row = kept.service.handlers.get(name), kept.known.get((cause, name))
    is_undo = handler is not None and handler.kind == "undo"
    if row is None:
        if _was_deadline(evidence, kept, name, one):
            return None
        return f"the inbox of {service} knows nothing of {cause} and {name}"
    if row.status != "done" and not is_undo:  # one that was owed comes later than its cause
        return f"{service}.{name} has not done {cause}: it is {row.status}"
    return None


def _strayed(evidence: Evidence, one: Announced) -> str | None:
    """Why a message belongs to another flow than its own, if it does."""
    known = evidence.messages.get(_before(one) or "")
    if known is None or known.envelope.flow == one.envelope.flow:
        return None
    return f"it answers {known.id}, which belongs to another flow, {known.envelope.flow}"


def _before(one: Announced) -> str | None:
    """What must stand before it in the journal: its cause, or what came before a command.

    None: the flow began there, or a stranger says so.
    """
    envelope = one.envelope
    before = envelope.causation if envelope.command is None else envelope.last_event
    return None if before == envelope.flow else before


def _was_deadline(evidence: Evidence, kept: Kept, name: str, one: Announced) -> bool:
    """Whether it is what a deadline said; one's own events arm without a row in the inbox."""
    handler = kept.service.handlers.get(name)
    if handler is None or handler.kind != "deadline":
        return False
    cause = str(one.envelope.causation)
    if (cause, f"{name}.arm") in kept.known:
        return True
    if handler.conductor is None and one.envelope.command in _armed_by_own(kept, handler):
        return True
    if one.envelope.command is not None:
        step = name.removesuffix("_late")
        return any(task.flow == one.envelope.flow and task.step == step for task in kept.tasks)
    known = evidence.messages.get(cause)
    return known is not None and known.envelope.service == kept.service.name


def _armed_by_own(kept: Kept, handler: Handler[..., Any]) -> set[str]:
    """The service's own messages that arm a deadline: no inbox has them, no journal commands."""
    own = {kind.__address__.wire_type for kind in kept.service.published}
    return own & {kind.__address__.wire_type for kind in handler.signature.consumes}


# Cycles.


def cycles(evidence: Evidence) -> Iterator[Finding]:
    """No message is its own cause, however many stand between."""
    over: set[str] = set()
    for start in evidence.messages.values():
        path: dict[str, None] = {}
        one: Announced | None = start
        while one is not None and one.id not in over:
            if one.id in path:
                ids = list(path)
                ring = ids[ids.index(one.id) :]
                if one.envelope.flow in evidence.judged:
                    yield Finding(
                        "cycle",
                        f"{len(ring)} messages are each other's cause: {', '.join(ring)}",
                        flow=one.envelope.flow,
                        message=one.id,
                        handler=_name(one.envelope.source),
                    )
                break
            path[one.id] = None
            one = evidence.messages.get(_before(one) or "")
        over.update(path)


# Missing.


def missing(evidence: Evidence) -> Iterator[Finding]:
    """Whoever hears an event has handled it, or will, or keeps a dead letter of it."""
    heard: dict[str, list[tuple[Kept, Route]]] = defaultdict(list)
    for kept in evidence.kept.values():
        for kind, routes in kept.service.routes().items():
            heard[kind.__address__.wire_type] += ((kept, route) for route in routes)
    refused = _refused(evidence)
    for flow in evidence.judged.values():
        for one in flow.announced:
            if not one.in_journal:
                yield _unsent(evidence, one)
                continue
            for kept, route in heard[one.envelope.type]:
                row = kept.known.get((one.id, route.key))
                if (row is None or row.status == "begun") and (
                    kept.service.name,
                    one.id,
                ) not in refused:
                    yield _unhandled(evidence, one, kept, route)


def _unhandled(evidence: Evidence, one: Announced, kept: Kept, route: Route) -> Finding:
    service = kept.service.name
    what, severity = f"{one.envelope.type} was not handled", evidence.unless_settled
    if severity is Severity.OPEN and not evidence.is_young(one.at):
        if waiting := evidence.waiting.get(service):
            what += f"; {waiting} messages wait in the queue {service}"
        elif evidence.is_young(kept.last):
            what += f"; {service} is at work"
        elif one.at < kept.first.get(route.key, float("inf")):
            what += f"; {service}.{route.key} has handled none of that time: was it added later?"
        else:
            severity = Severity.WRONG
            what += f", and the queue {service} is empty"
    return Finding(
        "missing",
        what,
        flow=one.envelope.flow,
        message=one.id,
        handler=f"{service}.{route.key}",
        severity=severity,
        look=f"choreo replay --to {service} --flow {one.envelope.flow}",
    )


def _unsent(evidence: Evidence, one: Announced) -> Finding:
    return Finding(
        "unsent",
        f"{one.envelope.type} is in the outbox and not yet published",
        flow=one.envelope.flow,
        message=one.id,
        handler=_name(one.envelope.source),
        severity=evidence.unless_settled,
        look="choreo doctor",
    )


def _refused(evidence: Evidence) -> set[tuple[str, str | None]]:
    """Services and the messages that they gave up before any handler, or take up again."""
    found = {(service, cause) for service, handler, cause in evidence.given_up if not handler}
    for kept in evidence.kept.values():
        found |= {
            (kept.service.name, json.loads(row.properties)["message_id"])
            for row in kept.due
            if row.kind == "retry" and not row.handler
        }
    return found


# Lost and doubled.


def answers(evidence: Evidence) -> Iterator[Finding]:
    """What a handler did for a message, it announced once, and that arrived."""
    rules = {
        name: {
            handler.name: _bounds(handler.signature.returns)
            for handler in kept.service.handlers.values()
            if handler.kind == "step"
        }
        for name, kept in evidence.kept.items()
    }
    for flow in evidence.judged.values():
        for kept, row in flow.inbox:
            bounds = rules[kept.service.name].get(row.handler)
            if bounds is not None and row.status == "done":
                yield from _answer(evidence, kept, row, bounds)
        yield from _twins(evidence, flow)


def _answer(
    evidence: Evidence, kept: Kept, row: Row, bounds: tuple[int, int | None]
) -> Iterator[Finding]:
    service = kept.service.name
    said = evidence.answers.get((row.message_id, f"/{service}/{row.handler}"), [])
    got = Counter(one.envelope.type for one in said if not one.is_command)
    if row.outcome is not None:
        wanted = Counter(kind for kind, _ in json.loads(row.outcome) if not _is_command(kind))
        lacking, surplus = wanted - got, got - wanted
    else:
        least, most = bounds
        many = got.total()
        lacking = Counter({"answer": least - many} if many < least else {})
        surplus = Counter({"answer": many - most} if most is not None and many > most else {})
    found: dict[str, str] = {}
    if surplus:
        ids = ", ".join(one.id for one in said)
        found["doubled"] = f"announced {_counted(surplus)} too many for it: {ids}"
    if lacking and not evidence.is_young(row.at):
        found["lost"] = (
            f"announced {_counted(lacking)} for it, neither in the journal nor in the outbox"
        )
    for kind, what in found.items():
        yield Finding(
            kind, what, flow=row.flow, message=row.message_id, handler=f"{service}.{row.handler}"
        )


def _twins(evidence: Evidence, flow: Trace) -> Iterator[Finding]:
    """Equal announcements of one handler for one message, where any number is allowed."""
    alike: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for one in flow.announced:
        envelope = one.envelope
        kept = evidence.kept.get(envelope.service)
        name = _name(envelope.source).partition(".")[2]
        handler = None if kept is None else kept.service.handlers.get(name)
        if handler is None or envelope.causation is None or one.is_command:
            continue
        if _is_unbounded(handler, evidence, one):
            key = (envelope.causation, envelope.source, envelope.type, envelope.subject, one.body)
            alike[key].append(one.id)
    for (cause, source, wire_type, *_), ids in alike.items():
        if len(ids) > 1:
            yield Finding(
                "doubled",
                f"announced {wire_type} {len(ids)} times alike for it: {', '.join(ids)}",
                flow=flow.id,
                message=str(cause),
                handler=_name(str(source)),
            )


def _is_unbounded(handler: Handler[..., Any], evidence: Evidence, one: Announced) -> bool:
    """Whether nothing else tells how often it may have announced something."""
    if handler.kind == "undo":
        return not is_counted(handler)
    if handler.kind != "step":
        return True
    kept = evidence.kept[handler.service.name]
    row = kept.known.get((str(one.envelope.causation), handler.name))
    exact = row is not None and row.outcome is not None
    return not exact and _bounds(handler.signature.returns)[1] is None


@cache
def _bounds(returns: Returns) -> tuple[int, int | None]:
    """How many events it may announce at least and at most; None is any number."""
    sizes: list[tuple[int, int | None]] = [(0, 0)] if returns.none else []
    sizes += [(1, 1) if issubclass(kind, Event) else (0, 0) for kind in returns.single]
    for several in returns.several:
        if several.repeats:
            sizes.append((0, None))
        else:
            are = [[issubclass(kind, Event) for kind in kinds] for kinds in several.places]
            sizes.append((sum(map(all, are)), sum(map(any, are))))
    tops = [most for _, most in sizes]
    bounded = [most for most in tops if most is not None]
    top = max(bounded, default=0) if len(bounded) == len(tops) else None
    return min((least for least, _ in sizes), default=0), top


def _is_command(wire_type: str) -> bool:
    contract = contract_of(wire_type)
    return contract is not None and issubclass(contract, Command)


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{many} {kind}" for kind, many in kinds.items())


def _name(source: str) -> str:
    """A source as `service.handler`."""
    return source.strip("/").replace("/", ".")
