"""Shows every process in a system of its own, one story after another, and checks the books."""

from __future__ import annotations

import asyncio
import json
import os
import pkgutil
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any

import aio_pika
import program
import sending
import typer
from books import Books, Check
from interruptible import until_signalled
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sending import Sender

from choreo import CannotRunError, Command, Service, discovery
from choreo.cli import frame
from choreo.follow import following, owed
from choreo.node import end_with_parent
from choreo.process import amqp_url
from choreo.rabbitmq import explain
from choreo.settings import Settings
from choreo.tree import Entry, Flow, after_ms
from contracts.accounts import Preference, RegisterAccount
from contracts.customers import Customer
from contracts.orders import Line, PlaceOrder, ProcessOrder
from contracts.travel import ConfirmReservation, Leg, ReserveTrip, Way

_START_S, _STOP_S, _FLOW_S, _AGAIN_S = 120.0, 60.0, 15.0, 0.1
_SHOWN_LINES = 10


@dataclass(frozen=True, slots=True)
class Story:
    """What somebody asks for, and how it must end."""

    name: str
    #: Of the last of its flows.
    outcome: str
    #: What must have been announced by then. Points and the first mail of an order that dies are
    #: not among it: its cancellation may come before them, and then they never come.
    events: str
    commands: tuple[Command, ...]


ADA = Customer(customer_id="ada", email="ada@example.com", address="1 Main Street", member=True)


def _registration() -> tuple[Command, ...]:
    about = ADA.model_dump()
    wishes = (
        Preference(provider="airline", name="seat", value="aisle"),
        Preference(provider="hotel", name="floor", value="high"),
    )
    return (RegisterAccount(name="Ada Example", preferences=wishes, **about),)


def _order(
    number: int,
    command: type[PlaceOrder | ProcessOrder] = PlaceOrder,
    *,
    sku: str = "TEA-1",
    quantity: int = 2,
    card: str = "4242-4242",
    address: str = ADA.address,
) -> tuple[Command, ...]:
    return (
        command(
            order_id=f"order-{number}",
            customer=ADA.model_copy(update={"address": address}),
            card=card,
            lines=(Line(sku=sku, quantity=quantity),),
        ),
    )


def _trip(number: int, way: Way, *, car: str = "CAR-1") -> tuple[Command, ...]:
    start = date.today() + timedelta(days=30)
    legs = tuple(
        Leg(provider=provider, offer=offer, start=start, end=start + timedelta(days=7))
        for provider, offer in (("airline", "ROME-1"), ("hotel", "ROOM-1"), ("car", car))
    )
    trip_id = f"trip-{number}"
    return (
        ReserveTrip(trip_id=trip_id, customer=ADA, legs=legs, way=way),
        ConfirmReservation(trip_id=trip_id, card="4242-4242"),
    )


STORIES = (
    Story(
        "a registration",
        "registered",
        "accounts.registered notifications.email_sent crm.profile_opened",
        _registration(),
    ),
    Story(
        "an order",
        "fulfilled",
        "orders.placed inventory.stock_reserved payments.captured rewards.granted shipping.booked "
        "orders.fulfilled inventory.stock_shipped shipping.collected notifications.email_sent",
        _order(1),
    ),
    Story(
        "an order, conducted",
        "fulfilled",
        "orders.opened inventory.stock_held payments.taken orders.paid rewards.granted "
        "shipping.arranged orders.fulfilled inventory.stock_shipped shipping.collected "
        "notifications.email_sent",
        _order(2, ProcessOrder),
    ),
    Story(
        "out of stock",
        "cancelled",
        "orders.placed inventory.stock_rejected orders.cancelled notifications.email_sent",
        _order(3, sku="RARE-1", quantity=4),
    ),
    Story(
        "a declined card",
        "cancelled",
        "orders.placed inventory.stock_reserved payments.declined orders.cancelled "
        "inventory.stock_released notifications.email_sent",
        _order(4, card="4000-0002"),
    ),
    Story(
        "a shipment fails",
        "cancelled",
        "orders.placed inventory.stock_reserved payments.captured shipping.failed "
        "orders.cancelled payments.refunded inventory.stock_released notifications.email_sent",
        _order(5, address="nowhere"),
    ),
    Story(
        "a shipment fails, conducted",
        "cancelled",
        "orders.opened inventory.stock_held payments.taken orders.paid shipping.refused "
        "payments.returned inventory.stock_released orders.cancelled notifications.email_sent",
        _order(6, ProcessOrder, address="nowhere"),
    ),
    Story(
        "a trip, conducted",
        "confirmed",
        "travel.reserved providers.leg_booked providers.leg_booked providers.leg_booked "
        "payments.taken travel.confirmed rewards.trip_granted notifications.email_sent",
        _trip(1, "conducted"),
    ),
    Story(
        "a trip fails at its last leg, conducted",
        "cancelled",
        "travel.reserved providers.leg_booked providers.leg_booked providers.leg_refused "
        "providers.leg_cancelled providers.leg_cancelled travel.cancelled "
        "notifications.email_sent",
        _trip(2, "conducted", car="CAR-NEVER"),
    ),
    Story(
        "a trip fails at its last leg, choreographed",
        "cancelled",
        "travel.reserved travel.reservation_confirmed providers.leg_booked providers.leg_booked "
        "providers.leg_refused providers.leg_cancelled providers.leg_cancelled "
        "providers.legs_failed travel.cancelled notifications.email_sent",
        _trip(3, "choreographed", car="CAR-NEVER"),
    ),
)


@dataclass(frozen=True, slots=True)
class Told:
    """A story as it was seen."""

    story: Story
    #: Of each of its commands.
    flows: list[Flow]
    #: What is not as it must be.
    wrong: tuple[str, ...]


def main(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Keep databases, mails and logs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run every process in a system of its own, show the flows, and check what they left.

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
    services = (one.name for one in pkgutil.iter_modules(["services"]))
    # They would lead the demo to a person's own databases, mail server or gateway.
    foreign = ("CHOREO_", *(f"{name.upper()}_" for name in services))
    for name in list(os.environ):
        if name.startswith(foreign) and name != "CHOREO_AMQP_URL":
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
            say(f"Telling {len(STORIES)} stories, one after the other")
            async with frame.broker(settings) as broker:
                sender = sending.Sender(broker, follower, services)
                for story in STORIES:
                    told.append(await _tell(story, sender))
                    if console:
                        _show_flows(console, told[-1])
            say("Checking the databases, the ledgers of the outside world and the mails")
            sent = [
                one for each in told for one in zip(each.story.commands, each.flows, strict=False)
            ]
            await _settled(books, sent)
            await stop()  # what is in hand is finished, and the journal still tells of it
    return told, books.check(sent)


async def _settled(books: Books, sent: Sequence[tuple[Command, Flow]]) -> None:
    """Give those time that hear and say nothing: what they did shows in their books alone."""
    for _ in range(int(_FLOW_S / _AGAIN_S)):
        if all(check.is_right for check in books.check(sent)):
            return
        await asyncio.sleep(_AGAIN_S)


async def _tell(story: Story, sender: Sender) -> Told:
    """Send the commands, wait for their flows to come to rest, and see what is wrong with them."""
    flows = await sender.carry_out([story.commands], within_s=_FLOW_S)

    def entries() -> list[Entry]:
        return [entry for flow in flows for entry in flow.entries.values()]

    def missing() -> list[str]:
        must_be = Counter(story.events.split())
        return sorted((must_be - Counter(entry.name for entry in entries())).elements())

    # Who need not speak may still do so.
    await sender.follower.until(lambda: not missing(), within_s=_FLOW_S)
    outcome = sending.outcome_of(flows[-1])
    wrong = [f"{outcome}, not {story.outcome}"] if outcome != story.outcome else []
    wrong += (f"no {name}" for name in missing())
    wrong += (one for flow in flows for one in owed(flow, sender.services))
    wrong += (f"{one.publisher}: {one.reason}" for one in entries() if one.gave_up)
    return Told(story, flows, tuple(wrong))


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


def _show_flows(console: Console, told: Told) -> None:
    console.print()
    console.print(Text(f"{told.story.name}: {sending.outcome_of(told.flows[-1])}", style="bold"))
    for flow in told.flows:
        console.print(flow.as_tree())
    for wrong in told.wrong:
        console.print(Text(f"  {wrong}", style="red"))


def _show(console: Console, told: Sequence[Told], checks: Sequence[Check]) -> None:
    console.print()
    table = Table("story", "must end", "ended", "after", "")
    for one in told:
        *_, last = one.flows
        end = sending.end_of(last)
        after = "" if end is None else f"{after_ms(end, last.began)} ms"
        mark = _mark(is_right=not one.wrong)
        table.add_row(one.story.name, one.story.outcome, sending.outcome_of(last), after, mark)
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
        "stories": [
            {
                "name": one.story.name,
                "must_end": one.story.outcome,
                "ended": sending.outcome_of(one.flows[-1]),
                "wrong": list(one.wrong),
                "flows": [flow.as_json() for flow in one.flows],
            }
            for one in told
        ],
        "books": [{**asdict(check), "is_right": check.is_right} for check in checks],
    }


if __name__ == "__main__":
    program.run("demo", main)
