"""What is in hand is bounded, also where it comes from the service's own memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from pathlib import Path

from stage import Stage, until

from choreo import Context, Event, Retry, Service

CALLS = 2


class Wanted(Event, topic="bounds.wanted"):
    pass


class Done(Event, topic="bounds.done"):
    pass


class Counter:
    """Counts how many calls are under way; the first of each key fails."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.keys: set[str] = set()

    async def call(self, key: str) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if key not in self.keys:
                self.keys.add(key)
                raise Retry("all of them become due together", after=0.3)
            await asyncio.sleep(0.02)
        finally:
            self.now -= 1


async def test_calls_that_are_made_again(
    amqp_url: str, database_url: str, create_databases: Callable[..., None], tmp_path: Path
) -> None:
    counter = Counter()
    service = Service("bounds")

    @service.adapter
    async def open_counter() -> AsyncGenerator[Counter]:
        yield counter

    @service.on(final="only counts", timeout=timedelta(seconds=5))
    async def call(wanted: Wanted, context: Context, counter: Counter) -> Done:
        await counter.call(context.key)
        return Done()

    create_databases("bounds")
    async with Stage(service, amqp_url, database_url, tmp_path, calls=CALLS) as running:
        for _ in range(10):
            await running.publish(Wanted())
        await until(lambda: len(running.events(Done)) == 10, "all are done")
        await running.settled()
        assert counter.most <= CALLS
