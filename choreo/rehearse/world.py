"""The world as a schedule has left it: what an invariant is asked about."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from choreo.audit import Evidence
from choreo.contract import Message

if TYPE_CHECKING:
    from choreo.rehearse.customers import Started

M = TypeVar("M", bound=Message)
S = TypeVar("S")


class AbsentError(LookupError):
    """That service takes no part in this schedule: nothing can be said about what it keeps."""


class World:
    """All has settled: what services keep, what was announced, what was done outside."""

    def __init__(
        self,
        evidence: Evidence,
        stand_ins: Mapping[type, Any],
        started: Iterable[Started],
        absent: Collection[str] = (),
    ) -> None:
        #: What `choreo audit` judges by: inboxes, outboxes, steps and all messages.
        self.evidence = evidence
        #: The flows that were started: `id`, `message`, `flow`, and `ends` (words for them).
        self.started = tuple(started)
        self._stand_ins = stand_ins
        self._absent = absent

    def rows(self, service: str, table: sa.Table) -> list[sa.Row[Any]]:
        """The rows of a service's table.

        Raises AbsentError if the service takes no part in this schedule (let it pass: another
        schedule judges it), and LookupError if there is no such service.
        """
        if service in self._absent:
            raise AbsentError(f"{service} is absent")
        if service not in self.evidence.kept:
            known = ", ".join(self.evidence.kept)
            raise LookupError(f"no service {service!r}: there is {known}")
        return self.evidence.reading(service, lambda db: list(db.execute(_all_of(table))))

    def of(self, contract: type[M]) -> Iterator[M]:
        """Every event of a contract that was announced, each once, in order."""
        return (message for _, message in self.evidence.of(contract))

    def outside(self, stand_in: type[S]) -> S:
        """The stand-in of this class; raises LookupError if none is in use."""
        for one in self._stand_ins.values():
            if isinstance(one, stand_in):
                return one
        raise LookupError(f"no {stand_in.__name__} stands in for anything")

    def begun_with(self, contract: type[M]) -> Iterator[M]:
        """What started flows, of one contract."""
        return (one.message for one in self.started if isinstance(one.message, contract))


@cache
def _all_of(table: sa.Table) -> sa.Select[Any]:
    return sa.select(table)
