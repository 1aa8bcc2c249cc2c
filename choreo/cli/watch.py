"""`choreo watch`: shows events as they pass, each below its cause."""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections import OrderedDict
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from choreo import rabbitmq, tree
from choreo.cli import frame
from choreo.errors import CannotRunError, UndecodableError
from choreo.process import amqp_url
from choreo.seams import Delivery
from choreo.terminal import shown
from choreo.tree import Asked, Entry

#: No red: that is kept for dead letters.
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_magenta")
#: So many events are remembered, for those that come after them.
_MEMORY = 20_000
#: When the journal is silent for so long and had nothing of the flow in it, that is said.
_PATIENCE_S = 2.0
_NAME_WIDTH = 42


def watch(
    flow: Annotated[
        str | None,
        typer.Argument(help="Show this flow alone, past and present: its id, or how that ends."),
    ] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Begin with the oldest event in the journal.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show events as they pass, each indented below its cause, until Ctrl-C.

    A line: the time, the end of the flow's id, milliseconds since the flow's first message, the
    event, who published it, and what it answers. A dead letter is red, with its reason. A command
    does not pass: it is named, without a time, above the first event that answers it.
    """
    settings = frame.prepare()
    offset = "first" if from_start or flow else "next"
    lines = Lines(Console(highlight=False, soft_wrap=True), as_json=as_json)
    asyncio.run(_watch(amqp_url(settings), offset, flow, lines))


async def _watch(url: str, offset: str, flow: str | None, lines: Lines) -> None:
    told = Console(stderr=True, highlight=False)

    def in_a_while() -> asyncio.TimerHandle:
        later = "nothing of it in the journal so far"
        return asyncio.get_running_loop().call_later(_PATIENCE_S, told.print, later)

    async with rabbitmq.journal(url, offset=offset) as deliveries:
        told.print(f"watching {f'flow {flow}' if flow else 'all flows'}, Ctrl-C ends", style="dim")
        notice = in_a_while() if flow else None
        async for delivery in deliveries:
            is_shown = lines.take(delivery, flow or "")
            if notice is not None:
                notice.cancel()
                notice = None if is_shown else in_a_while()
    raise CannotRunError("the connection to the broker was lost: start again")


class Lines:
    """Prints a line for each event, and remembers enough to place the next ones."""

    def __init__(self, console: Console, *, as_json: bool) -> None:
        self._console = console
        self._as_json = as_json
        #: Depth and name of each event, by id.
        self._passed: OrderedDict[str, tuple[int, str]] = OrderedDict()
        #: The same of each command that some of them answer.
        self._asked: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._began: OrderedDict[str, float] = OrderedDict()

    def take(self, delivery: Delivery, flow: str) -> bool:
        """Show a delivery, if it is new and of a flow whose id ends so; gives whether it was."""
        try:
            entry = tree.read(delivery, time.time())
        except UndecodableError as error:
            if not flow:
                self._unreadable(delivery, str(error))
            return False
        envelope = entry.envelope
        if not envelope.flow.endswith(flow) or envelope.id in self._passed:
            return False
        began = self._began.get(envelope.flow)
        if began is None:
            began = min(tree.made_at(envelope.flow), entry.at)
            _keep(self._began, envelope.flow, began)
        if entry.asked is not None and entry.asked.id not in self._asked:
            self._ask(entry.asked, envelope.flow)
        depth, cause = self._place(entry.cause, envelope.flow)
        _keep(self._passed, envelope.id, (depth, entry.name))
        if self._as_json:
            self._print(_told(entry, began, delivery.body))
        else:
            self._print(_line(entry, began, depth, cause))
        return True

    def _ask(self, command: Asked, flow: str) -> None:
        """Name a command above the first event that answers it."""
        depth, cause = self._place(command.cause, flow)
        _keep(self._asked, command.id, (depth, command.name))
        if not self._as_json:
            line = Text(f"{'':14}", style="dim")
            line.append(f"{tree.short(flow):8}", style=f"not dim {_colour(flow)}")
            line.append(f"{'':13}{_indented(command.name, depth)}  {'':24}  {cause}")
            self._print(line)

    def _place(self, cause: str | None, flow: str) -> tuple[int, str]:
        """How deep the answer to a message stands in its flow, and what that message is."""
        if cause is None:
            return 0, ""
        known = self._passed.get(cause) or self._asked.get(cause)
        if known is not None:
            depth, name = known
            return depth + 1, f"← {name}"
        # The journal takes events alone, so a command that began the flow is never seen.
        return 1, "" if cause == flow else f"← {tree.short(cause)} (not seen)"

    def _unreadable(self, delivery: Delivery, why: str) -> None:
        where = shown(f"{delivery.exchange} {delivery.routing_key}")
        if self._as_json:
            self._print(json.dumps({"unreadable": why, "where": where}))
        else:
            self._print(Text(f"unreadable, on {where}: {shown(why)}", style="red"))

    def _print(self, what: Text | str) -> None:
        self._console.print(what, markup=False, emoji=False)


def _told(entry: Entry, began: float, body: bytes) -> str:
    """An event as a machine is told of it."""
    try:
        return json.dumps(entry.as_json(began))
    except RecursionError:  # it could be read, and is one level deeper here
        return json.dumps(replace(entry, body=body.decode(errors="replace")).as_json(began))


def _line(entry: Entry, began: float, depth: int, cause: str) -> Text:
    flow = entry.envelope.flow
    at = _local(entry.at)
    line = Text(f"{at:%H:%M:%S}.{at.microsecond // 1000:03}  ", style="dim")
    line.append(f"{tree.short(flow):8}", style=f"not dim {_colour(flow)}")
    line.append(f" {tree.after_ms(entry, began):>7} ms  ")
    line.append(_indented(entry.name, depth), style="not dim")
    line.append(f"  {entry.publisher:24}  {cause}")
    if entry.reason is not None:
        line = Text.assemble(line.plain, f"  {entry.reason}", style="bold red")
    return line


def _local(at: float) -> datetime:
    found = datetime.fromtimestamp(at, UTC)
    try:
        return found.astimezone()
    except (ValueError, OverflowError):  # the year is 0 or 10000 here
        return found


def _indented(name: str, depth: int) -> str:
    return f"{'  ' * max(0, depth - 1) + name:{_NAME_WIDTH}}"


def _colour(flow: str) -> str:
    return _COLOURS[zlib.crc32(flow.encode(errors="replace")) % len(_COLOURS)]


def _keep(memory: OrderedDict[str, Any], key: str, value: object) -> None:
    memory[key] = value
    if len(memory) > _MEMORY:
        memory.popitem(last=False)
