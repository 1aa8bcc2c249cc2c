"""Says what is wrong once a schedule has settled: ends, the audit's promises, the project's own."""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import sqlite

from choreo.audit import Evidence, Kept, Severity
from choreo.audit import judge as audit
from choreo.audit.evidence import Announced, announced
from choreo.audit.gather import READ
from choreo.discovery import place_of
from choreo.envelope import Envelope
from choreo.envelope import read as read_envelope
from choreo.errors import describe
from choreo.rehearse.instance import Part
from choreo.rehearse.project import Project
from choreo.rehearse.rabbit import Stream
from choreo.rehearse.world import AbsentError, World
from choreo.topology import JOURNAL
from choreo.tree import Entry, Flow

if TYPE_CHECKING:
    from choreo.rehearse.play import Play


@dataclass(frozen=True, slots=True)
class Wrong:
    """Something that must not be."""

    #: Who says so: an invariant's name, a kind of the audit's findings, "end", "error" ...
    kind: str
    what: str
    #: The flow that it is about, if it is about one.
    flow: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


def judge(play: Play, project: Project) -> tuple[list[Wrong], Evidence]:
    """Everything that is wrong, and what it was judged by."""
    found = [Wrong("error", what) for what in dict.fromkeys(play.findings)]
    found += (Wrong("end", what, flow) for flow, what in play.customers.findings())
    evidence = _evidence(play)
    for one in audit(evidence).findings:
        if one.severity is Severity.WRONG or one.kind == "dead letter":
            found.append(Wrong(one.kind, str(one).removeprefix(f"{one.kind}: "), one.flow))
    absent = [part.plan.service for part in play.parts if part.name in play.absent]
    world = World(evidence, play.stand_ins, play.customers.started.values(), absent)
    for invariant in project.invariants:
        try:
            # Sets are in another order in each process, and an invariant may go through some.
            found += (Wrong(invariant.__name__, what) for what in sorted(_said(invariant, world)))
        except Exception as error:  # noqa: BLE001 - it may meet a world that nobody thought of
            what = f"it cannot be judged: {describe(error)}{place_of(error)}"
            found.append(Wrong(invariant.__name__, what))
    return found, evidence


def _said(invariant: Callable[[World], Iterable[str]], world: World) -> Iterator[str]:
    """What an invariant finds wrong, until it asks for a service that is absent."""
    with suppress(AbsentError):
        yield from invariant(world)


def handlers(evidence: Evidence, sources: Iterable[str]) -> Iterator[str]:
    """The handlers that have run, as `service.handler`; `sources`: who has published anything."""
    for name, kept in evidence.kept.items():
        undos = {
            step.name: step.taken_back_by.name for step in kept.service.steps if step.taken_back_by
        }
        for row in kept.inbox:
            if row.status == "done" and row.handler in kept.service.handlers:
                if row.handler not in undos.values():
                    yield f"{name}.{row.handler}"
                if row.undo == "done":
                    yield f"{name}.{undos[row.handler]}"
    for source in sources:
        service, _, handler = source.strip("/").partition("/")
        if service in evidence.kept and handler in evidence.kept[service].service.handlers:
            yield f"{service}.{handler}"


def trees(play: Play, messages: Iterable[Announced]) -> list[Flow]:
    """The flows that were started, with what the journal tells of them."""
    found = {
        one.id: Flow(one.id, starts_with=type(one.message).__address__.wire_type)
        for one in play.customers.started.values()
    }
    for one in messages:
        if one.in_journal and (flow := found.get(one.envelope.flow)) is not None:
            flow.add(Entry(one.envelope, json.loads(one.body)))
    return list(found.values())


def _evidence(play: Play) -> Evidence:
    evidence = Evidence(
        play.settings,
        [_kept(part) for part in play.parts if part.name not in play.absent],
        [*journal(play), *_unsent(play)],
        began=play.clock.now(),
        is_settled=True,
    )
    databases = {part.name: part.database for part in play.parts}
    evidence.reader = lambda service, work: databases[service].transact(lambda db, _: work(db))
    return evidence


def journal(play: Play) -> list[Announced]:
    """What the journal holds."""
    stream = play.rabbit.queues.get(JOURNAL)
    if not isinstance(stream, Stream):
        return []
    now = play.clock.now()
    return [announced(read_envelope(one, now), one.body) for one in stream.messages]


def _unsent(play: Play) -> Iterator[Announced]:
    for part in play.parts:
        if part.database.filled.is_empty("choreo_outbox"):
            continue
        for envelope, body in part.database.driver.execute(
            "SELECT envelope, body FROM choreo_outbox"
        ):
            yield announced(Envelope(**json.loads(envelope)), body, in_journal=False)


def _kept(part: Part) -> Kept:
    """What `choreo audit` reads of a service, read quickly."""
    found: dict[str, Any] = {}
    if not part.database.is_used:
        return Kept(part.plan.service)
    for name, (table, statement, row) in _statements().items():
        if part.database.filled.is_empty(table):
            found[name] = []
            continue
        rows = part.database.driver.execute(statement).fetchall()
        found[name] = [row(*one) for one in rows] if rows else rows
    return Kept(part.plan.service, **found)


@cache
def _statements() -> dict[str, tuple[str, str, Any]]:
    dialect = sqlite.dialect()
    return {
        name: (
            f"choreo_{name}",
            str(select.compile(dialect=dialect)),
            namedtuple(name, select.selected_columns.keys()),  # noqa: PYI024 - made from a table
        )
        for name, select in READ.items()
    }
