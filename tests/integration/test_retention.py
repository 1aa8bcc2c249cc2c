"""What is old is forgotten, flow by flow, while the service goes on; what is not over is kept."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from stage import Stage, until
from theatre import Begun, Booked, Charge, Charged, Held, Over, Theatre, TripDied

from choreo.errors import CannotRunError
from choreo.settings import load

#: Long enough for what a test does in between, short enough to wait for.
RETENTION_S = 1.5


class Playing:
    """A theatre whose memory is short."""

    def __init__(self, theatre: Theatre, stage: Stage) -> None:
        self.theatre = theatre
        self.stage = stage

    def flows(self, table: str = "inbox") -> set[str]:
        return {row["flow"] for row in self.stage.rows(table)}

    def last(self) -> float:
        return float(max(row["at"] for row in self.stage.rows("inbox")))

    async def silence(self, for_s: float) -> None:
        last = self.last()
        await until(lambda: time.time() > last + for_s, "some time passes")

    async def heard_after(self, last: float) -> None:
        await until(lambda: self.last() > last, "a message is handled")

    async def forgotten(self, *flows: str) -> None:
        await until(lambda: not self.flows() & set(flows), f"{flows} are forgotten")


@pytest.fixture(name="play")
def play_fixture(
    amqp_url: str, database_url: str, create_databases: Callable[..., None], tmp_path: Path
) -> Callable[..., Any]:
    create_databases("theatre")

    @asynccontextmanager
    async def play(**given: Any) -> AsyncIterator[Playing]:
        theatre = Theatre()
        settings = {
            "retention_days": RETENTION_S / 86400, "journal_max_age": "1s", "prune_every_s": 0.05,
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
        await until(lambda: len(stage.events(Held)) == 2, "both are held")
        await stage.publish(TripDied(trip="u"), flow=undone)
        await until(lambda: undone in playing.flows("tombstones"), "a tombstone")
        await playing.forgotten(held, undone)
        assert playing.flows("tombstones") == set()


async def test_a_flow_in_which_something_happens_is_kept_whole(play: Callable[..., Any]) -> None:
    async with play() as playing:
        stage = playing.stage
        other = await stage.publish(Booked(trip="o", seat="9"))
        flow = await stage.publish(Booked(trip="t", seat="0"))
        await until(lambda: playing.flows() == {other, flow}, "both are handled")
        for seat in range(1, 6):
            await playing.silence(RETENTION_S * 0.6)
            before = playing.last()
            await stage.publish(Booked(trip="t", seat=str(seat)), flow=flow)
            await playing.heard_after(before)
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
        await until(lambda: playing.flows() == {parked, calling, gone}, "all are begun")
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
        for number in range(1200):
            await stage.publish(Booked(trip="t", seat=str(number)))
        await until(lambda: len(stage.events(Held)) == 1200, "all are held", 30)
        await until(lambda: not stage.rows("inbox"), "all are forgotten", 30)
        await stage.publish(Begun(trip="t"))
        await stage.publish(Over(trip="t"))
        await stage.settled()


def test_the_memory_is_longer_than_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHOREO_RETENTION_DAYS", "7")
    with pytest.raises(CannotRunError, match="make CHOREO_RETENTION_DAYS longer"):
        load()
