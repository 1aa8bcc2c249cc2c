"""Audit: keep an unbroken record of every event of every context."""

from __future__ import annotations

import importlib
import pkgutil
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import contracts
from choreo import Connection, Context, Event, Service
from choreo.contract import contracts as known_contracts

from . import chain

service = Service("audit", tables=chain.tables)


def every_event() -> tuple[type[Event], ...]:
    """Give the events of all contexts; one that is added later is heard from the next start."""
    for module in pkgutil.iter_modules(contracts.__path__, "contracts."):
        importlib.import_module(module.name)
    return tuple(
        kind
        for _, kind in sorted(known_contracts().items())
        if issubclass(kind, Event) and kind.__module__.startswith("contracts.")
    )


if TYPE_CHECKING:
    AnyEvent = Event
else:
    AnyEvent = reduce(or_, every_event())


@service.setup
def seal(db: Connection) -> None:
    """Have the database itself refuse to change what is recorded."""
    chain.seal(db)


@service.on(final="a record is never unmade")
def record(event: AnyEvent, context: Context, db: Connection) -> None:
    """Write the event down as the next link of the chain."""
    chain.append(db, event, context)
