"""A broker is stopped and started again: what was declared and confirmed is still there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import aiormq
import pytest
import servers
from on_model import Model
from on_rabbitmq import RabbitMQ
from port import STREAM, RefusedError, channel_of, publish, reached


class StoppingModel(Model):
    async def restart(self) -> None:
        self.rabbit.stop()
        with pytest.raises(ConnectionRefusedError):
            await self.connect()
        self.rabbit.start()


class StoppingRabbitMQ(RabbitMQ):
    def __init__(self, server: servers.Broker) -> None:
        super().__init__(server.url)
        self._server = server

    async def restart(self) -> None:
        await self._server.stop()
        await self._server.start()
        await self.until(self._stream_is_back, "the stream can be read again")

    async def _stream_is_back(self) -> bool:
        """It comes later than the broker: who is too early meets an error, or silence for ever."""
        try:
            channel = await channel_of(self)
            await channel.qos(10)
            consumer = await channel.consume("s", "first")
        except (RefusedError, aiormq.AMQPError):
            return False

        async def reads() -> object:
            return consumer.received

        with suppress(AssertionError):
            await self.until(reads, "read", within_s=0.5)
        await channel.close()
        return bool(consumer.received)


@pytest.fixture(name="broker_port", params=["simulated", "rabbitmq"])
async def broker_port_fixture(
    request: pytest.FixtureRequest, choice: servers.Choice
) -> AsyncIterator[StoppingModel | StoppingRabbitMQ]:
    if request.param == "simulated":
        yield StoppingModel()
        return
    async with servers.running_broker(choice, management=False) as server:
        rabbitmq = StoppingRabbitMQ(server)
        yield rabbitmq
        await rabbitmq.close()


async def test_what_is_declared_and_confirmed_stays(
    broker_port: StoppingModel | StoppingRabbitMQ,
) -> None:
    sender = await channel_of(broker_port, "q")
    await sender.declare_queue("s", STREAM)
    await sender.declare_exchange("x")
    for queue in ("q", "s"):
        await sender.bind(queue, "x", "a.#")
    await sender.publish("a", "a", "x")
    await publish(sender, "q", "bcd")
    channel = await channel_of(broker_port)
    await channel.qos(2)
    consumer = await channel.consume("q")
    await reached(broker_port, sender, {consumer: "ab"}, q=2)
    await channel.ack(1)
    await reached(broker_port, sender, {consumer: "abc"}, q=1)
    await broker_port.restart()
    with pytest.raises(RefusedError):
        await channel.ack(2)

    sender = await channel_of(broker_port)
    await sender.declare_exchange("x", passive=True)
    await reached(broker_port, sender, {}, q=3)
    assert await sender.publish("e", "a.b", "x", mandatory=True) == ["confirmed"]
    later = await channel_of(broker_port)
    await later.qos(10)
    again, read = await later.consume("q"), await later.consume("s", "first")
    await reached(broker_port, sender, {again: "bcde", read: "ae"}, q=0)
    assert [one.redelivered for one in again.received] == [True, True, False, False]
