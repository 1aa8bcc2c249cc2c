"""A new service takes the events of the past in before what comes, missing and doubling none."""

from __future__ import annotations

import asyncio
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import servers
import sqlalchemy as sa
from cli_project import Running
from ledger import (
    DAY_S,
    Ledger,
    desk_fixture,  # noqa: F401 - a fixture
    ledger_fixture,  # noqa: F401 - a fixture
    named,
    prepared,
)
from stage import until

pytestmark = [pytest.mark.long_on_postgres, pytest.mark.timeout(900)]

FROM_START = ("run", "ledger", "--from-start")


async def test_catches_up_while_live_ones_come(ledger: Ledger) -> None:
    past = named("past", 3000)
    live: list[str] = []
    await ledger.tell(*past)
    await ledger.tell(*named("unheard", 100), kind="shop_opened")
    caught_up = asyncio.Event()

    async def go_on() -> None:
        while not caught_up.is_set() or len(live) < 100:
            live.append(f"live-{len(live)}")
            await ledger.tell(live[-1])
            await asyncio.sleep(0.01)

    telling = asyncio.create_task(go_on())
    with ledger.project.running(*FROM_START) as service:
        await service.says("caught up", within_s=120)
        caught_up.set()
        await telling
        await ledger.handled([*past, *live])
        assert ledger.entries()[: len(past)] == past
        assert "not the first start" not in service.said
        assert service.end(signal.SIGTERM) == 0


async def test_goes_on_where_it_was_killed(ledger: Ledger) -> None:
    past = named("past", 3000)
    await ledger.tell(*past)
    with ledger.held(), ledger.project.running(*FROM_START) as service:
        await ledger.is_in_the_middle()
        service.end(signal.SIGKILL)
    assert len(ledger.entries()) < len(past)
    await ledger.tell("meanwhile")
    with ledger.project.running(*FROM_START) as service:
        await service.says("caught up", within_s=120)
        await ledger.tell("later")
        await ledger.handled([*past, "meanwhile", "later"])
        assert "not the first start" in service.said


async def test_says_so_when_it_is_stopped_in_between(desk: Ledger) -> None:
    past = named("past", 3000)
    await desk.tell(*past)
    with desk.project.running(*FROM_START) as service:
        with desk.held():
            await desk.is_in_the_middle()
            service.process.send_signal(signal.SIGTERM)
            await service.says("stopped before it had caught up")
        assert service.process.wait(90) == 0
    assert len(desk.entries()) < len(past)
    with desk.project.running(*FROM_START) as service:
        await desk.handled(past)


async def test_goes_on_when_the_broker_is_back(
    broker_control: servers.Broker, tmp_path: Path
) -> None:
    past = named("past", 3000)
    async with prepared(broker_control.url, f"sqlite:///{tmp_path}/x.db", tmp_path) as ledger:
        await ledger.tell(*past)
        with ledger.project.running(*FROM_START) as service:
            with ledger.held():
                await ledger.is_in_the_middle()
                await broker_control.kill()
                await broker_control.start()
            await service.says("caught up", within_s=120)
            assert "cannot catch up, trying again" in service.said
            await ledger.tell("later")
            await ledger.handled([*past, "later"])


async def test_a_message_that_kills_it_is_parked_alone(ledger: Ledger) -> None:
    past = named("past", 40)
    await ledger.tell(*past[:20], "deadly", *past[20:])
    for _ in range(5):
        with ledger.project.running(*FROM_START) as service:
            await until(partial(has_come_to_something, service), "it died, or caught up", 60)
            if service.process.poll() is None:
                break
    await ledger.handled(past)
    assert ledger.letters() == 1


def has_come_to_something(service: Running) -> bool:
    return service.process.poll() is not None or "caught up" in service.said


async def test_a_first_start_takes_in_what_is_old_and_another_leaves_it_out(desk: Ledger) -> None:
    await desk.tell("old", at=time.time() - 40 * DAY_S)
    await desk.tell("young")
    with desk.project.running(*FROM_START) as service:
        await desk.handled(["old", "young"])
        await service.says("caught up", within_s=120)
    await desk.tell("older", at=time.time() - 40 * DAY_S)
    # As if nothing had been handled from the journal, but otherwise.
    with desk._engine.begin() as db:
        db.execute(sa.text("DELETE FROM choreo_catch_up"))
    with desk.project.running(*FROM_START) as service:
        await service.says("may have forgotten were left out")
