"""The two brokers that must pass the same tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from on_model import Model
from on_rabbitmq import RabbitMQ
from port import Broker, Channel, Consumer, channel_of


@pytest.fixture(name="real_url", params=["simulated", "rabbitmq"])
def real_url_fixture(request: pytest.FixtureRequest) -> str | None:
    """Where the real broker is, if it is the real one's turn."""
    if request.param == "simulated":
        return None
    url: str = request.getfixturevalue("amqp_url")
    return url


@pytest.fixture(name="broker_port")
async def broker_port_fixture(real_url: str | None) -> AsyncIterator[Broker]:
    if real_url is None:
        yield Model()
    else:
        rabbitmq = RabbitMQ(real_url)
        yield rabbitmq
        await rabbitmq.close()


Q = "q"


@pytest.fixture(name="sender")
async def sender_fixture(broker_port: Broker) -> Channel:
    """A channel that publishes and asks; the queue is there."""
    return await channel_of(broker_port, Q)


async def consuming(broker: Broker, prefetch: int = 0) -> tuple[Channel, Consumer]:
    channel = await channel_of(broker)
    await channel.qos(prefetch)
    return channel, await channel.consume(Q)


def flags(consumer: Consumer) -> list[tuple[str, bool]]:
    """What came, and whether it was marked as redelivered."""
    return [(one.body, one.redelivered) for one in consumer.received]
