"""The world as a schedule has left it: what an invariant is asked about."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from choreo.audit import Evidence
from choreo.contract import Message
from choreo.service import Service

if TYPE_CHECKING:
    from choreo.rehearse.customers import Started

M = TypeVar("M", bound=Message)
S = TypeVar("S")


class AbsentError(LookupError):
    """That service takes no part in this schedule: nothing can be said about what it does.

    Let it pass: another schedule judges that.
    """


class World:
    """All has settled: what services keep, what was announced, what was done outside."""

    def __init__(
        self,
        evidence: Evidence,
        stand_ins: Mapping[type, Any],
        started: Iterable[Started],
        absent: Collection[Service] = (),
    ) -> None:
        #: What `choreo audit` judges by: inboxes, outboxes, steps and all messages.
        self.evidence = evidence
        #: The flows that were started: `id`, `message`, `flow`, and `ends` (words for them).
        self.started = tuple(started)
        self._stand_ins = stand_ins
        self._absent = absent
        #: What was read: nothing changes any more, and invariants ask for the same again.
        self._rows: dict[tuple[str, sa.Table], list[sa.Row[Any]]] = {}

    def rows(self, service: str, table: sa.Table) -> list[sa.Row[Any]]:
        """The rows of a service's table; leave what is in them as it is, others read it, too.

        Raises AbsentError if the service takes no part in this schedule, and LookupError if there
        is no such service.
        """
        self._require_all(one for one in self._absent if one.name == service)
        if service not in self.evidence.kept:
            known = ", ".join(self.evidence.kept)
            raise LookupError(f"no service {service!r}: there is {known}")
        if (found := self._rows.get((service, table))) is None:
            found = self.evidence.reading(service, lambda db: list(db.execute(_all_of(table))))
            self._rows[service, table] = found
        return [*found]

    def of(self, contract: type[M]) -> Iterator[M]:
        """Every event of a contract that was announced, each once, in order.

        Raises AbsentError if a service that announces it takes no part in this schedule.
        """
        self._require_all(one for one in self._absent if contract in one.published)
        return (message for _, message in self.evidence.of(contract))

    def outside(self, stand_in: type[S]) -> S:
        """The stand-in of this class.

        Raises AbsentError if a service that calls it takes no part in this schedule, and
        LookupError if none is in use.
        """
        for adapter, one in self._stand_ins.items():
            if isinstance(one, stand_in):
                self._require_all(other for other in self._absent if adapter in other.adapters)
                return one
        raise LookupError(f"no {stand_in.__name__} stands in for anything")

    def begun_with(self, contract: type[M]) -> Iterator[M]:
        """What started flows, of one contract."""
        return (one.message for one in self.started if isinstance(one.message, contract))

    def _require_all(self, lacking: Iterable[Service]) -> None:
        for one in lacking:
            raise AbsentError(f"{one.name} is absent")


@cache
def _all_of(table: sa.Table) -> sa.Select[Any]:
    return sa.select(table)
