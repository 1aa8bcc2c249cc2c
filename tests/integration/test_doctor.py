"""`choreo doctor` finds each fault, made for real, and nothing in a system that is well."""

from __future__ import annotations

import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import pytest
import servers
import sqlalchemy as sa
from cli_project import Project
from stage import until

from choreo.envelope import timestamp
from choreo.identity import Ids
from choreo.rabbitmq.declare import QUEUE_ARGUMENTS
from choreo.settings import Settings
from choreo.store.database import connect
from choreo.store.tables import due, inbox, outbox, runs

# Each look is a process.
pytestmark = [pytest.mark.long_on_postgres, pytest.mark.timeout(900)]

Wrong = set[tuple[str, str]]
IDLE: Wrong = {("queues are declared and consumed", name) for name in ("desk", "shop")}
BINDINGS = "bindings are what the signatures say"
LEFT_OVER = "no queue is left over"
#: What the broker counts is seconds old.
FIGURES_S = 120.0


@pytest.fixture(name="project")
def project_fixture(tmp_path: Path, amqp_url: str, broker: servers.Broker) -> Project:
    """Two services with an agreement."""
    project = Project(
        tmp_path,
        CHOREO_AMQP_URL=amqp_url,
        CHOREO_MANAGEMENT_URL=broker.management_url,
        CHOREO_ATTEMPTS="1",
    )
    project.write("agreed/choreography.json", project.choreo("map", "--json").stdout)
    return project


def report(project: Project, *words: str) -> dict[str, Any]:
    """What it says; its exit code says the same."""
    done = project.choreo("doctor", "--json", *words)
    assert done.returncode in (0, 1), done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == any(one["state"] == "wrong" for one in said["findings"])
    return said


def wrong(project: Project, *words: str) -> Wrong:
    """The checks that found something, and about what."""
    findings = report(project, *words)["findings"]
    return {(one["check"], one["about"]) for one in findings if one["state"] == "wrong"}


@asynccontextmanager
async def up(project: Project) -> AsyncIterator[None]:
    """Both services run."""
    with project.running("up") as running:
        await running.says("consuming", times=2)
        yield


@asynccontextmanager
async def channel_to(url: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    async with await aio_pika.connect(url) as connection:
        yield await connection.channel()


async def test_what_databases_keep(
    project: Project, database_url: str, create_databases: Callable[..., None]
) -> None:
    create_databases("shop", "desk")
    project.env["CHOREO_DATABASE_URL"] = database_url
    async with up(project):
        assert [one for one in report(project)["findings"] if one["state"] != "ok"] == []
        assert " wrong " not in project.choreo("doctor").stdout
        sent = project.choreo("send", "shop.ask_price", json.dumps({"id": "boom"}))
        assert sent.returncode == 0, sent.stderr
        letter = ("no dead letters", "shop")
        await until(lambda: wrong(project) == {letter}, "the letter is found", FIGURES_S)
        table = project.choreo("doctor").stdout
        assert "no price for [boom]" in table
        assert "choreo dead list --service shop" in table

    assert wrong(project) == IDLE | {letter}
    _leave_undone(database_url)
    checks = (
        "outboxes are published", "what is due happens", "no undo waits for a person",
        "no run is stuck in its undo",
    )  # fmt: skip
    assert wrong(project) == IDLE | {letter} | {(check, "desk") for check in checks}
    project.env["CHOREO_DATABASE_URL"] = database_url.replace("{service}", "shop")
    assert wrong(project) == IDLE | {letter, ("databases belong to their services", "desk")}


def _leave_undone(database_url: str) -> None:
    """Put into the desk's database what a process leaves that died an hour ago."""
    then = time.time() - 3600
    past = type("Past", (), {"now": lambda _: then})()
    message_id = Ids(past, random.Random(1)).next()
    row = {
        "handler": "note", "message_id": message_id, "flow": "f", "properties": "{}", "body": b"{}",
    }  # fmt: skip
    step = {
        "message_id": message_id, "handler": "note", "digest": b"", "flow": "f",
        "status": "parked", "undo": "owed", "at": then,
    }  # fmt: skip
    with connect(Settings(database_url=database_url).database_of("desk")).begin() as db:
        db.execute(
            outbox.insert(),
            {"id": message_id, "exchange": "shop", "routing_key": "shop.opened.v1",
             "envelope": "{}", "body": b"{}", "mandatory": False, "owner": "gone",
             "lease_until": then},
        )  # fmt: skip
        db.execute(inbox.insert(), step)
        db.execute(due.insert(), row | {"kind": "retry", "at": then})
        db.execute(due.insert(), row | {"kind": "undo", "handler": "erase", "at": None})
        db.execute(
            runs.insert(),
            {"run": message_id, "conductor": "trip", "flow": "f", "subject": "",
             "status": "undoing", "stage": 1, "start": "", "moved": timestamp(then)},
        )  # fmt: skip
        found = db.execute(sa.select(sa.func.count()).select_from(due)).scalar()
    assert found == 2


async def test_bindings_and_queues(project: Project, amqp_url: str) -> None:
    async with up(project), channel_to(amqp_url) as channel:
        desk = await channel.get_queue("desk")
        assert wrong(project) == set()

        await desk.bind("shop", "shop.closed.v1")
        await desk.bind("amq.topic", "of.somebody.else.v1")
        assert wrong(project) == {(BINDINGS, "desk")}
        shown = report(project, "--prune")["stale"]
        assert shown == [{"queue": "desk", "exchange": "shop", "routing_key": "shop.closed.v1"}]
        shown_to_people = project.choreo("doctor", "--prune")
        assert shown_to_people.returncode == 1
        assert "would delete: binding shop -> shop.closed.v1 -> desk\n" in shown_to_people.stdout
        assert wrong(project) == {(BINDINGS, "desk")}  # showing deletes nothing
        pruned = report(project, "--prune", "--yes")
        assert pruned["deleted"] == shown
        # The stranger's binding, which nobody can prove stale, is left alone.
        [bindings] = [one["what"] for one in pruned["findings"] if one["check"] == BINDINGS]
        assert bindings.endswith("left alone: binding amq.topic -> of.somebody.else.v1 -> desk")
        assert wrong(project) == set()

        await desk.unbind("shop", "shop.price_told.v1")
        assert wrong(project) == {(BINDINGS, "desk")}
        assert project.choreo("declare").returncode == 0
        assert wrong(project) == set()

        spy = await channel.declare_queue("spy", durable=True)
        await spy.bind("shop.commands", "#")
        assert wrong(project) == {("commands reach their owner alone", "spy")}
        await spy.delete()
        assert wrong(project, "--prune") == set()


@pytest.mark.long
async def test_a_queue_of_a_service_that_is_gone(project: Project, amqp_url: str) -> None:
    async with up(project), channel_to(amqp_url) as channel:
        old: Any = await channel.declare_queue("old", durable=True, arguments=QUEUE_ARGUMENTS)
        await old.bind("shop", "shop.price_told.v1")
        # Somebody else's, though it hears the same: choreo did not make it.
        other = await channel.declare_queue("other", durable=True)
        await other.bind("shop", "shop.price_told.v1")
        sent = project.choreo("send", "shop.ask_price", json.dumps({"id": "p-1"}))
        assert sent.returncode == 0, sent.stderr

        def of_old(*words: str) -> tuple[str, list[Any]]:
            said = report(project, "--prune", *words)
            found = [one["what"] for one in said["findings"] if one["check"] == LEFT_OVER]
            return found[0], said["deleted" if words else "stale"]

        def kept(*words: str) -> bool:
            what, stale = of_old(*words)
            return "1 messages are in it" in what and stale == []

        await until(kept, "its message is seen", FIGURES_S)
        assert kept("--yes")
        await old.purge()
        gone = [{"queue": "old", "exchange": "", "routing_key": ""}]
        await until(lambda: of_old()[1] == gone, "it is seen to be empty", FIGURES_S)
        # What the figures of some seconds ago do not show is seen before it is deleted.
        await channel.default_exchange.publish(aio_pika.Message(b"{}"), "old")
        assert of_old("--yes")[1] == []
        await old.purge()
        await until(lambda: of_old("--yes")[1] == gone, "it is deleted", FIGURES_S)
        assert wrong(project) == set()
        assert (await other.get(fail=True)).body == b'{"id":"p-1"}'


async def test_queues_and_journal_in_another_form(project: Project, amqp_url: str) -> None:
    nothing = wrong(project)
    assert nothing >= IDLE | {("journal keeps what is set", "journal"), (BINDINGS, "shop")}
    assert ("exchanges are declared", "shop") in nothing
    assert project.choreo("declare").returncode == 0
    assert wrong(project) == IDLE
    async with channel_to(amqp_url) as channel:
        await channel.queue_delete("desk")
        unheard = ("every event can be heard", "shop.price_told.v1")
        assert wrong(project) == IDLE | {unheard, (BINDINGS, "desk")}
        forms: tuple[Any, ...] = ({}, {"x-queue-type": "quorum"})
        for form in forms:  # of another type; without its limit
            desk = await channel.declare_queue("desk", durable=True, arguments=form)
            await desk.bind("shop", "shop.price_told.v1")
            assert wrong(project) == IDLE
            assert "inequivalent arg 'x-" in project.choreo("doctor").stdout
            await channel.queue_delete("desk")
    assert project.choreo("declare").returncode == 0
    project.env["CHOREO_JOURNAL_MAX_AGE"] = "1D"
    assert wrong(project) == IDLE | {("journal keeps what is set", "journal")}


def test_an_agreement_that_is_stale_proves_nothing(project: Project) -> None:
    assert project.choreo("declare").returncode == 0
    drawn = json.loads((project.folder / "agreed/choreography.json").read_text())
    drawn["contracts"]["shop.price_told.v1"]["heard_by"] = ["desk", "cellar"]
    project.write("agreed/choreography.json", json.dumps(drawn))
    unheard = ("every event can be heard", "shop.price_told.v1")
    assert wrong(project) == IDLE | {unheard, ("agreement is what the signatures say", "")}
    refused = project.choreo("doctor", "--prune", "--yes")
    assert refused.returncode == 2
    assert "nothing is proven stale" in refused.stderr


def states(project: Project) -> dict[str, str]:
    return {one["check"]: one["state"] for one in report(project)["findings"]}


def test_without_the_management_api(project: Project) -> None:
    assert project.choreo("declare").returncode == 0
    project.env["CHOREO_MANAGEMENT_URL"] = "http://127.0.0.1:1"
    assert wrong(project) == IDLE  # by AMQP alone
    found = states(project)
    assert {check for check, state in found.items() if state == "not checked"} >= {
        BINDINGS, LEFT_OVER, "broker has no alarm", "commands reach their owner alone",
    }  # fmt: skip
    assert "rabbitmq-plugins enable rabbitmq_management" in project.choreo("doctor").stdout
    refused = project.choreo("doctor", "--prune")
    assert refused.returncode == 2
    assert refused.stderr.startswith("choreo: --prune needs the management API: http://127.0.0.1:1")


def test_no_broker(project: Project) -> None:
    project.env["CHOREO_AMQP_URL"] = "amqp://choreo:secret@127.0.0.1:1/"
    done = project.choreo("doctor")
    assert done.returncode == 1
    assert "no RabbitMQ at amqp://choreo@127.0.0.1:1/" in done.stdout
    assert "secret" not in done.stdout
    assert wrong(project) == {("broker answers", "")}
    del project.env["CHOREO_AMQP_URL"]
    assert wrong(project) == {("broker answers", "")}


def test_it_cannot_run_without_a_project(project: Project) -> None:
    project.env["CHOREO_SERVICES"] = "nowhere"
    done = project.choreo("doctor")
    assert done.returncode == 2
    assert "no package 'nowhere' here" in done.stderr
    assert project.choreo("doctor", "--yes").returncode == 2
