"""`choreo send`: publish any contract from JSON, validated first."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from choreo import contract, discovery
from choreo.cli import frame
from choreo.contract import Command, Message
from choreo.errors import CannotRunError, explain
from choreo.identity import Ids
from choreo.outgoing import first
from choreo.seams import Outgoing, SystemClock
from choreo.settings import Settings

#: How the reasons begin that tell of the message's way and not of the connection.
_UNHEARD = ("no queue hears", "NOT_FOUND")


def send(
    topic: Annotated[
        str, typer.Argument(help="Its topic; '.v2' at the end chooses a version.", metavar="TOPIC")
    ],
    body: Annotated[
        str, typer.Argument(help="The message as JSON; '-' reads stdin.", metavar="JSON")
    ] = "-",
    file: Annotated[Path | None, typer.Option(help="Read the message from this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was sent as JSON.")] = False,
) -> None:
    """Publish a command or an event as the start of a flow, and print the flow's id.

    The message is validated against its contract first, unknown fields included; a command must
    reach its service's queue. What becomes of it shows 'choreo watch'.
    """
    settings = frame.prepare()
    kind = _contract(settings, topic)
    message = _message(settings, kind, _read(body, file))
    clock = SystemClock()
    outgoing = first(message, Ids(clock, random.Random()), clock.now(), "/choreo/send")  # noqa: S311 - an id is no secret
    if refusal := asyncio.run(_publish(settings, outgoing)):
        if not refusal.startswith(_UNHEARD):
            raise CannotRunError(f"not sent: {refusal}")
        frame.refuse(_nobody(settings, kind))
    envelope = outgoing.envelope
    if as_json:
        print(json.dumps({"flow": envelope.flow, "type": envelope.type, "time": envelope.time}))
    else:
        print(envelope.flow)


def _contract(settings: Settings, topic: str) -> type[Message]:
    """The contract of a topic, in its newest version unless one is named."""
    discovery.contracts(settings)
    versions: dict[int, type[Message]] = {}
    for kind in contract.contracts().values():
        address = kind.__address__
        if address.wire_type == topic:
            return kind
        if address.topic == topic:
            versions[address.version] = kind
    if not versions:
        frame.refuse(f"no contract has the topic {topic!r}: {_hint(topic)}")
    return versions[max(versions)]


def _hint(topic: str) -> str:
    names: dict[str, str] = {}
    for kind in contract.contracts().values():
        address = kind.__address__
        # Whoever knows the code types the name of the class.
        names |= {address.topic: address.topic, kind.__name__: address.topic}
        names[address.wire_type] = address.wire_type
    close = dict.fromkeys(names[one] for one in get_close_matches(topic, names, 3))
    return f"did you mean {' or '.join(close)}?" if close else "'choreo map' lists the topics"


def _read(body: str, file: Path | None) -> bytes:
    if file is not None:
        if body != "-":
            raise typer.BadParameter("give the JSON or --file, not both")
        try:
            return file.read_bytes()
        except OSError as error:
            raise CannotRunError(f"cannot read {file}: {error.strerror}") from error
    if body != "-":
        return body.encode()
    if sys.stdin.isatty():
        print("reading the message from the terminal; Ctrl-D ends it", file=sys.stderr)
    return sys.stdin.buffer.read()


def _message(settings: Settings, kind: type[Message], body: bytes) -> Message:
    """The message, judged more strictly than by its reader: a misspelt field is an error here."""
    wire_type = kind.__address__.wire_type
    if len(body) > settings.max_body_bytes:
        limit = settings.max_body_bytes
        frame.refuse(f"not a {wire_type}: {len(body)} bytes are over the limit, {limit}")
    try:
        return kind.model_validate_json(body, extra="forbid")
    except ValidationError as error:
        frame.refuse(f"not a {wire_type}: {explain(error)}")


async def _publish(settings: Settings, outgoing: Outgoing) -> str | None:
    """Publish; gives why it was refused, if it was."""
    async with frame.broker(settings) as broker:
        return (await broker.publish([outgoing])).get(outgoing.envelope.id)


def _nobody(settings: Settings, kind: type[Message]) -> str:
    """Say what to do when a message reached no queue."""
    topic = kind.__address__.topic
    if not issubclass(kind, Command):
        return f"no exchange {kind.__address__.exchange} for {topic} yet: run 'choreo declare'"
    for module, service in discovery.by_module(settings).items():
        if kind in service.routes():
            return f"no queue hears {topic}: start its service: choreo run {module}"
    return f"no queue hears {topic}, and no service of {settings.services!r} handles it"
