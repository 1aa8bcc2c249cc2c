"""Events of the past: sent again to one service, or taken in by a new one before what comes."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aio_pika
import pytest
import servers
import sqlalchemy as sa
from cli_project import Project, Running
from stage import until

from choreo import log, rabbitmq
from choreo.envelope import Envelope, timestamp
from choreo.rabbitmq import RabbitMQ
from choreo.seams import Outgoing
from choreo.settings import Settings
from choreo.store.database import connect
from choreo.topology import Topology

pytestmark = pytest.mark.long

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
    async with rabbitmq.connected(amqp_url, Settings(), "test", log.logger("test")) as broker:
        await broker.declare(Topology(("choreo", "shop"), (), (), ()))
        ledger = Ledger(project, broker, database_url)
        try:
            yield ledger
        finally:
            ledger.close()


def named(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number:04}" for number in range(count)]


FROM_START = ("run", "ledger", "--from-start")


async def test_catches_up_while_live_ones_come(ledger: Ledger) -> None:
    past = named("past", 3000)
    live: list[str] = []
    await ledger.tell(*past)
    await ledger.tell(*named("unheard", 100), kind="shop_opened")
    caught_up = asyncio.Event()

    async def go_on() -> None:
        while not caught_up.is_set() or len(live) < 100:
            live.append(f"live-{len(live)}")
            await ledger.tell(live[-1])
            await asyncio.sleep(0.01)

    telling = asyncio.create_task(go_on())
    with ledger.project.running(*FROM_START) as service:
        await service.says("caught up", within_s=120)
        caught_up.set()
        await telling
        await ledger.handled([*past, *live])
        assert ledger.entries()[: len(past)] == past
        assert "not the first start" not in service.said
        assert service.end(signal.SIGTERM) == 0


async def test_goes_on_where_it_was_killed(ledger: Ledger) -> None:
    past = named("past", 3000)
    await ledger.tell(*past)
    with ledger.held(), ledger.project.running(*FROM_START) as service:
        await ledger.is_in_the_middle()
        service.end(signal.SIGKILL)
    assert len(ledger.entries()) < len(past)
    await ledger.tell("meanwhile")
    with ledger.project.running(*FROM_START) as service:
        await service.says("caught up", within_s=120)
        await ledger.tell("later")
        await ledger.handled([*past, "meanwhile", "later"])
        assert "not the first start" in service.said


async def test_says_so_when_it_is_stopped_in_between(desk: Ledger) -> None:
    past = named("past", 3000)
    await desk.tell(*past)
    with desk.project.running(*FROM_START) as service:
        with desk.held():
            await desk.is_in_the_middle()
            service.process.send_signal(signal.SIGTERM)
            await service.says("stopped before it had caught up")
        assert service.process.wait(30) == 0
    assert len(desk.entries()) < len(past)
    with desk.project.running(*FROM_START) as service:
        await desk.handled(past)


async def test_goes_on_when_the_broker_is_back(
    broker_control: servers.Broker, tmp_path: Path
) -> None:
    past = named("past", 3000)
    async with prepared(broker_control.url, f"sqlite:///{tmp_path}/x.db", tmp_path) as ledger:
        await ledger.tell(*past)
        with ledger.project.running(*FROM_START) as service:
            with ledger.held():
                await ledger.is_in_the_middle()
                await broker_control.kill()
                await broker_control.start()
            await service.says("caught up", within_s=120)
            assert "cannot catch up, trying again" in service.said
            await ledger.tell("later")
            await ledger.handled([*past, "later"])


async def test_a_message_that_kills_it_is_parked_alone(ledger: Ledger) -> None:
    past = named("past", 40)
    await ledger.tell(*past[:20], "deadly", *past[20:])
    for _ in range(5):
        with ledger.project.running(*FROM_START) as service:
            await until(partial(has_come_to_something, service), "it died, or caught up", 60)
            if service.process.poll() is None:
                break
    await ledger.handled(past)
    assert ledger.letters() == 1


def has_come_to_something(service: Running) -> bool:
    return service.process.poll() is not None or "caught up" in service.said


async def test_a_first_start_takes_in_what_is_old_and_another_leaves_it_out(desk: Ledger) -> None:
    await desk.tell("old", at=time.time() - 40 * DAY_S)
    await desk.tell("young")
    with desk.project.running(*FROM_START) as service:
        await desk.handled(["old", "young"])
        await service.says("caught up", within_s=120)
    await desk.tell("older", at=time.time() - 40 * DAY_S)
    # As if nothing had been handled from the journal, but otherwise.
    with desk._engine.begin() as db:
        db.execute(sa.text("DELETE FROM choreo_catch_up"))
    with desk.project.running(*FROM_START) as service:
        await service.says("may have forgotten were left out")


async def test_replay_gives_a_service_what_it_missed_and_no_more(ledger: Ledger) -> None:
    missed = named("missed", 700)
    await ledger.tell(*missed)
    await ledger.tell("x", kind="shop_opened")
    await ledger.declare()
    await ledger.tell("heard")
    counts = {"looked_at": 702, "sent": 701, "unreadable": 0}
    assert await ledger.replay("--since", "all", "--dry-run") == {"dry_run": True, **counts}
    with ledger.project.running("run", "ledger"):
        await ledger.handled(["heard"])
        assert await ledger.replay("--since", "all") == {"dry_run": False, **counts}
        await ledger.handled([*missed, "heard"])
        await ledger.replay("--since", "all")
        await ledger.tell("last")  # it stands behind them in the queue
        await ledger.handled([*missed, "heard", "last"])
        assert ledger.letters() == 0


async def test_replay_sends_what_is_chosen(desk: Ledger, amqp_url: str) -> None:
    now = time.time()
    await desk.tell("a-1", "a-2", at=now - 3 * 3600)
    await desk.tell("b-1", at=now - 3600)
    await desk.declare()
    assert await waiting(amqp_url) == 0
    assert (await desk.replay("--since", "2h"))["sent"] == 1
    assert await waiting(amqp_url) == 1
    assert (await desk.replay("--since", "all", "--flow", "a-2"))["sent"] == 1
    assert (await desk.replay("--since", "4h", "--until", "2h"))["sent"] == 2
    since = timestamp(now - 2 * 3600)
    assert (await desk.replay("--since", since, "--dry-run"))["sent"] == 1
    assert await waiting(amqp_url) == 4
    said = await desk.choreo("replay", "--to", "parts.ledger", "--since", "all", "--dry-run")
    assert said.stdout == "would send 3 to ledger, of 3 in the journal looked at\n"


async def waiting(url: str) -> int:
    async with await aio_pika.connect(url) as connection:
        queue = await (await connection.channel()).get_queue("ledger")
        return queue.declaration_result.message_count or 0


async def test_replay_sends_everything_as_it_came(desk: Ledger, amqp_url: str) -> None:
    body = b'{ "id":"n\xc3\xa9e" }'
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange("shop")
        sent = aio_pika.Message(
            body,
            # RabbitMQ 4 keeps no lists and tables of headers in a stream.
            headers={"number": 7, "flag": True, "text": "é", "cloudEvents:subject": "née"},
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            correlation_id="foreign",
            message_id="m-1",
            timestamp=int(time.time()),
            type="shop.price_told.v1",
            app_id="stranger",
        )
        await exchange.publish(sent, "shop.price_told.v1")
        await desk.tell("torn", kind="price_told")
        await exchange.publish(
            aio_pika.Message(b"{", message_id="m-2", type="shop.price_told.v1"),
            "shop.price_told.v1",
        )
        await desk.declare()
        told = await desk.replay("--since", "1h")
        assert (told["sent"], told["unreadable"]) == (2, 1)
        queue = await channel.get_queue("ledger")
        both = {one.message_id: one for one in [await queue.get(), await queue.get()] if one}
    came = both["m-1"]
    assert came.body == body
    came.headers.pop("x-delivery-count", None)  # a quorum queue's own
    assert dict(came.properties) == dict(sent.properties)


async def test_what_may_be_forgotten_is_refused(desk: Ledger, amqp_url: str) -> None:
    await desk.tell("old", at=time.time() - 31 * DAY_S)
    await desk.tell("young")
    await desk.declare()
    refused = await desk.choreo("replay", "--to", "ledger", "--since", "all")
    assert refused.returncode == 2
    assert "is older than what ledger surely remembers (30 days" in refused.stderr
    assert "nothing is sent" in refused.stderr
    assert await waiting(amqp_url) == 0
    assert (await desk.replay("--since", "30h"))["sent"] == 1
    assert (await desk.replay("--since", "all", "--force"))["sent"] == 2


async def test_says_what_is_wrong(desk: Ledger) -> None:
    for words, said in (
        (("--to", "ledge", "--since", "all"), "did you mean 'ledger'?"),
        (("--to", "ledger", "--since", "yesterday"), "is no time"),
        (("--to", "ledger", "--since", "all"), "no queue ledger: run 'choreo declare'"),
    ):
        done = await desk.choreo("replay", *words)
        assert done.returncode == 2
        assert said in done.stderr
