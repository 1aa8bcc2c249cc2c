"""Events of the past are sent again, as they came, to one service alone."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import aio_pika
import pytest
from ledger import DAY_S, Ledger, desk_fixture, ledger_fixture, named  # noqa: F401 - fixtures
from stage import PATIENCE_S

from choreo.envelope import timestamp

pytestmark = pytest.mark.long_on_postgres


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
    await waiting(amqp_url, 0)
    assert (await desk.replay("--since", "2h"))["sent"] == 1
    await waiting(amqp_url, 1)
    assert (await desk.replay("--since", "all", "--flow", "a-2"))["sent"] == 1
    assert (await desk.replay("--since", "4h", "--until", "2h"))["sent"] == 2
    since = timestamp(now - 2 * 3600)
    assert (await desk.replay("--since", since, "--dry-run"))["sent"] == 1
    await waiting(amqp_url, 4)
    said = await desk.choreo("replay", "--to", "parts.ledger", "--since", "all", "--dry-run")
    assert said.stdout == "would send 3 to ledger, of 3 in the journal looked at\n"


async def waiting(url: str, many: int) -> None:
    """So many messages wait for the ledger: RabbitMQ counts none when it is too busy to look."""
    found: int | None = None
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while found != many:
                    queue = await channel.declare_queue("ledger", passive=True)
                    found = queue.declaration_result.message_count
    assert found == many


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
        both = [await queue.get(timeout=60) for _ in range(2)]
    [came] = [one for one in both if one.message_id == "m-1"]
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
    await waiting(amqp_url, 0)
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
