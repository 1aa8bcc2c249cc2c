"""A service as a process: its settings, its signals, and the codes that it exits with."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from random import Random

import uvloop

from choreo import log as logs
from choreo import node, plan
from choreo.assembly import LAST_S, assemble
from choreo.audience import hearers
from choreo.catch_up import FromStart
from choreo.errors import CannotRunError, DefinitionError
from choreo.failpoint import arm
from choreo.identity import Ids
from choreo.rabbitmq import RabbitMQ
from choreo.seams import SystemClock
from choreo.service import Service
from choreo.settings import Settings, load
from choreo.store.database import ServiceDatabase
from choreo.transaction import Tools

CANNOT_RUN = 2


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
        # A handler that never returns holds the database's thread, and with it the process; so does
        # a database that is not there, and an adapter may take its time.
        loop.call_later(settings.grace_s + LAST_S, _leave, service)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await run(service, settings, told, from_start=from_start)


def _leave(service: Service) -> None:
    logs.logger(service.name).critical(
        "a handler, an adapter or the database does not return: leaving without it; what is in "
        "hand goes on at the next start"
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
    if (ready_file := settings.ready_file) is not None:
        _show_ready(ready_file, ready=False)  # one may be left from a process that was killed
        broker.on_consuming(partial(_show_ready, ready_file))
    parts = assemble(
        tools, hearers(settings, service), broker=broker, database=database, clock=clock, log=log
    )
    await parts.run(told)


def _show_ready(file: Path, ready: bool) -> None:
    if ready:
        file.touch()
    else:
        file.unlink(missing_ok=True)
