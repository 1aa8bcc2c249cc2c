"""An event that nobody can hear waits in the outbox, with an alarm, until somebody can."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from stage import Stage, until
from theatre import Booked, Held, Theatre

from choreo.audience import Audience
from choreo.errors import CannotRunError

UNHEARD = "nobody can hear this event"


@pytest.fixture(name="unseen")
def unseen_fixture(monkeypatch: pytest.MonkeyPatch) -> asyncio.Lock:
    """Whoever holds it is not looked at, to see which queues are there."""
    unseen = asyncio.Lock()
    check = Audience.check

    async def checked(audience: Audience) -> None:
        async with unseen:
            await check(audience)

    monkeypatch.setattr(Audience, "check", checked)
    return unseen


@pytest.fixture(name="play")
def play_fixture(
    amqp_url: str,
    database_url: str,
    create_databases: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:
    """A theatre whose event `Held` is heard by these queues, as its agreement says."""
    create_databases("theatre")
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / f"agreed_{tmp_path.name.replace('-', '_')}"

    @asynccontextmanager
    async def play(*queues: str, text: str | None = None) -> AsyncIterator[Stage]:
        contract = {"kind": "event", "heard_by": queues}
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "choreography.json").write_text(
            text or json.dumps({"contracts": {Held.__address__.wire_type: contract}})
        )
        stage = Stage(
            Theatre().service, amqp_url, database_url, tmp_path, contracts=package.name, grace_s=60
        )
        async with stage:
            yield stage

    return play


@asynccontextmanager
async def bound(
    stage: Stage, queue: str, unseen: asyncio.Lock
) -> AsyncIterator[aio_pika.abc.AbstractQueue]:
    """A queue that hears `Held` as soon as it is seen."""
    async with await aio_pika.connect(stage.url) as connection:
        channel = await connection.channel()
        async with unseen:
            found = await channel.declare_queue(queue, durable=True)
            await found.bind("stage", Held.__address__.wire_type)
        yield found


def said(stage: Stage, event: str) -> list[Any]:
    return [line for line in stage.logs if line["event"].startswith(event)]


async def test_it_waits_until_its_queue_appears(
    play: Callable[..., Any], unseen: asyncio.Lock
) -> None:
    async with play("box", "balcony") as stage:
        [alarm] = said(stage, UNHEARD)
        assert alarm["log_level"] == "error"
        assert alarm["missing"] == ["balcony", "box"]
        first = await stage.publish(Booked(trip="t", seat="1"))
        await until(lambda: stage.rows("outbox"), "it is in the outbox")
        # Stopping does not wait for it, and starting does not lose it.
        await stage.stop()
        assert said(stage, "stopped")
        assert said(stage, "not everything was finished") == []
        await stage.start()
        second = await stage.publish(Booked(trip="t", seat="2"))
        await until(lambda: len(stage.rows("outbox")) == 2, "both are in the outbox")
        assert stage.events() == []
        async with bound(stage, "box", unseen) as box:
            await until(lambda: len(stage.events(Held)) == 2, "both are published")
            await stage.settled()
            both = [await box.get(timeout=60) for _ in range(2)]
            assert [one.headers["cloudEvents:causationid"] for one in both] == [first, second]
            assert [line["queues"] for line in said(stage, "subscribers are there")] == [["box"]]


async def test_where_some_are_missing_it_goes_out(play: Callable[..., Any]) -> None:
    async with play("box", "theatre") as stage:
        [warning] = said(stage, "a subscriber of this event is missing")
        assert warning["missing"] == ["box"]
        await stage.publish(Booked(trip="t", seat="1"))
        await until(lambda: stage.events(Held), "it is published")
        assert said(stage, UNHEARD) == []


@pytest.mark.long_on_postgres
async def test_a_queue_that_vanishes_is_noticed(
    play: Callable[..., Any], unseen: asyncio.Lock
) -> None:
    async with play("box", "theatre") as stage:
        async with bound(stage, "box", unseen):
            await until(lambda: said(stage, "subscribers are there again"), "box is there")
        async with await aio_pika.connect(stage.url) as connection:
            await (await connection.channel()).queue_delete("box")
        found = "a subscriber of this event is missing"
        await until(lambda: len(said(stage, found)) == 2, "it is missed")


async def test_a_broken_agreement_is_a_clear_error(play: Callable[..., Any]) -> None:
    with pytest.raises(CannotRunError, match=r"choreography.json is no agreement"):
        async with play(text="[]"):
            pass
