"""What a rehearsal is made of, each by itself: its loop, its decisions."""

from __future__ import annotations

import asyncio

import pytest
import rehearsed

from choreo.rehearse.loop import Actor, KilledError, Loop
from choreo.rehearse.schedule import Decision, Schedule
from choreo.rehearse.testing import Rehearse, rehearsal  # noqa: F401 - a fixture

# Its parts.


def test_time_jumps_to_the_next_timer_and_order_is_chosen() -> None:
    chosen: list[int] = []
    loop = Loop(lambda many: chosen.append(many) or many - 1, pytest.fail, rehearsed.unexpected)  # type: ignore[func-returns-value]
    said: list[tuple[str, float]] = []

    async def work(name: str, after: float) -> None:
        await asyncio.sleep(after)
        said.append((name, loop.time()))

    with loop.running():
        for name, after in (("a", 3600), ("b", 1), ("c", 3600)):
            loop.spawn(Actor(name), work(name, after))
        loop.drain()
        while loop.advance():
            loop.drain()
    assert said == [("b", 1), ("a", 3600), ("c", 3600)]
    assert chosen[:2] == [3, 2]


def test_who_is_killed_does_nothing_more_not_even_clean_up() -> None:
    loop = Loop(lambda _: 0, pytest.fail, rehearsed.unexpected)
    one, said = Actor("one"), list[str]()

    async def waits() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            said.append("cleaned up")

    async def dies() -> None:
        one.is_alive = False
        raise KilledError

    with loop.running():
        loop.spawn(one, waits())
        loop.spawn(one, dies())
        loop.drain()
        assert not loop.advance()
        assert said == []
    one.close()


def test_given_decisions_are_the_only_ones() -> None:
    schedule = Schedule(1, [Decision("crash", "a at acked", 2, 3)])
    assert [schedule.decide("crash", "a at acked", 1.0, 5) for _ in range(3)] == [0, 3, 0]
    assert schedule.taken == [Decision("crash", "a at acked", 2, 3)]
    schedule.is_calm = True
    assert schedule.decide("crash", "a at acked", 1.0) == 0
