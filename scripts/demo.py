"""Shows the order flow: places four orders in a system of its own, and checks what they left."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import aio_pika
import ordering
import typer
from books import Books, Check
from interruptible import until_signalled
from rich.console import Console
from rich.table import Table
from rich.text import Text

from choreo import CannotRunError, DefinitionError, Service, discovery
from choreo.cli import frame
from choreo.follow import Follower, following, owed
from choreo.identity import Ids
from choreo.node import end_with_parent
from choreo.process import CANNOT_RUN, amqp_url
from choreo.rabbitmq import RabbitMQ, explain
from choreo.seams import SystemClock
from choreo.settings import Settings
from choreo.tree import Flow, after_ms
from contracts.orders import PlaceOrder

_START_S, _STOP_S, _FLOW_S = 120.0, 60.0, 15.0
_SHOWN_LINES = 10
#: Settings of these would lead the demo to a person's own databases, mail server or gateway.
_FOREIGN = ("CHOREO_", "ORDERS_", "PAYMENTS_", "SHIPPING_")


@dataclass(frozen=True, slots=True)
class Story:
    """An order, and how it must end."""

    name: str
    outcome: str
    #: What must have been announced by then. Points and the first mail of an order that dies are
    #: not among it: its cancellation may come before them, and then they never come.
    events: str
    sku: str = "TEA-1"
    quantity: int = 2
    card: str = "4242-4242"
    member: bool = False
    address: str = "1 Main Street"

    def order(self, ids: Ids) -> PlaceOrder:
        """Make the order itself."""
        return ordering.order(
            ids,
            self.sku,
            self.quantity,
            card=self.card,
            member=self.member,
            address=self.address,
            email="customer@example.com",
        )


STORIES = (
    Story(
        "a member's order",
        "fulfilled",
        "orders.placed inventory.stock_reserved payments.captured rewards.granted shipping.booked "
        "orders.fulfilled inventory.stock_shipped shipping.collected notifications.email_sent",
        member=True,
    ),
    Story(
        "out of stock",
        "cancelled",
        "orders.placed inventory.stock_rejected orders.cancelled notifications.email_sent",
        sku="RARE-1",
        quantity=4,
    ),
    Story(
        "a declined card",
        "cancelled",
        "orders.placed inventory.stock_reserved payments.declined orders.cancelled "
        "inventory.stock_released notifications.email_sent",
        card="4000-0002",
    ),
    Story(
        "a member's shipment fails",
        "cancelled",
        "orders.placed inventory.stock_reserved payments.captured shipping.failed "
        "orders.cancelled payments.refunded inventory.stock_released notifications.email_sent",
        member=True,
        address="nowhere",
    ),
)


@dataclass(frozen=True, slots=True)
class Told:
    """A story as it was seen."""

    story: Story
    order: PlaceOrder
    flow: Flow
    #: What is not as it must be.
    wrong: tuple[str, ...]


def main(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Keep databases, mails and logs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Place four orders in a system of its own, show their flows, and check what they left.

    It runs the sandboxes and every service as a process of its own, on a private broker, or on
    that of CHOREO_AMQP_URL, and ends all of them.

    Exit code 0: all is as it must be. 1: something is not. 2: it cannot run.
    """
    began = time.monotonic()
    var = Path(tempfile.mkdtemp(prefix="choreo-demo-"))
    try:
        console = None if as_json else frame.console()
        told, checks = asyncio.run(until_signalled(_run(_settings_for(var), console)))
    finally:
        if keep:
            say(f"Kept: {var}")
        else:
            shutil.rmtree(var)
    is_right = not any(one.wrong for one in told) and all(check.is_right for check in checks)
    seconds = round(time.monotonic() - began, 1)
    if console is None:
        print(json.dumps(_as_json(told, checks, is_right=is_right, seconds=seconds)))
    else:
        _show(console, told, checks)
        verdict = "All is as it must be" if is_right else "Something is not as it must be"
        console.print(f"{verdict}. It took {seconds} s.", highlight=False)
    if not is_right:
        raise typer.Exit(frame.FOUND_SOMETHING)


def say(text: str) -> None:
    """Tell what is being done; the results alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


def _settings_for(var: Path) -> Settings:
    """Leave of the settings in the environment, which the services inherit, the broker alone."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN) and name != "CHOREO_AMQP_URL":
            del os.environ[name]
    os.environ["CHOREO_VAR"] = str(var)
    return frame.prepare()


async def _run(settings: Settings, console: Console | None) -> tuple[list[Told], list[Check]]:
    services = discovery.services(settings)
    if settings.amqp_url:
        await _refuse_if_used(settings.amqp_url, services)
    told: list[Told] = []
    async with _system(settings.var / "up.log") as stop:
        books = Books(settings.var)
        async with following(amqp_url(settings)) as follower:
            say(f"Placing {len(STORIES)} orders, one after the other")
            async with frame.broker(settings) as broker:
                for story in STORIES:
                    told.append(await _tell(story, broker, follower, services))
                    if console:
                        _show_flow(console, told[-1])
            await stop()  # what is in hand is finished, and the journal still tells of it
    say("Checking the databases, the ledgers of the outside world and the mails")
    return told, books.check([(one.order, one.flow) for one in told])


async def _tell(
    story: Story, broker: RabbitMQ, follower: Follower, services: Sequence[Service]
) -> Told:
    """Place the order, wait for its flow to come to rest, and see what is wrong with it."""
    ids = Ids(SystemClock(), random.SystemRandom())
    order = story.order(ids)
    (flow,) = await ordering.place(broker, follower, ids, [order])

    def missing() -> list[str]:
        seen = {entry.name for entry in flow.entries.values()}
        return [name for name in story.events.split() if name not in seen]

    await follower.until(lambda: not missing(), within_s=_FLOW_S)
    await ordering.ended(follower, [flow], services, within_s=1)
    outcome = ordering.outcome_of(flow)
    wrong = [f"{outcome}, not {story.outcome}"] if outcome != story.outcome else []
    wrong += (f"no {name}" for name in missing())
    wrong += owed(flow, services)
    wrong += (f"{one.publisher}: {one.reason}" for one in flow.entries.values() if one.gave_up)
    return Told(story, order, flow, tuple(wrong))


@asynccontextmanager
async def _system(log: Path) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
    """Run `choreo up` as a process of its own while the block lasts; gives what stops it sooner."""
    say("Starting the sandboxes of the outside world and the services ('choreo up')")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "choreo", "up",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # a Ctrl-C reaches it through us
        preexec_fn=end_with_parent,
    )  # fmt: skip
    ready = asyncio.Event()
    reading = asyncio.create_task(_read(process.stdout, log, ready))

    async def stop() -> None:
        if process.returncode is not None:
            return
        say("Stopping everything")
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            raise CannotRunError(f"the system did not stop within {_STOP_S:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()  # on Linux, what it runs ends with it
                await process.wait()

    try:
        await _until_ready(ready, reading, log)
        yield stop
    finally:
        await stop()
        await reading


async def _read(output: asyncio.StreamReader | None, log: Path, ready: asyncio.Event) -> None:
    """Keep what the system says, and pass on what `choreo up` says itself."""
    if output is None:
        raise TypeError("the process was started without a pipe")
    with log.open("wb") as file:
        async for line in output:
            file.write(line)
            file.flush()
            name, _, text = line.decode(errors="replace").partition(" | ")
            if name.strip() == "choreo" and not ready.is_set():
                say(f"  {text.strip()}")
            if "services are running" in text:
                ready.set()


async def _until_ready(ready: asyncio.Event, reading: asyncio.Task[None], log: Path) -> None:
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait((waiting, reading), timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not ready.is_set():
        how = "ended" if reading.done() else f"is not ready after {_START_S:g} s"
        raise CannotRunError(f"the system {how}; it said:\n{_end_of(log)}")


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:])


async def _refuse_if_used(url: str, services: Sequence[Service]) -> None:
    """Other instances of the services would take the orders away; raises CannotRunError."""
    try:
        connection = await aio_pika.connect(url)
    except Exception as error:
        raise CannotRunError(explain(error, url)) from error
    async with connection:
        for service in services:
            channel = await connection.channel()
            with suppress(aio_pika.exceptions.ChannelNotFoundEntity):
                queue = await channel.declare_queue(service.name, passive=True)
                found = queue.declaration_result
                if found.consumer_count or found.message_count:
                    raise CannotRunError(
                        f"the broker of CHOREO_AMQP_URL is in use: its queue {service.name!r} has "
                        f"{found.consumer_count} consumers and {found.message_count} messages; "
                        "name another virtual host, or unset it for a private broker"
                    )


def _show_flow(console: Console, told: Told) -> None:
    console.print()
    console.print(Text(f"{told.story.name}: {ordering.outcome_of(told.flow)}", style="bold"))
    console.print(told.flow.as_tree())
    for wrong in told.wrong:
        console.print(Text(f"  {wrong}", style="red"))


def _show(console: Console, told: Sequence[Told], checks: Sequence[Check]) -> None:
    console.print()
    table = Table("order", "must end", "ended", "after", "")
    for one in told:
        end = ordering.end_of(one.flow)
        after = "" if end is None else f"{after_ms(end, one.flow.began)} ms"
        mark = _mark(is_right=not one.wrong)
        table.add_row(one.story.name, one.story.outcome, ordering.outcome_of(one.flow), after, mark)
    console.print(table)
    table = Table("books", "what they say", "")
    for check in checks:
        table.add_row(check.what, check.found, _mark(is_right=check.is_right))
        if not check.is_right:
            table.add_row("", Text(f"must be: {check.must_be}", style="red"))
    console.print(table)


def _mark(*, is_right: bool) -> Text:
    return Text("✓", style="green") if is_right else Text("✗", style="bold red")


def _as_json(
    told: Sequence[Told], checks: Sequence[Check], *, is_right: bool, seconds: float
) -> dict[str, Any]:
    return {
        "is_right": is_right,
        "seconds": seconds,
        "orders": [
            {
                "name": one.story.name,
                "must_end": one.story.outcome,
                "ended": ordering.outcome_of(one.flow),
                "wrong": list(one.wrong),
                **one.flow.as_json(),
            }
            for one in told
        ],
        "books": [{**asdict(check), "is_right": check.is_right} for check in checks],
    }


if __name__ == "__main__":
    app = typer.Typer(
        add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False
    )
    app.command()(main)
    try:
        app(prog_name="scripts/demo")
    except (CannotRunError, DefinitionError) as error:
        say(f"demo: {error}")
        sys.exit(CANNOT_RUN)
