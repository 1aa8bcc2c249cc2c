"""The command line of scripts/bench."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated
from unittest.mock import patch

import aio_pika
import psycopg
import servers
import typer
from interruptible import until_signalled

from benchmark import flow
from benchmark.peers import faststream_bare, faststream_twin, raw
from benchmark.report import Rates, Report
from benchmark.stage import stage
from benchmark.variants import VARIANTS, Variant
from choreo import node
from choreo.cli import frame
from choreo.errors import CannotRunError, DefinitionError
from choreo.process import CANNOT_RUN
from choreo.rabbitmq import explain
from choreo.settings import Settings

FLOW = "order"
PARTS = (*(one.key for one in VARIANTS), FLOW)
POSTGRES_URL = "CHOREO_BENCH_POSTGRES_URL"
PACKAGES = ("aio-pika", "aiormq", "faststream", "sqlalchemy", "psycopg", "asyncpg", "aiosqlite",
            "pydantic", "uvloop")  # fmt: skip


def main(
    *,
    messages: Annotated[
        int, typer.Option(min=100, help="Messages of one measurement; slow peers get a fifth.")
    ] = 10_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 5,
    orders: Annotated[int, typer.Option(min=2, help="Orders that are timed.")] = 300,
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"Measure this alone; may be repeated: {', '.join(PARTS)}."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A first impression: 2000 messages, 1 round, 50 orders.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure one hop (consume, two SQL statements, publish) side by side with its neighbours.

    Everybody gets the same messages from a quorum queue, one process after the other, round by
    round; everything is persistent and confirmed. A first table has the journal bound to
    nothing, a second one to every event. Then whole orders are timed in a system of its own.

    The broker is that of CHOREO_AMQP_URL, or a private one; PostgreSQL that of
    CHOREO_BENCH_POSTGRES_URL, or a private one. Both are left as they were found.

    Exit code 0: every target that was measured is met. 1: one is missed. 2: it cannot run.

    Three ways to call it:

        scripts/bench
        scripts/bench --quick --json
        scripts/bench --only raw --only choreo-sqlite --rounds 9
    """
    wanted = tuple(only or PARTS)
    if unknown := [one for one in wanted if one not in PARTS]:
        raise CannotRunError(f"--only {unknown[0]}: there is {', '.join(PARTS)}")
    if quick:
        messages, rounds, orders = 2000, 1, 50
    bench = Bench(frame.prepare(), wanted, messages, rounds, orders)
    report = asyncio.run(until_signalled(bench.run()))
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        report.show(frame.console())
    if not report.is_met:
        raise typer.Exit(frame.FOUND_SOMETHING)


class Bench:
    """One run of it."""

    def __init__(
        self, settings: Settings, wanted: Sequence[str], messages: int, rounds: int, orders: int
    ) -> None:
        self._settings = settings
        self._variants = [one for one in VARIANTS if one.key in wanted]
        self._with_order = FLOW in wanted
        self._messages = messages
        self._rounds = rounds
        self._orders = orders

    async def run(self) -> Report:
        """Measure everything that is wanted."""
        self._settings.var.mkdir(parents=True, exist_ok=True)
        needs_postgres = any(one.on_postgres for one in self._variants)
        with (
            # On the disk of the project: a temporary folder may be memory.
            tempfile.TemporaryDirectory(prefix="bench-", dir=self._settings.var.resolve()) as name,
            _postgres(needed=needs_postgres) as postgres_url,
        ):
            folder = Path(name)
            async with _broker(self._settings, folder) as amqp_url:
                facts = await _facts(amqp_url, postgres_url)
                hops = await self._hops(amqp_url, postgres_url, folder)
                order = None
                if self._with_order:
                    order = await flow.measure(amqp_url, folder, self._orders, say)
        return Report(self._chosen() | facts, hops, order)

    async def _hops(self, amqp_url: str, postgres_url: str | None, folder: Path) -> list[Rates]:
        if not self._variants:
            return []
        found = [Rates(journal=False), Rates(journal=True)]
        async with stage(amqp_url, postgres_url, folder) as ready:
            for rates in found:
                say(rates.title)
                for number in range(1, self._rounds + 1):
                    for variant in self._variants:
                        count = self._count(variant)
                        rate = await ready.measure(variant, count, journal=rates.journal)
                        rates.add(variant.key, rate)
                        say(f"  round {number} of {self._rounds}: {rate:>6,.0f}/s {variant.title}")
        return found

    def _count(self, variant: Variant) -> int:
        return max(100, int(self._messages * variant.share))

    def _chosen(self) -> dict[str, str]:
        settings = self._settings
        return {
            "messages": ", ".join(f"{one.key} {self._count(one):,}" for one in self._variants),
            "rounds": f"{self._rounds}, interleaved; a ratio is the median of the rounds' ratios",
            "queues": "quorum, persistent messages, publisher confirms, manual acks",
            "event loop": "uvloop for all",
            "prefetch": f"raw {raw.PREFETCH}, FastStream {faststream_bare.PREFETCH}, with a "
            f"database {faststream_twin.PREFETCH}; choreo {settings.prefetch}",
            "choreo": f"batches of at most {settings.batch}; full envelope in and out, step rows",
            "FastStream with a database": "a transaction per message; one connection to SQLite, "
            f"{faststream_twin.CONNECTIONS} to PostgreSQL",
            "SQLite": "for all: WAL, synchronous=FULL",
        }


async def _facts(amqp_url: str, postgres_url: str | None) -> dict[str, str]:
    facts = {
        "cores": str(len(os.sched_getaffinity(0))),
        "Python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "RabbitMQ": await _rabbitmq_version(amqp_url),
    }
    if postgres_url:
        with psycopg.connect(postgres_url) as connection:
            query = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)"
            shown = ["server_version", "fsync", "synchronous_commit"]
            found = connection.execute(query, [shown]).fetchall()
        facts["PostgreSQL"] = ", ".join(f"{name} {setting}" for name, setting in found)
    return facts


async def _rabbitmq_version(amqp_url: str) -> str:
    async with await aio_pika.connect(amqp_url) as connection:
        transport = connection.transport
        said = transport.connection.server_properties.get("version") if transport else None
    return said.decode() if isinstance(said, bytes) else str(said)


@asynccontextmanager
async def _broker(settings: Settings, folder: Path) -> AsyncGenerator[str]:
    if settings.amqp_url is None:
        say("starting a private RabbitMQ")
        try:
            async with node.private_node(folder) as url:
                yield url
        finally:
            node.discard(folder)
        return
    try:
        await (await aio_pika.connect(settings.amqp_url)).close()
    except Exception as error:
        raise CannotRunError(explain(error, settings.amqp_url)) from error
    yield settings.amqp_url


@contextmanager
def _postgres(*, needed: bool) -> Generator[str | None]:
    if not needed:
        yield None
    elif url := os.environ.get(POSTGRES_URL):
        try:
            psycopg.connect(url).close()
        except psycopg.Error as error:
            reason = str(error).partition("\n")[0]
            raise CannotRunError(f"{POSTGRES_URL} cannot be used: {reason}") from error
        yield url
    else:
        choice = servers.choose()
        if choice.kind is None:
            raise CannotRunError(
                f"no PostgreSQL ({choice.text}); or set {POSTGRES_URL} to one that runs"
            )
        say("starting a private PostgreSQL")
        # The tests' servers sync nothing to disk; here a commit must be there, as anywhere else.
        with (
            patch.object(servers, "_POSTGRES_SETTINGS", []),
            servers.running_postgres(choice) as url,
        ):
            yield url


def say(text: str) -> None:
    """Tell what is being done; the results alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    app = typer.Typer(
        add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False
    )
    app.command()(main)
    try:
        app(prog_name="scripts/bench")
    except (CannotRunError, DefinitionError) as error:
        say(f"bench: {error}")
        sys.exit(CANNOT_RUN)
