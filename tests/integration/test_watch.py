"""`choreo watch`: what passes, what has passed, and how it ends."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cli_project import Project

from choreo import log, rabbitmq
from choreo.envelope import Envelope
from choreo.rabbitmq import RabbitMQ
from choreo.seams import Outgoing
from choreo.settings import Settings
from choreo.topology import Topology

#: Two flows that differ in their last eight characters.
ONE, TWO = "01a1f81d-ea7e-7000-ba58-000011112222", "01a1f81d-ea7e-7000-ba58-333344445555"
# Made at 2026-11-20T08:41:12.574Z, as their ids say.
_LETTER = {"service": "payments", "handler": "capture", "reason": "no gateway"}
_ATTENTIVE = "Ctrl-C ends"


@pytest.fixture
def project(tmp_path: Path, amqp_url: str) -> Project:
    return Project(tmp_path, CHOREO_AMQP_URL=amqp_url, TZ="UTC")


@asynccontextmanager
async def publisher(url: str) -> AsyncIterator[RabbitMQ]:
    """A broker with a journal, to publish to."""
    settings = Settings(amqp_url=url)
    async with rabbitmq.connected(url, settings, "test", log.logger("test")) as broker:
        await broker.declare(Topology(("choreo", "orders"), (), (), ()))
        yield broker


def event(  # noqa: PLR0917 - read as a line
    identifier: str,
    cause: str | None,
    wire_type: str,
    source: str,
    ms: int = 600,
    flow: str = ONE,
    body: object = None,
    after: tuple[str | None, str | None] = (None, None),
) -> Outgoing:
    time = f"2026-11-20T08:41:12.{ms}Z"
    command, last_event = after
    envelope = Envelope(
        identifier, wire_type, source, time, flow, causation=cause, subject="o-1",
        command=command, last_event=last_event,
    )  # fmt: skip
    exchange = wire_type.partition(".")[0]
    return Outgoing(exchange, wire_type, envelope, json.dumps(body).encode())


def lines(said: str) -> list[str]:
    """The events that were shown, without the hints."""
    return [line.rstrip() for line in said.splitlines() if " ms " in line]


async def test_shows_what_passes_below_its_cause(project: Project, amqp_url: str) -> None:
    async with publisher(amqp_url) as broker:
        await broker.publish([event("0", ONE, "orders.before.v1", "/orders/place")])
        with project.running("watch") as watch:
            await watch.says(_ATTENTIVE)
            await broker.publish(
                [
                    event("a", ONE, "orders.placed.v1", "/orders/place"),
                    event("b", "a", "orders.held.v1", "/inventory/reserve", 700),
                    event("z", TWO, "orders.placed.v1", "/orders/place", 800, TWO),
                    event("c", "b", "orders.paid.v2", "/payments/capture", 900),
                    event("d", "b", "choreo.dead_lettered.v1", "/payments/dead", 950, ONE, _LETTER),
                ]
            )
            # The journal may hold an event twice.
            await broker.publish([event("a", ONE, "orders.placed.v1", "/orders/place")])
            await broker.publish([event("e", "unknown1", "orders.odd.v1", "/orders/place", 999)])
            await watch.says("orders.odd")
            assert watch.end(signal.SIGINT) == 130
            said = watch.said
    name = "{:42}  {:24}  "
    assert lines(said) == [
        line.rstrip()
        for line in (
            "08:41:12.600  11112222      26 ms  " + name.format("orders.placed", "orders.place"),
            "08:41:12.700  11112222     126 ms  "
            + name.format("  orders.held", "inventory.reserve")
            + "← orders.placed",
            "08:41:12.800  44445555     226 ms  " + name.format("orders.placed", "orders.place"),
            "08:41:12.900  11112222     326 ms  "
            + name.format("    orders.paid.v2", "payments.capture")
            + "← orders.held",
            "08:41:12.950  11112222     376 ms  "
            + name.format("    choreo.dead_lettered", "payments.dead")
            + "← orders.held  capture: no gateway",
            "08:41:12.999  11112222     425 ms  "
            + name.format("orders.odd", "orders.place")
            + "← unknown1 (not seen)",
        )
    ]
    assert "Traceback" not in said


async def test_names_a_command_once_above_its_answers(project: Project, amqp_url: str) -> None:
    capture, book = ("payments.capture.v1", "a"), ("orders.book.v2", "unknown1")
    passing = [
        event("a", ONE, "orders.opened.v1", "/orders/open"),
        event("b", "ask-1", "orders.paid.v1", "/payments/charge", 700, after=capture),
        event("c", "b", "orders.praised.v1", "/crm/note", 800),
        event("d", "ask-1", "orders.noted.v1", "/payments/note", 900, after=capture),
        event("e", "ask-2", "orders.booked.v1", "/shipping/book", 999, after=book),
    ]
    async with publisher(amqp_url) as broker:
        await broker.publish(passing)
        with project.running("watch", "11112222") as watch:
            await watch.says("orders.booked")
            said = watch.said
        with project.running("watch", "11112222", "--json") as watch:
            await watch.says('"id": "e"')
            told = [json.loads(line) for line in watch.said.splitlines() if line[0] == "{"]
    name = "{:42}  {:24}  "
    assert [line.rstrip() for line in said.splitlines() if "11112222  " in line] == [
        line.rstrip()
        for line in (
            "08:41:12.600  11112222      26 ms  " + name.format("orders.opened", "orders.open"),
            f"{'':14}11112222{'':13}" + name.format("  payments.capture", "") + "← orders.opened",
            "08:41:12.700  11112222     126 ms  "
            + name.format("    orders.paid", "payments.charge")
            + "← payments.capture",
            "08:41:12.800  11112222     226 ms  "
            + name.format("      orders.praised", "crm.note")
            + "← orders.paid",
            "08:41:12.900  11112222     326 ms  "
            + name.format("    orders.noted", "payments.note")
            + "← payments.capture",
            f"{'':14}11112222{'':13}" + name.format("orders.book.v2", "") + "← unknown1 (not seen)",
            "08:41:12.999  11112222     425 ms  "
            + name.format("  orders.booked", "shipping.book")
            + "← orders.book.v2",
        )
    ]
    assert [one["id"] for one in told] == ["a", "b", "c", "d", "e"]
    assert [(one.get("command"), one.get("last_event")) for one in told] == [
        (None, None), capture, (None, None), capture, book,
    ]  # fmt: skip


async def test_shows_the_past_of_a_flow_and_goes_on(project: Project, amqp_url: str) -> None:
    async with publisher(amqp_url) as broker:
        await broker.publish(
            [
                event("a", ONE, "orders.placed.v1", "/orders/place"),
                event("z", TWO, "orders.placed.v1", "/orders/place", 700, TWO),
            ]
        )
        with project.running("watch", "11112222", "--json") as watch:
            await watch.says('"id": "a"')
            await broker.publish(
                [
                    event("y", "z", "orders.held.v1", "/inventory/reserve", 700, TWO),
                    event("b", "a", "orders.held.v1", "/inventory/reserve", 700, body={"n": 1}),
                ]
            )
            await watch.says('"id": "b"')
            watch.end(signal.SIGINT)
            told = [json.loads(line) for line in watch.said.splitlines() if line[0] == "{"]
    assert [one["id"] for one in told] == ["a", "b"]
    assert told[1] == {
        "flow": ONE,
        "id": "b",
        "causation": "a",
        "type": "orders.held.v1",
        "source": "/inventory/reserve",
        "subject": "o-1",
        "time": "2026-11-20T08:41:12.700Z",
        "after_ms": 126,
        "body": {"n": 1},
    }


async def test_begins_with_the_oldest_when_asked(project: Project, amqp_url: str) -> None:
    async with publisher(amqp_url) as broker:
        await broker.publish(
            [
                event("a", ONE, "orders.placed.v1", "/orders/place"),
                event("z", TWO, "orders.placed.v1", "/orders/place", 700, TWO),
            ]
        )
        with project.running("watch", "--from-start") as watch:
            await watch.says(" ms ", times=2)


async def test_says_so_when_nothing_of_a_flow_is_there(project: Project, amqp_url: str) -> None:
    async with publisher(amqp_url) as broker:
        await broker.publish([event("a", ONE, "orders.placed.v1", "/orders/place")])
        with project.running("watch", "nonsense") as watch:
            await watch.says("nothing of it in the journal so far")
            assert lines(watch.said) == []


async def test_what_is_no_message_is_shown_as_such(project: Project, amqp_url: str) -> None:
    bad = event("a", ONE, "orders.placed.v1", "/orders/place")
    torn = Envelope("t", "orders.torn.v1", "/x/y", "yesterday", "t")
    async with publisher(amqp_url) as broker:
        with project.running("watch") as watch:
            await watch.says(_ATTENTIVE)
            await broker.publish([Outgoing("orders", "orders.torn.v1", torn, b"{}"), bad])
            await watch.says(" ms ")
            said = watch.said
    assert "unreadable, on orders orders.torn.v1: time 'yesterday' is not RFC 3339" in said


async def test_ends_when_the_reader_has_gone(project: Project, amqp_url: str) -> None:
    async with publisher(amqp_url) as broker:
        await broker.publish([event("a", ONE, "orders.placed.v1", "/orders/place")])
        with project.piped("watch", "--from-start", "--json") as watch:
            assert watch.stdout is not None
            while not watch.stdout.readline().startswith("{"):
                pass
            watch.stdout.close()
            await broker.publish([event("b", "a", "orders.placed.v1", "/orders/place")])
            assert watch.wait(90) == 128 + signal.SIGPIPE


def test_says_what_is_missing(project: Project) -> None:
    done = project.choreo("watch")
    assert done.returncode == 2
    assert done.stderr == (
        "choreo: the broker has no journal yet: run 'choreo declare', or start a service\n"
    )
    project.env["CHOREO_AMQP_URL"] = "amqp://127.0.0.1:1/"
    done = project.choreo("watch")
    assert done.returncode == 2
    assert done.stderr.startswith("choreo: no RabbitMQ at amqp://127.0.0.1:1/")
