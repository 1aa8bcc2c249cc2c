"""A service over the four seams: put together, run until it is told to stop, and left in order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from structlog.typing import FilteringBoundLogger

from choreo.audience import Audience
from choreo.calls import Calls
from choreo.commit import Committer
from choreo.deliver import Lifecycle
from choreo.intake import Intake
from choreo.relay import Relay
from choreo.seams import Broker, Clock, Database
from choreo.service import AdapterFactory
from choreo.store.database import OutageError
from choreo.store.memory import Memory
from choreo.transaction import Tools

#: After the grace is over, so long may closing take.
LAST_S = 5.0


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts of one service, and the order in which they are begun, stopped and closed."""

    tools: Tools
    broker: Broker
    database: Database
    lifecycle: Lifecycle
    relay: Relay
    calls: Calls
    audience: Audience
    log: FilteringBoundLogger

    async def run(self, told: asyncio.Event) -> None:
        """Run the service until it is told to stop: stop consuming, finish, publish, close.

        Raises CannotRunError if its database, its broker or an adapter cannot be opened.
        """
        async with AsyncExitStack() as stack:
            stopping = asyncio.create_task(told.wait())
            stack.callback(stopping.cancel)
            if await self._opened(stack, stopping):
                await self._until_told(stopping)
            else:
                self.log.info("told to stop before it had started")

    async def _opened(self, stack: AsyncExitStack, stopping: asyncio.Task[Any]) -> bool:
        """Open everything; False if it was told to stop meanwhile."""
        limit = asyncio.timeout(None)

        def give_up(_: object) -> None:
            limit.reschedule(0.0)

        try:
            async with limit:
                stopping.add_done_callback(give_up)
                try:
                    await self._open(stack)
                finally:
                    stopping.remove_done_callback(give_up)
        except TimeoutError:
            if not limit.expired():
                raise
            return False
        return True

    async def _open(self, stack: AsyncExitStack) -> None:
        stack.push_async_callback(self.database.close)
        await self.database.open()
        stack.push_async_callback(self.broker.close)
        stack.push_async_callback(self._release)
        stack.push_async_callback(self.calls.close)
        await self.calls.open()
        await self.broker.open()
        stack.push_async_callback(self.relay.close)
        await self.audience.check()
        watching = asyncio.create_task(self.audience.run())
        stack.callback(watching.cancel)

    async def _until_told(self, stopping: asyncio.Task[Any]) -> None:
        relaying = asyncio.create_task(self.relay.run())
        running = asyncio.create_task(self.lifecycle.run())
        try:
            await asyncio.wait((running, relaying, stopping), return_when=asyncio.FIRST_COMPLETED)
            for vital in (running, relaying):
                if vital.done():
                    vital.result()
            await self._stop(running)
        finally:
            tasks: tuple[asyncio.Task[Any], ...] = (running, relaying)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stop(self, running: asyncio.Task[None]) -> None:
        self.log.info("stopping")
        try:
            async with asyncio.timeout(self.tools.settings.grace_s):
                await self.lifecycle.stop()
                await running
                await self.relay.flush()
        except TimeoutError:
            self.log.warning("not everything was finished in time; it goes on at the next start")
        else:
            self.log.info("stopped")

    async def _release(self) -> None:
        """Leave the outbox tidy, and let others have at once what is left in it."""
        confirmed = self.relay.take_confirmed()

        def work(db: Connection, now: float) -> None:
            memory = Memory(db)
            memory.forget(confirmed)
            memory.release(self.tools.owner, now)

        try:
            await self.database.run(work)
        except OutageError as outage:
            self.log.warning(
                "the database is away; leases run out by themselves", error=str(outage)
            )


def assemble(
    tools: Tools,
    hearers: Mapping[str, Sequence[str]],
    *,
    broker: Broker,
    database: Database,
    clock: Clock,
    log: FilteringBoundLogger,
    adapters: Mapping[type, AdapterFactory] | None = None,
) -> Assembly:
    """One service over a broker, a database and a clock; randomness is in `tools`.

    `hearers`: the queues that hear each of its events by agreement, by wire type; `adapters`: in
    the place of those that the service declares.
    """
    settings = tools.settings
    audience = Audience(broker, hearers, log)
    calls, relay = (
        Calls(tools.plan.service, settings, adapters),
        Relay(broker, log, audience.is_heard),
    )
    audience.on_change = relay.look_again
    intake = Intake(tools.plan, settings, calls, relay, clock)
    committer = Committer(tools, database, calls, relay, clock=clock, log=log)
    lifecycle = Lifecycle(tools, broker, intake, committer, relay, log=log)
    return Assembly(tools, broker, database, lifecycle, relay, calls, audience, log)
