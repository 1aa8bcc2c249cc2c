"""A service as a process: put together, run until it is told to stop, and left in order."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import uvloop
from structlog.typing import FilteringBoundLogger

from choreo import log as logs
from choreo import node, plan
from choreo.audience import Audience, hearers
from choreo.calls import Calls
from choreo.catch_up import FromStart
from choreo.commit import Committer
from choreo.deliver import Lifecycle
from choreo.errors import CannotRunError, DefinitionError
from choreo.failpoint import arm
from choreo.identity import Ids
from choreo.intake import Intake
from choreo.rabbitmq import RabbitMQ
from choreo.relay import Relay
from choreo.seams import SystemClock
from choreo.service import Service
from choreo.settings import Settings, load
from choreo.store.database import OutageError, ServiceDatabase
from choreo.store.memory import Memory
from choreo.transaction import Tools

CANNOT_RUN = 2
#: After the grace is over, so long may closing take.
LAST_S = 5.0


def main(service: Service, *, from_start: bool = False) -> None:
    """Run the service in this process; exits with 2 and one line if it cannot run.

    With `from_start` it takes the journal in before what comes.
    """
    arm(service.name)
    try:
        settings = load()
        logs.configure(settings, service.name)
        uvloop.run(_run_until_signalled(service, settings, from_start=from_start))
    except (CannotRunError, DefinitionError) as error:
        print(f"{service.name}: {error}", file=sys.stderr)
        raise SystemExit(CANNOT_RUN) from None
    except Exception as error:  # noqa: BLE001 - the last place that can say it in the log's form
        logs.logger(service.name).critical("the service died", exc_info=error)
        raise SystemExit(1) from None


def amqp_url(settings: Settings) -> str:
    """Where the broker is; raises CannotRunError when none is named and none is recorded."""
    url = settings.amqp_url or node.joined(settings.var)
    if url is None:
        raise CannotRunError(
            f"no broker: set CHOREO_AMQP_URL, or start a private one with 'choreo up' "
            f"(none is recorded under {settings.var}/)"
        )
    return url


async def _run_until_signalled(service: Service, settings: Settings, *, from_start: bool) -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        told.set()
        # A handler that never returns holds the database's thread, and with it the process.
        loop.call_later(settings.grace_s + LAST_S, _leave, service)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await run(service, settings, told, from_start=from_start)


def _leave(service: Service) -> None:
    logs.logger(service.name).critical(
        "a handler does not return: leaving without it; its message is handled at the next start"
    )
    os._exit(1)


async def run(
    service: Service, settings: Settings, told: asyncio.Event, *, from_start: bool = False
) -> None:
    """Run the service until it is told to stop: stop consuming, finish, publish, close."""
    log, clock, random = logs.logger(service.name), SystemClock(), Random()  # noqa: S311 - no secret
    url, database = amqp_url(settings), ServiceDatabase(service, settings, clock)
    broker = (
        FromStart(url, settings, service.name, log, database)
        if from_start
        else RabbitMQ(url, settings, service.name, log)
    )
    owner = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
    tools = Tools(plan.make(service), settings, Ids(clock, random), random, owner)
    audience = Audience(broker, hearers(settings, service), log)
    calls, relay = Calls(service, settings), Relay(broker, log, audience.is_heard)
    audience.on_change = relay.look_again
    intake = Intake(tools.plan, settings, calls, relay, clock)
    committer = Committer(tools, database, calls, relay, log)
    lifecycle = Lifecycle(tools, broker, intake, committer, relay, log=log)
    if (ready_file := settings.ready_file) is not None:
        _show_ready(ready_file, ready=False)  # one may be left from a process that was killed
        broker.on_consuming(partial(_show_ready, ready_file))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        await database.open()
        stack.push_async_callback(broker.close)
        stack.push_async_callback(_release, database, owner, relay, log)
        stack.push_async_callback(calls.close)
        await calls.open()
        await broker.open()
        stack.push_async_callback(relay.close)
        await audience.check()
        watching = asyncio.create_task(audience.run())
        stack.callback(watching.cancel)
        await _until_told(lifecycle, relay, settings, told, log)


def _show_ready(file: Path, ready: bool) -> None:
    if ready:
        file.touch()
    else:
        file.unlink(missing_ok=True)


async def _until_told(
    lifecycle: Lifecycle,
    relay: Relay,
    settings: Settings,
    told: asyncio.Event,
    log: FilteringBoundLogger,
) -> None:
    relaying = asyncio.create_task(relay.run())
    running = asyncio.create_task(lifecycle.run())
    stopping = asyncio.create_task(told.wait())
    try:
        await asyncio.wait((running, relaying, stopping), return_when=asyncio.FIRST_COMPLETED)
        for vital in (running, relaying):
            if vital.done():
                vital.result()
        await _stop(lifecycle, running, relay, settings, log)
    finally:
        tasks: tuple[asyncio.Task[Any], ...] = (running, relaying, stopping)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _stop(
    lifecycle: Lifecycle,
    running: asyncio.Task[None],
    relay: Relay,
    settings: Settings,
    log: FilteringBoundLogger,
) -> None:
    log.info("stopping")
    try:
        async with asyncio.timeout(settings.grace_s):
            await lifecycle.stop()
            await running
            await relay.flush()
    except TimeoutError:
        log.warning("not everything was finished in time; it goes on at the next start")
    else:
        log.info("stopped")


async def _release(
    database: ServiceDatabase, owner: str, relay: Relay, log: FilteringBoundLogger
) -> None:
    """Leave the outbox tidy, and let others have at once what is left in it."""
    confirmed = relay.take_confirmed()

    def work(db: object, now: float) -> None:
        memory = Memory(db)  # type: ignore[arg-type]
        memory.forget(confirmed)
        memory.release(owner, now)

    try:
        await database.run(work)
    except OutageError as outage:
        log.warning("the database is away; leases run out by themselves", error=str(outage))
