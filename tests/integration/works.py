"""A builder who conducts a house, and the test as whoever does as it says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aio_pika
import sqlalchemy as sa
from stage import Stage, until

from choreo import Ask, Command, Conductor, Connection, Event, Failure, Service, Tell
from choreo.contract import Message, contract_of, decode
from choreo.seams import Delivery
from choreo.store.tables import runs, tasks


class Build(Command, topic="works.build", subject="job"):
    job: str
    holes: int = 2
    wired: bool = True


class Dig(Command, topic="works.dig", subject="hole"):
    hole: str


class Dug(Event, topic="works.dug", subject="hole"):
    hole: str
    depth: int = 1


class Rock(Event, topic="works.rock", subject="hole"):
    hole: str
    reason: str = "there is rock"


class Fill(Command, topic="works.fill", subject="hole"):
    hole: str
    why: str


class Filled(Event, topic="works.filled", subject="hole"):
    hole: str


class Wire(Command, topic="works.wire", subject="job"):
    job: str
    depths: tuple[int, ...]


class Wired(Event, topic="works.wired", subject="job"):
    job: str


class Unwire(Command, topic="works.unwire", subject="job"):
    job: str


class Paint(Command, topic="works.paint", subject="job"):
    job: str


class Painted(Event, topic="works.painted", subject="job"):
    job: str
    colour: str = "blue"


class NotPainted(Event, topic="works.not_painted", subject="job"):
    job: str


class Topped(Event, topic="works.topped", subject="job"):
    job: str


class Built(Event, topic="works.built", subject="job"):
    job: str
    colour: str
    wired: bool


class Dropped(Event, topic="works.dropped", subject="job"):
    job: str
    reason: str


#: Time is up when the test says so.
WITHIN = timedelta(hours=1)


def builder() -> Service:
    """A service that conducts a house: holes side by side, then wires beside paint."""
    metadata = sa.MetaData()
    houses = sa.Table("houses", metadata, sa.Column("job", sa.String, primary_key=True))
    service = Service("builder", tables=metadata)

    def dig(build: Build) -> tuple[Dig, ...]:
        return tuple(Dig(hole=f"{build.job}.{number}") for number in range(build.holes))

    def fill(dug: Dig, failure: Failure) -> Fill:
        return Fill(hole=dug.hole, why=failure.reason)

    def wire(build: Build, holes: tuple[Dug, ...]) -> Wire | None:
        if not build.wired:
            return None
        return Wire(job=build.job, depths=tuple(hole.depth for hole in holes))

    def unwire(wired: Wire) -> Unwire:
        return Unwire(job=wired.job)

    def paint(build: Build) -> Paint:
        return Paint(job=build.job)

    def top(build: Build) -> Topped:
        return Topped(job=build.job)

    def finish(build: Build, paint: Painted, wires: Wired | None, db: Connection) -> Built:
        db.execute(houses.insert(), {"job": build.job})
        return Built(job=build.job, colour=paint.colour, wired=wires is not None)

    def drop(build: Build, failure: Failure) -> Dropped:
        return Dropped(job=build.job, reason=failure.reason)

    Conductor(
        service, "house", starts=Build,
        steps=[
            Ask(dig, good=Dug, bad=Rock, undo=fill, undone=Filled, within=WITHIN),
            Tell(top),
            [
                Ask(wire, good=Wired, undo=unwire, within=WITHIN),
                Ask(paint, good=Painted, bad=NotPainted, final="paint dries", within=WITHIN),
            ],
        ],
        ends=finish, fails=drop,
    )  # fmt: skip
    return service


class Works(Stage):
    """A builder, and whoever does as it says: the test."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        #: The commands of the conductor, in order.
        self.commands: list[Message] = []

    @asynccontextmanager
    async def hands(self) -> AsyncIterator[None]:
        """Take the builder's commands."""
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange("works.commands", "topic", durable=True)
            queue = await channel.declare_queue("hands", durable=True)
            for kind in (Dig, Fill, Wire, Unwire, Paint):
                await queue.bind(exchange, kind.__address__.wire_type)

            async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
                contract = contract_of(str(message.type))
                assert contract is not None
                self.commands.append(decode(contract, message.body))
                await message.ack()

            await queue.consume(take)
            yield

    async def sent(self, *commands: Message) -> None:
        """Wait until these, and no others, were sent since the last time."""
        await until(lambda: len(self.commands) >= len(commands), f"{commands} are sent")
        await self.settled()
        assert sorted(map(repr, self.commands)) == sorted(map(repr, commands))
        self.commands.clear()

    async def answer(self, flow: str, *answers: Message) -> None:
        for one in answers:
            await self.publish(one, flow=flow)

    async def ended(self, *ends: Event) -> None:
        """Wait until the builder has announced these ends, and only these."""
        await until(lambda: len(self.ends()) >= len(ends), f"{ends} are announced")
        await self.settled()
        assert self.ends() == list(ends)

    def ends(self) -> list[Message]:
        return [_decoded(one) for kind in (Built, Dropped) for one in self.events(kind)]

    def status(self) -> tuple[str, dict[str, str]]:
        """How the one run and its commands stand."""
        [run] = self.rows(runs)
        return run["status"], {
            f"{one['step']} {one['subject']}": one["status"] for one in self.rows(tasks)
        }


def _decoded(delivery: Delivery) -> Message:
    contract = contract_of(str(delivery.wire_type))
    assert contract is not None
    return decode(contract, delivery.body)
