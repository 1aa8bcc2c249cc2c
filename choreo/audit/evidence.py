"""What an audit judges: the journal and the services' memories, put in order by flow."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import sqlalchemy as sa

from choreo.audit.finding import Severity
from choreo.contract import Command, Message, contract_of, decode
from choreo.envelope import Envelope, moment
from choreo.errors import UndecodableError
from choreo.service import Service
from choreo.settings import Settings

T = TypeVar("T")
M = TypeVar("M", bound=Message)
Row = sa.Row[Any]

#: As what a service announces its dead letters.
_LETTER = "choreo.dead_lettered.v1"
#: What happened so shortly before the audit began may still be under way.
GRACE_S = 10.0
#: Where the journal has lost its beginning, so many of its first events may have overtaken older
#: ones that are lost: flows that began before all of them are not judged.
UNSURE = 1000
#: A journal that has its beginning was made so long before anything happened, or later.
_CLOCKS_S = 60.0


@dataclass(frozen=True, slots=True)
class Announced:
    """A message that a service or a stranger published: from the journal, or from an outbox."""

    envelope: Envelope
    body: bytes
    #: Seconds since 1970.
    at: float
    #: False while it is known from an outbox alone.
    in_journal: bool = True

    @property
    def id(self) -> str:
        """Its message's id."""
        return self.envelope.id

    @property
    def is_command(self) -> bool:
        """Whether it is one; the journal has none."""
        contract = contract_of(self.envelope.type)
        return contract is not None and issubclass(contract, Command)

    @property
    def gave_up(self) -> str | None:
        """The handler that gave up what this answers, "" if none was reached.

        None if this announces no dead letter, or nobody but a stranger can have written it so.
        """
        envelope = self.envelope
        if envelope.type != _LETTER or envelope.source != f"/{envelope.service}/dead":
            return None
        try:
            said = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        handler = said.get("handler") if isinstance(said, dict) else None
        return handler if isinstance(handler, str) else None


def announced(envelope: Envelope, body: bytes, *, in_journal: bool = True) -> Announced:
    """A message with the time that its envelope gives."""
    return Announced(envelope, body, moment(envelope.time).timestamp(), in_journal)


@dataclass(slots=True)
class Kept:
    """What one service keeps in choreo's tables, read in one transaction."""

    service: Service
    inbox: Sequence[Row] = ()
    outbox: Sequence[Row] = ()
    due: Sequence[Row] = ()
    tombstones: Sequence[Row] = ()
    dead: Sequence[Row] = ()
    runs: Sequence[Row] = ()
    tasks: Sequence[Row] = ()
    #: The inbox by message id and handler.
    known: dict[tuple[str, str], Row] = field(init=False)
    buried: set[tuple[str, str, str]] = field(init=False)
    #: What is due, by kind, handler and message id.
    planned: dict[tuple[str, str, str], Row] = field(init=False)
    #: When the service took the last message.
    last: float = field(init=False)
    #: The inbox by handler.
    by_handler: dict[str, list[Row]] = field(init=False)
    #: When each handler took its first message.
    first: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.known = {(row.message_id, row.handler): row for row in self.inbox}
        self.buried = {(row.flow, row.handler, row.subject) for row in self.tombstones}
        self.planned = {(row.kind, row.handler, row.message_id): row for row in self.due}
        self.last = max((row.at for row in self.inbox), default=0.0)
        self.by_handler = defaultdict(list)
        for row in self.inbox:
            self.by_handler[row.handler].append(row)
        self.first = {name: min(row.at for row in rows) for name, rows in self.by_handler.items()}

    def is_buried(self, flow: str, handler: str, subject: str | None) -> bool:
        """Whether a tombstone keeps a handler from running."""
        return (flow, handler, "") in self.buried or (flow, handler, subject or "") in self.buried


@dataclass(slots=True)
class Trace:
    """Everything that is known of one flow."""

    id: str
    announced: list[Announced] = field(default_factory=list)
    #: Each with the service that keeps it.
    inbox: list[tuple[Kept, Row]] = field(default_factory=list)
    #: When the first and the last thing happened that is known of it.
    began: float = float("inf")
    last: float = float("-inf")

    def happened(self, at: float) -> None:
        """Take note of when something happened."""
        self.began = min(self.began, at)
        self.last = max(self.last, at)


class Evidence:
    """The journal and the services' memories as they were when the audit began."""

    def __init__(
        self,
        settings: Settings,
        kept: Iterable[Kept],
        messages: Iterable[Announced],
        *,
        began: float,
        waiting: Mapping[str, int] | None = None,
        is_cut: bool = False,
        is_settled: bool = False,
        only: str | None = None,
        absent: Iterable[str] = (),
    ) -> None:
        """`messages`: the journal in its order, then what is in the outboxes alone.

        `waiting`: how many messages wait in each queue; `is_cut`: the journal has lost its
        beginning; `is_settled`: nothing is under way any more; `only`: how the id of the one flow
        ends that is asked for; `absent`: services that have never run.
        """
        self.settings = settings
        self.kept = {one.service.name: one for one in kept}
        self.began = began
        self.waiting = dict(waiting or {})
        self.is_settled = is_settled
        self.only = only
        self.absent = tuple(absent)
        #: By id, each message once.
        self.messages: dict[str, Announced] = {}
        #: Ids that came with several bodies or types.
        self.clashing: dict[str, Announced] = {}
        self.flows: dict[str, Trace] = {}
        #: Who answered what: by the cause's id and the source.
        self.answers: dict[tuple[str | None, str], list[Announced]] = defaultdict(list)
        self._arrange(messages)
        since = self._known_since(is_cut=is_cut)
        #: The flows of which everything is known, by their ids.
        self.judged = {
            one.id: one
            for one in self.flows.values()
            if one.began > since and (only is None or one.id.endswith(only))
        }
        #: Flows of which a part is under way or waits for a person; set once that is known.
        self.unfinished: set[str] = set()
        #: Opens a service's database; set by who gathered the evidence.
        self.reader: Callable[[str, Callable[[sa.Connection], Any]], Any] | None = None

    def _arrange(self, messages: Iterable[Announced]) -> None:
        for one in messages:
            known = self.messages.setdefault(one.id, one)
            if known is not one:
                if (known.body, known.envelope.type) != (one.body, one.envelope.type):
                    self.clashing[one.id] = one
                continue
            self.answers[one.envelope.causation, one.envelope.source].append(one)
            flow = self._flow(one.envelope.flow)
            flow.announced.append(one)
            flow.happened(one.at)
        for kept in self.kept.values():
            for row in kept.inbox:
                flow = self._flow(row.flow)
                flow.inbox.append((kept, row))
                flow.happened(row.at)

    def _flow(self, identifier: str) -> Trace:
        flow = self.flows.get(identifier)
        if flow is None:
            flow = self.flows[identifier] = Trace(identifier)
        return flow

    def _known_since(self, *, is_cut: bool) -> float:
        """Since when everything that happened is in the journal, and the services remember it."""
        remembered = self.began - self.settings.retention_days * 86400
        in_journal = [one.at for one in self.messages.values() if one.in_journal]
        if not in_journal:
            return remembered
        if is_cut:
            return max(remembered, *in_journal[:UNSURE])
        return max(remembered, in_journal[0] - _CLOCKS_S)

    # What a check may ask.

    def is_young(self, at: float) -> bool:
        """Whether what happened then may still be under way."""
        return not self.is_settled and at > self.began - GRACE_S

    @property
    def unless_settled(self) -> Severity:
        """What to think of something that is under way, unless nothing may be any more."""
        return Severity.WRONG if self.is_settled else Severity.OPEN

    @cached_property
    def ended(self) -> dict[str, Trace]:
        """The flows in which nothing is to happen any more, by their ids."""
        return {
            one.id: one
            for one in self.judged.values()
            if one.id not in self.unfinished and not self.is_young(one.last)
        }

    @cached_property
    def given_up(self) -> set[tuple[str, str, str | None]]:
        """Service, handler and message of every dead letter, also of those that are gone.

        The handler is "" where none was reached.
        """
        found = {
            (kept.service.name, row.handler, row.message_id)
            for kept in self.kept.values()
            for row in kept.dead
        }
        for one in self.messages.values():
            if (handler := one.gave_up) is not None:
                found.add((one.envelope.service, handler, one.envelope.causation))
        return found

    def begun_by(self, flow: str) -> set[str]:
        """Who took the flow's first message, as `service.handler`."""
        found = self.flows.get(flow)
        rows = found.inbox if found else ()
        return {
            f"{kept.service.name}.{row.handler}" for kept, row in rows if row.message_id == flow
        }

    def of(self, contract: type[M]) -> Iterator[tuple[Announced, M]]:
        """Every message of this contract, in the order of the journal, with what it says."""
        for one in self._of_type.get(contract.__address__.wire_type, ()):
            try:
                yield one, decode(contract, one.body)
            except UndecodableError:
                continue  # whoever heard it has a dead letter

    @cached_property
    def _of_type(self) -> dict[str, list[Announced]]:
        found: dict[str, list[Announced]] = defaultdict(list)
        for one in self.messages.values():
            found[one.envelope.type].append(one)
        return found

    def reading(self, service: str, work: Callable[[sa.Connection], T]) -> T:
        """Let something read in a service's database."""
        if self.reader is None:
            raise LookupError(f"the database of {service} cannot be opened for this evidence")
        found: T = self.reader(service, work)
        return found

    def rows(self, service: str, table: sa.Table) -> list[dict[str, Any]]:
        """A table of a service; empty if the service, or the table, is not there."""
        if service not in self.kept:
            return []

        def read(db: sa.Connection) -> list[dict[str, Any]]:
            if not sa.inspect(db).has_table(table.name):
                return []
            return [dict(row) for row in db.execute(sa.select(table)).mappings()]

        return self.reading(service, read)
