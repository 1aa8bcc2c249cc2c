"""Whatever is done in whatever order, the model and the real broker hand over the same."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from on_model import Model
from on_rabbitmq import RabbitMQ
from port import Broker, Channel, Connection, Consumer, channel_of

#: What is done, by which of the clients, and a number that chooses among what is there.
Deed = tuple[str, int, int]

CLIENTS = 3
deeds = st.lists(
    st.tuples(
        st.sampled_from(
            ["publish", "publish", "publish", "ack", "ack", "ack multiple", "nack",
             "nack multiple", "cancel", "close", "drop"]
        ),
        st.integers(0, CLIENTS - 1),
        st.integers(0, 9),
    ),
    min_size=30,
    max_size=60,
)  # fmt: skip
numbers = itertools.count()


@dataclass
class Client:
    connection: Connection
    channel: Channel
    consumer: Consumer
    settled: set[int] = field(default_factory=set)

    @property
    def unsettled(self) -> list[int]:
        return [one.tag for one in self.consumer.received if one.tag not in self.settled]


class Play:
    """One broker on which the deeds are done."""

    def __init__(self, broker: Broker, queue: str) -> None:
        self.broker = broker
        self.queue = queue
        self.clients: dict[int, Client] = {}
        self.every: list[Consumer] = []
        self.published = 0

    async def open(self) -> None:
        self.sender = await channel_of(self.broker, self.queue)

    async def do(self, deed: Deed) -> None:
        what, which, number = deed
        client = self.clients.get(which)
        if what == "publish":
            await self.sender.publish(str(self.published), self.queue)
            self.published += 1
        elif client is None:
            self.clients[which] = await self._begin(prefetch=number % 4)
        elif what == "cancel":
            if not client.consumer.is_cancelled:
                client.consumer.is_cancelled = True
                await client.channel.cancel(client.consumer)
        elif what in ("close", "drop"):
            del self.clients[which]
            await (client.channel.close() if what == "close" else client.connection.drop())
        elif tags := client.unsettled:
            await self._settle(client, tags, tags[number % len(tags)], what)

    async def _begin(self, prefetch: int) -> Client:
        connection = await self.broker.connect()
        channel = await connection.channel()
        await channel.qos(prefetch)
        consumer = await channel.consume(self.queue)
        self.every.append(consumer)
        return Client(connection, channel, consumer)

    async def _settle(self, client: Client, tags: list[int], tag: int, what: str) -> None:
        is_multiple = "multiple" in what
        client.settled.update(one for one in tags if one == tag or (is_multiple and one < tag))
        command = client.channel.nack if "nack" in what else client.channel.ack
        await command(tag, multiple=is_multiple)

    async def state(self) -> object:
        """What waits, who consumes, and what each of all the consumers has got."""
        return await self.sender.declare_queue(self.queue, passive=True), [
            [(one.body, one.redelivered, one.tag) for one in consumer.received]
            for consumer in self.every
        ]


@pytest.mark.timeout(900)
@settings(
    max_examples=30,
    deadline=None,
    phases=(Phase.reuse, Phase.generate),  # each smaller example would be waited for in vain
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(deeds)
async def test_the_same_deeds_hand_over_the_same(amqp_url: str, todo: Sequence[Deed]) -> None:
    real_broker = RabbitMQ(amqp_url)
    queue = f"q{next(numbers)}"
    model, real = Play(Model(), queue), Play(real_broker, queue)
    try:
        await model.open()
        await real.open()
        for deed in todo:
            await model.do(deed)
            await real.do(deed)
            await same(model, real)
    finally:
        await real.sender.delete_queue(queue)
        await real_broker.close()


async def same(model: Play, real: Play) -> None:
    """Once both have done what they do by themselves, they are in the same state."""
    model.broker.rabbit.run()  # type: ignore[attr-defined]
    expected, found = await model.state(), None

    async def is_same() -> bool:
        nonlocal found
        found = await real.state()
        return found == expected

    try:
        await real.broker.until(is_same, "the same")
    except AssertionError as error:
        raise AssertionError(f"model: {expected}\nreal: {found}") from error
