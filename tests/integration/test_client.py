"""The broker's client on a real broker: strangers' bytes, lost channels, refused messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aio_pika
import aiormq
import pytest
from aiormq.abc import ChannelFrame
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from stage import Stage, until
from structlog.testing import capture_logs

from choreo import CannotRunError, Event, Service, log, topology
from choreo import relay as relays
from choreo.envelope import Envelope
from choreo.rabbitmq import RabbitMQ, broker, link
from choreo.rabbitmq.declare import declare
from choreo.relay import Relay
from choreo.seams import Delivery, Outgoing
from choreo.settings import Settings


class Asked(Event, topic="client.asked"):
    what: str


class Answered(Event, topic="client.answered"):
    what: str


@pytest.fixture
def service() -> Service:
    service = Service("client")

    @service.on
    def answer(asked: Asked) -> Answered:
        return Answered(what=asked.what)

    return service


@pytest.fixture
async def rabbit(amqp_url: str, service: Service) -> AsyncIterator[RabbitMQ]:
    """The service's client, with everything declared."""
    rabbit = RabbitMQ(amqp_url, Settings(publish_timeout_s=60.0), "client", log.logger("client"))
    try:
        await rabbit.open()
        await rabbit.declare(topology.of([service]))
        yield rabbit
    finally:
        await rabbit.close()


def outgoing(name: str, *, exchange: str = "client") -> Outgoing:
    envelope = Envelope(name, "client.asked.v1", "/stage/test", "2026-01-02T00:00:00Z", name)
    return Outgoing(exchange, "client.asked.v1", envelope, b'{"what":"x"}')


class Raw(ContentHeader):
    """A content header with whatever a stranger's client put there."""

    def __init__(self, flag: str, value: bytes) -> None:
        super().__init__(body_size=2)
        self._properties = Basic.Properties.flags[flag].to_bytes(2, "big") + value

    def marshal(self) -> bytes:
        return super().marshal()[:12] + self._properties


async def publish_raw(stage: Stage, flag: str, value: bytes) -> None:
    channel = stage._channel
    frames: list[Any] = [
        Basic.Publish(exchange="", routing_key="client"), Raw(flag, value), ContentBody(b"{}"),
    ]  # fmt: skip
    channel.delivery_tag += 1
    confirm = channel.confirmations[channel.delivery_tag] = channel.create_future()
    await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames))
    await confirm


def table(entries: bytes) -> bytes:
    return len(entries).to_bytes(4, "big") + entries


def nested(depth: int) -> bytes:
    found = table(b"")
    for _ in range(depth):
        found = table(b"\x01nF" + found)
    return found


async def test_whatever_a_stranger_sends_becomes_a_letter(
    service: Service, amqp_url: str, tmp_path: Path
) -> None:
    odd = {
        "message_id": b"\x03a\xff\xfe",
        "app_id": b"\x01\xff",
        "headers": table(b"\x01\xffS\x00\x00\x00\x01x"),
        "timestamp": (1_767_323_045_000_000).to_bytes(8, "big"),
    }
    async with Stage(service, amqp_url, f"sqlite:///{tmp_path}/client.db", tmp_path) as running:
        for flag, value in odd.items():
            await publish_raw(running, flag, value)
        await publish_raw(running, "headers", nested(2000))
        await running.publish(Asked(what="behind them"))
        await until(lambda: running.events(Answered), "what stands behind them is answered")
        await running.settled()
        letters = running.rows("dead")
        assert len(letters) == len(odd) + 1
        assert not [line for line in running.logs if "lost" in line["event"]]
        assert any('"a\\udcff\\udcfe"' in one["properties"] for one in letters)


def said(lines: list[Any], event: str) -> int:
    return sum(line["event"] == event for line in lines)


async def test_a_link_that_is_lost_again_and_again_is_opened_less_and_less(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def wait(delay_s: float) -> None:
        waits.append(delay_s)
        await asyncio.sleep(0)

    monkeypatch.setattr(link, "RECONNECT_FIRST_S", 0.02)
    # However long a machine stands still, that is not a connection that lasts.
    monkeypatch.setattr(link, "STEADY_S", 3600.0)
    monkeypatch.setattr(link, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": wait}))

    async def lose(channel: aiormq.Channel) -> None:
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(channel.close()))

    kept = link.Link(amqp_url, Settings(), "lost", log.logger("client"), lose)
    await kept.start()
    await until(lambda: len(waits) >= 4, "opened again and again")
    await kept.close()
    assert waits[:4] == [0.02, 0.04, 0.08, 0.16]


async def test_a_link_survives_whatever_is_raised_around_it(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener that fails, a close that fails, and a cancellation of the client's own tasks."""
    prepared = 0

    async def prepare(_: aiormq.Channel) -> None:
        nonlocal prepared
        prepared += 1
        if prepared == 2:
            raise asyncio.CancelledError

    close: Any = aio_pika.Connection.close

    async def close_and_fail(connection: aio_pika.Connection) -> None:
        await close(connection)
        raise asyncio.CancelledError

    def listen(_: bool) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(aio_pika.Connection, "close", close_and_fail)
    kept = link.Link(amqp_url, Settings(), "robust", log.logger("client"), prepare)
    kept.on_change = listen
    with capture_logs() as lines:
        await kept.start()
        kept.reset(await kept.channel())
        await until(lambda: said(lines, "connected again"), "it is opened again")
        assert prepared == 3
        assert await kept.channel() is kept._channel
        await kept.close()
    assert said(lines, "cannot show whether it is ready") >= 3


async def test_only_the_channel_that_is_open_can_be_given_up(rabbit: RabbitMQ) -> None:
    kept = rabbit._publishing
    old = await kept.channel()
    kept.reset(old)
    await until(lambda: kept._channel not in (old, None), "another channel")
    new = await kept.channel()
    kept.reset(old)
    assert await rabbit.publish([outgoing("m")]) == {}
    assert await kept.channel() is new


async def block(rabbit: RabbitMQ, reason: str = "low on disk") -> Callable[[], Any]:
    """As if an alarm blocked the connection; gives what ends it."""
    connection: Any = (await rabbit._publishing.channel()).connection
    blocked = commands.Connection.Blocked(reason=reason)
    await connection._Connection__handle_connection_blocked(blocked)
    return lambda: connection._Connection__handle_connection_unblocked(
        commands.Connection.Unblocked()
    )


async def test_who_is_told_to_stop_while_it_opens_consumes_nothing(
    rabbit: RabbitMQ, service: Service, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def told(*given: Any) -> None:
        await declare(*given)
        await rabbit.cancel()

    monkeypatch.setattr(broker, "declare", told)
    await rabbit.consume(topology.of([service]), "client", 10, lambda _: None, lambda _: None)
    async with await aio_pika.connect(amqp_url) as other:
        queue = await (await other.channel()).declare_queue("client", passive=True)
        assert queue.declaration_result.consumer_count == 0


async def test_an_alarm_costs_no_connection(
    rabbit: RabbitMQ, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = await rabbit._publishing.channel()
    rabbit._settings = rabbit._settings.model_copy(update={"publish_timeout_s": 0.1})
    monkeypatch.setattr(broker, "CONNECT_TIMEOUT_S", 0.1)
    unblock = await block(rabbit)
    assert await rabbit.publish([outgoing("m")]) == {"m": "no confirm within 0.1 s"}
    with pytest.raises(CannotRunError, match="does not answer"):
        await rabbit.declare(topology.of([service]))
    await unblock()
    rabbit._settings = rabbit._settings.model_copy(update={"publish_timeout_s": 60.0})
    assert await rabbit._publishing.channel() is channel
    assert await rabbit.publish([outgoing("m")]) == {}


async def test_a_message_that_cannot_be_written_leaves_the_confirms_right(
    rabbit: RabbitMQ,
) -> None:
    channel = await rabbit._publishing.channel()
    with pytest.raises(ValueError, match="over 255 bytes"):
        await rabbit.publish([outgoing("before"), outgoing("long" * 100)])
    assert await rabbit.publish([outgoing("after"), outgoing("last")]) == {}
    assert await rabbit._publishing.channel() is channel
    assert not channel.confirmations
    assert not channel.message_id_delivery_tag


async def test_what_the_broker_closes_channels_for_costs_only_itself(
    rabbit: RabbitMQ, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "RETRY_FIRST_S", 0.02)
    monkeypatch.setattr(relays, "RETRY_LONGEST_S", 0.2)
    relay = Relay(rabbit, log.logger("client"))
    running = asyncio.create_task(relay.run())
    with capture_logs() as lines:
        names = {f"good {number}" for number in range(20)}
        mixed = [outgoing(name) for name in names]
        mixed[7:7] = [outgoing("lost", exchange="missing")]
        mixed[3:3] = [outgoing("lost, too", exchange="missing")]
        relay.send(mixed)
        await until(lambda: set(relay.confirmed) == names, "all that can be taken is")
        tries = said(lines, "not published, trying again")
        await until(lambda: said(lines, "not published, trying again") > tries + 2, "more attempts")
        # The first time it took the others with it; from then on it went by itself.
        assert said(lines, "connection lost, opening it again") <= 1
        async with await aio_pika.connect(amqp_url) as connection:
            opened = await connection.channel()
            await opened.declare_exchange("missing", "topic")
            await relay.flush()
    running.cancel()
    await relay.close()
    channel: Any = await rabbit._publishing.channel()
    assert len(channel.connection.channels) == 1
    assert not rabbit._failed


async def test_deliveries_know_that_their_channel_is_gone(
    rabbit: RabbitMQ, service: Service
) -> None:
    came: list[Delivery] = []
    heard: list[int | None] = []
    await rabbit.consume(topology.of([service]), "client", 10, came.append, heard.append)
    await rabbit.publish([outgoing("m")])
    await until(lambda: len(came) == 1, "delivered")
    rabbit._consuming.reset(await rabbit._consuming.channel())
    await until(lambda: len(came) == 2, "delivered again")
    assert [one.channel and one.channel.closed for one in came] == [True, False]
    assert heard[0] == 0
    assert None in heard
    rabbit.settle(came)
