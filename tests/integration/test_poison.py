"""A message that kills its process is parked in the end, and takes no other with it."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from asyncio.subprocess import DEVNULL
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import fragile
import pytest
import sqlalchemy as sa
from fragile import Asked, Poked, counted
from processes import PATIENCE_S, ROOT, environment
from stage import TABLES

from choreo import Event, log, rabbitmq, topology
from choreo.identity import Ids
from choreo.outgoing import first
from choreo.seams import SystemClock
from choreo.settings import Settings
from choreo.store.database import connect

CRASHES = 2
#: What a process may die of before its message is known as deadly.
MOST_DEATHS = 12


class Fragile:
    """Runs `fragile` as a process, and starts it again whenever it dies."""

    def __init__(self, url: str, database_url: str, var: Path) -> None:
        self._env = environment(
            url, database_url, var, CHOREO_CRASHES=CRASHES, CHOREO_LEASE_S=0.5, CHOREO_ATTEMPTS=4
        )
        self._settings = Settings(amqp_url=url, database_url=database_url, var=var)
        self._engine = connect(self._settings.database_of("fragile"))
        self._url = url
        self._published: set[str] = set()

    async def publish(self, *messages: Event) -> None:
        """Let messages wait for the process."""
        ids = Ids(SystemClock(), random.Random())
        outgoing = [first(one, ids, time.time(), "/test/poison") for one in messages]
        self._published.update(one.envelope.id for one in outgoing)
        async with rabbitmq.connected(
            self._url, self._settings, "test", log.logger("test")
        ) as broker:
            await broker.declare(topology.of([fragile.service]))
            assert await broker.publish(outgoing) == {}

    async def deaths(self) -> int:
        """Run it until all is handled; gives how often it died of it."""
        deaths = 0
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fragile", env=self._env, cwd=ROOT, stderr=DEVNULL
            )
            ended = asyncio.create_task(process.wait())
            try:
                if await self._handles_all(ended):
                    return deaths
            finally:
                with suppress(ProcessLookupError):
                    process.terminate()
                await ended
            deaths += 1
            assert deaths <= MOST_DEATHS, f"it still dies; {self.statuses()}"

    async def _handles_all(self, ended: asyncio.Task[int]) -> bool:
        end = time.monotonic() + PATIENCE_S
        while not ended.done():
            inbox = self.rows("inbox")
            if self._published == {row.message_id for row in inbox} and {"done", "parked"} >= {
                row.status for row in inbox
            }:
                return True
            assert time.monotonic() < end, f"it does not end: {self.statuses()}"
            await asyncio.sleep(0.05)
        assert ended.result() == 1
        return False

    def statuses(self) -> Counter[str]:
        """How many messages have come how far."""
        return Counter(row.status for row in self.rows("inbox"))

    def rows(self, table: str | sa.Table) -> list[sa.Row[tuple[object, ...]]]:
        """A table of its database; nothing before that is made."""
        chosen = TABLES[table] if isinstance(table, str) else table
        with self._engine.begin() as db:
            if not sa.inspect(db).has_table(chosen.name):
                return []
            return list(db.execute(sa.select(chosen)).all())


@pytest.fixture
def running(
    amqp_url: str, database_url: str, create_databases: Callable[..., None], tmp_path: Path
) -> Fragile:
    create_databases("fragile")
    return Fragile(amqp_url, database_url, tmp_path)


async def test_as_it_comes_from_the_broker(running: Fragile) -> None:
    await running.publish(*(Poked(name=one) for one in ("1", "2", "deadly", "3", "4")))
    # The first time it is not known yet that the message may be the cause.
    assert await running.deaths() == CRASHES + 1
    [letter] = running.rows("dead")
    assert letter.reason == f"its process died {CRASHES} times while handling it"
    assert sorted(row.name for row in running.rows(counted)) == ["1", "2", "3", "4"]
    assert running.statuses() == {"done": 4, "parked": 1}


async def test_when_it_is_tried_again(running: Fragile) -> None:
    await running.publish(*(Poked(name=one) for one in ("1", "deadly later", "2")))
    assert await running.deaths() <= CRASHES + 1
    [letter] = running.rows("dead")
    assert "its process died" in letter.reason
    assert sorted(row.name for row in running.rows(counted)) == ["1", "2"]


async def test_in_an_outside_call(running: Fragile, tmp_path: Path) -> None:
    await running.publish(*(Asked(name=one) for one in ("1", "2", "deadly", "3", "4")))
    await running.deaths()
    [letter] = running.rows("dead")
    assert letter.reason == f"its process died {CRASHES} times while handling it"
    assert running.statuses() == {"done": 4, "parked": 1}
    # Under one key each, however often.
    assert len(set((tmp_path / "told").read_text().split())) == 5
