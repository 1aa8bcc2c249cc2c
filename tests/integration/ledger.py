"""A service that enters what it hears in a table, and hands to tell it and to look at it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cli_project import Project
from stage import until

from choreo import log, rabbitmq
from choreo.envelope import Envelope, timestamp
from choreo.rabbitmq import RabbitMQ
from choreo.seams import Outgoing
from choreo.settings import Settings
from choreo.store.database import connect
from choreo.topology import Topology

DAY_S = 86400
_LEDGER = """
import os
import signal
import time
from pathlib import Path
import sqlalchemy as sa
from choreo import Connection, Service
from agreed.shop import PriceTold

metadata = sa.MetaData()
entries = sa.Table(
    "entries",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.String),
)
service = Service("ledger", tables=metadata)

@service.on
def enter(told: PriceTold, db: Connection) -> None:
    if told.id == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    while told.id == "past-1500" and Path("held").exists():
        time.sleep(0.01)
    db.execute(entries.insert(), {"id": told.id})
"""


class Ledger:
    """A project with a service that enters what it hears in a table, as often as it handles it."""

    def __init__(self, project: Project, broker: RabbitMQ, database_url: str) -> None:
        self.project = project
        self._broker = broker
        self._engine = connect(database_url.replace("{service}", "ledger"))

    async def tell(self, *ids: str, at: float | None = None, kind: str = "price_told") -> None:
        """Publish events with these ids, each a flow of its own."""
        time_ = timestamp(time.time() if at is None else at)
        for some in range(0, len(ids), 500):
            messages = [
                Outgoing(
                    "shop",
                    f"shop.{kind}.v1",
                    Envelope(one, f"shop.{kind}.v1", "/shop/tell", time_, one, subject=one),
                    json.dumps({"id": one}).encode(),
                )
                for one in ids[some : some + 500]
            ]
            assert await self._broker.publish(messages) == {}

    async def declare(self) -> None:
        """Create the ledger's queue, with nobody behind it."""
        done = await self.choreo("declare")
        assert done.returncode == 0, done.stderr

    async def choreo(self, *words: str) -> Any:
        return await asyncio.to_thread(self.project.choreo, *words)

    async def replay(self, *words: str) -> dict[str, Any]:
        """What `choreo replay` to the ledger says it did."""
        done = await self.choreo("replay", "--to", "ledger", *words, "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told.pop("service") == "ledger"
        assert isinstance(told, dict)
        return told

    def entries(self) -> list[str]:
        """What it has handled, in this order."""
        query = sa.text("SELECT id FROM entries ORDER BY number")
        with self._engine.begin() as db:
            if not sa.inspect(db).has_table("entries"):
                return []
            return list(db.scalars(query))

    async def handled(self, ids: Iterable[str]) -> None:
        """Wait until it has handled as many; it must be these, each once."""
        wanted = sorted(ids)
        await until(lambda: len(self.entries()) >= len(wanted), f"{len(wanted)} entries", 120)
        assert sorted(self.entries()) == wanted

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it in the middle of what is past while the block lasts."""
        held = self.project.folder / "held"
        held.touch()
        yield
        held.unlink()

    async def is_in_the_middle(self) -> None:
        """Wait until it has handled something, and will not go on to the end."""
        await until(self.entries, "the first entries", 120)

    def letters(self) -> int:
        with self._engine.begin() as db:
            return db.scalar(sa.text("SELECT count(*) FROM choreo_dead")) or 0

    def close(self) -> None:
        self._engine.dispose()


@pytest.fixture(name="ledger")
async def ledger_fixture(
    amqp_url: str, database_url: str, create_databases: Callable[..., None], tmp_path: Path
) -> AsyncIterator[Ledger]:
    """The same on both kinds of databases."""
    create_databases("shop", "desk", "ledger")
    async with prepared(amqp_url, database_url, tmp_path) as ledger:
        yield ledger


@pytest.fixture(name="desk")
async def desk_fixture(amqp_url: str, tmp_path: Path) -> AsyncIterator[Ledger]:
    """For what no database has a part in."""
    async with prepared(amqp_url, f"sqlite:///{tmp_path}/{{service}}.db", tmp_path) as ledger:
        yield ledger


@asynccontextmanager
async def prepared(amqp_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[Ledger]:
    env = {
        "CHOREO_AMQP_URL": amqp_url, "CHOREO_DATABASE_URL": database_url,
        "CHOREO_VAR": str(tmp_path), "CHOREO_LEASE_S": "2", "CHOREO_CRASHES": "1",
    }  # fmt: skip
    project = Project(tmp_path, **env)
    project.write("parts/ledger.py", _LEDGER)
    settings = Settings(publish_timeout_s=60)
    async with rabbitmq.connected(amqp_url, settings, "test", log.logger("test")) as broker:
        await broker.declare(Topology(("choreo", "shop"), (), (), ()))
        ledger = Ledger(project, broker, database_url)
        try:
            yield ledger
        finally:
            ledger.close()


def named(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number:04}" for number in range(count)]
