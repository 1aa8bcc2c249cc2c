"""Shows every process in a system of its own, one story after another, and checks the books."""

from __future__ import annotations

import asyncio
import json
import os
import pkgutil
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import own_system
import program
import sending
import typer
from books import Books, Check
from interruptible import until_signalled
from own_system import say
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sending import Sender
from stories import STORIES, Story

from choreo import Command, discovery, node
from choreo.cli import frame
from choreo.follow import following, owed
from choreo.process import amqp_url
from choreo.settings import Settings
from choreo.tree import Entry, Flow, after_ms

_FLOW_S, _AGAIN_S = 60.0, 0.1


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
            node.discard(var)
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
        await own_system.refuse_if_used(settings.amqp_url, services)
    told: list[Told] = []
    async with own_system.running(settings.var / "up.log") as stop:
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
