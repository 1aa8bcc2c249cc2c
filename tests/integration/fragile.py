"""A service with messages that kill its process: what `test_poison` and `test_logs` run."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa
import structlog

from choreo import Connection, Context, Event, Retry, Service

VAR = Path(os.environ.get("CHOREO_VAR", "var"))
#: Whether "deadly later" was tried before.
MET = VAR / "met"

tables = sa.MetaData()
counted = sa.Table("counted", tables, sa.Column("name", sa.String))


class Poked(Event, topic="fragile.poked", subject="name"):
    """Something for a `def` handler."""

    name: str


class Asked(Event, topic="fragile.asked", subject="name"):
    """Something for an outside call."""

    name: str


class Counted(Event, topic="fragile.counted", subject="name"):
    """It was counted."""

    name: str


class Told(Event, topic="fragile.told", subject="name"):
    """The outside world was told."""

    name: str


class Outside:
    """A file: what is told to it outlives the process."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def tell(self, key: str) -> None:
        with self._file.open("a") as file:
            file.write(f"{key}\n")


service = Service("fragile", tables=tables)


@service.adapter
async def open_outside() -> AsyncGenerator[Outside]:
    """Open what outlives the process."""
    yield Outside(VAR / "told")


@service.on(final="only counts")
def count(poked: Poked, db: Connection) -> Counted:
    """Count, or die: at once, or when it is tried again."""
    structlog.get_logger().info("counting", name=poked.name)
    logging.getLogger("a.library").info("counting %s, too", poked.name)
    db.execute(counted.insert(), {"name": poked.name})
    if poked.name == "deadly later" and not MET.exists():
        MET.touch()
        raise Retry("meets it again", after=0.1)
    if poked.name.startswith("deadly"):
        os._exit(1)
    return Counted(name=poked.name)


@service.on(final="cannot be untold", timeout=timedelta(seconds=2))
async def tell(asked: Asked, context: Context, outside: Outside) -> Told:
    """Tell the outside world, or die."""
    outside.tell(context.key)
    structlog.get_logger().info("telling", name=asked.name)
    if asked.name.startswith("deadly"):
        os._exit(1)
    return Told(name=asked.name)


if __name__ == "__main__":
    service.run()
