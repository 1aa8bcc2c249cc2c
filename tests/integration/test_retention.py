"""What is old is forgotten, flow by flow, while the service goes on; what is not over is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from stage import Stage, until
from theatre import Begun, Booked, Charge, Charged, Greeted, Over, Theatre, TripDied

from choreo.errors import CannotRunError
from choreo.settings import load
from choreo.store.tables import inbox

#: Longer than any test takes: what is to be old is made so.
RETENTION_S = 3600.0


class Playing:
    """A theatre in which time passes when a test says so."""

    def __init__(self, theatre: Theatre, stage: Stage) -> None:
        self.theatre = theatre
        self.stage = stage

    def flows(self, table: str = "inbox") -> set[str]:
        return {row["flow"] for row in self.stage.rows(table)}

    def age(self, *flows: str, by_s: float = RETENTION_S) -> None:
        """Whatever happened in these flows happened so much earlier."""
        aged = inbox.update().where(inbox.c.flow.in_(flows)).values(at=inbox.c.at - by_s)
        self.stage.execute(lambda db: db.execute(aged))

    async def forgotten(self, *flows: str) -> None:
        """Let the time of these flows be over, and wait until nothing is known of them."""
        self.age(*flows)
        await until(lambda: not self.flows() & set(flows), "they are forgotten")

    async def greeted(self, many: int) -> None:
        """Wait until so many seats are held and greeted, after which nothing more happens."""
        await until(lambda: len(self.stage.events(Greeted)) == many, "all are greeted")


@pytest.fixture(name="play")
def play_fixture(
    amqp_url: str, database_url: str, create_databases: Callable[..., None], tmp_path: Path
) -> Callable[..., Any]:
    create_databases("theatre")

    @asynccontextmanager
    async def play(**given: Any) -> AsyncIterator[Playing]:
        theatre = Theatre()
        settings = {
            "retention_days": RETENTION_S / 86400, "journal_max_age": "1m", "prune_every_s": 0.05,
        }  # fmt: skip
        stage = Stage(theatre.service, amqp_url, database_url, tmp_path, **settings, **given)
        async with stage:
            yield Playing(theatre, stage)

    return play


async def test_what_is_over_is_forgotten_whole(play: Callable[..., Any]) -> None:
    async with play() as playing:
        stage = playing.stage
        held = await stage.publish(Booked(trip="t", seat="1"))
        undone = await stage.publish(Booked(trip="u", seat="2"))
        await playing.greeted(2)
        await stage.publish(TripDied(trip="u"), flow=undone)
        await until(lambda: undone in playing.flows("tombstones"), "a tombstone")
        await playing.forgotten(held, undone)
        assert playing.flows("tombstones") == set()


async def test_a_flow_in_which_something_happens_is_kept_whole(play: Callable[..., Any]) -> None:
    async with play() as playing:
        stage = playing.stage
        other = await stage.publish(Booked(trip="o", seat="9"))
        flow = await stage.publish(Booked(trip="t", seat="0"))
        await playing.greeted(2)
        for seat in range(1, 6):
            playing.age(flow, by_s=RETENTION_S * 0.6)
            await stage.publish(Booked(trip="t", seat=str(seat)), flow=flow)
            await playing.greeted(2 + seat)
        await playing.forgotten(other)
        steps = [row for row in stage.rows("inbox") if row["flow"] == flow]
        assert len([row for row in steps if row["handler"] == "hold"]) == 6


async def test_what_may_still_happen_is_kept(play: Callable[..., Any]) -> None:
    async with play(attempts=1) as playing:
        stage, theatre = playing.stage, playing.theatre
        theatre.failures["bad"] = [ValueError("no")] * 5
        parked = await stage.publish(Booked(trip="t", seat="bad"))
        theatre.outside.gate.clear()
        calling = await stage.publish(Charge(trip="t", seat="1"))
        gone = await stage.publish(Booked(trip="t", seat="2"))
        await playing.greeted(1)
        await until(lambda: playing.flows() == {parked, calling, gone}, "all are begun")
        playing.age(parked, calling)
        await playing.forgotten(gone)
        assert playing.flows() == {parked, calling}
        theatre.outside.gate.set()
        await until(lambda: stage.events(Charged), "the call comes to its end")
        await playing.forgotten(calling)
        assert playing.flows() == {parked}


@pytest.mark.long_on_postgres
async def test_many_are_forgotten_while_it_works(play: Callable[..., Any]) -> None:
    async with play() as playing:
        stage = playing.stage
        flows = [await stage.publish(Booked(trip="t", seat=str(one))) for one in range(1200)]
        await playing.greeted(1200)
        await playing.forgotten(*flows)
        await stage.publish(Begun(trip="t"))
        await stage.publish(Over(trip="t"))
        await stage.settled()


def test_the_memory_is_longer_than_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHOREO_RETENTION_DAYS", "7")
    with pytest.raises(CannotRunError, match="make CHOREO_RETENTION_DAYS longer"):
        load()
