"""What has arrived at a service: when all that waited is heard, and in what order it is taken."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest

from choreo import Event, Service, plan
from choreo import log as logs
from choreo.calls import Calls
from choreo.intake import LONGEST_BATCH_S, SILENCE_S, Intake
from choreo.relay import Relay
from choreo.seams import Broker, Delivery, SystemClock
from choreo.settings import Settings
from choreo.store.memory import Kind
from choreo.work import Due, Unit

service = Service("listener")


class Asked(Event, topic="intake.asked"):
    pass


class Noticed(Event, topic="intake.noticed"):
    pass


@service.on(final="it is only heard")
def notice(noticed: Noticed) -> None: ...


@service.deadline(Asked, within=timedelta(seconds=1), until=Noticed)
def give_up(asked: Asked) -> None: ...


def intake(**given: Any) -> Intake:
    settings, broker = Settings(**given), cast("Broker", None)
    calls, relay = Calls(service, settings), Relay(broker, logs.logger("test"))
    return Intake(plan.make(service), settings, calls, relay, SystemClock())


def is_behind(heard: Intake) -> bool:
    return heard.is_behind


def delivery(message_id: str) -> Delivery:
    return Delivery(
        body=b"{}",
        message_id=message_id,
        wire_type=Noticed.__address__.wire_type,
        correlation_id=None,
        app_id=None,
        headers={},
        properties={},
        exchange="intake",
        routing_key=Noticed.__address__.wire_type,
        redelivered=False,
        tag=1,
    )


Later = Callable[[float], None]


@pytest.fixture
async def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Lets so many seconds of the loop's time pass; without it none do."""
    loop = asyncio.get_running_loop()
    now = loop.time()

    def later(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(loop, "time", lambda: now)
    return later


async def test_it_is_behind_until_messages_arrive_at_all(later: Later) -> None:
    heard = intake()
    later(100)
    assert is_behind(heard)
    heard.hear(0)
    assert not is_behind(heard)
    heard.hear(None)
    later(100)
    assert is_behind(heard)


async def test_it_is_behind_until_all_that_waited_is_taken(later: Later) -> None:
    heard = intake(batch=1)
    heard.hear(2)
    for number in range(3):
        heard.receive(delivery(f"m-{number}"))
    heard.gather(())
    assert is_behind(heard)
    heard.gather(())
    assert not is_behind(heard)
    heard.receive(delivery("another"))
    assert not is_behind(heard)


async def test_what_others_took_is_waited_for_until_all_is_silent(later: Later) -> None:
    heard = intake()
    heard.hear(5000)
    later(SILENCE_S * 0.9)
    assert is_behind(heard)
    heard.receive(delivery("m-1"))
    later(SILENCE_S * 0.9)
    assert is_behind(heard)  # the silence is counted from the last that was heard
    heard.gather(())
    assert is_behind(heard)
    later(SILENCE_S * 0.2)
    assert not is_behind(heard)


async def test_the_silence_before_it_heard_anything_does_not_count(later: Later) -> None:
    heard = intake()
    heard.rest()
    until = asyncio.get_running_loop().time() + SILENCE_S
    later(SILENCE_S)
    heard.hear(5000)  # just before the time of a wait is up
    assert await heard.wait(until)
    assert is_behind(heard)
    later(SILENCE_S)
    assert not is_behind(heard)


def due(kind: Kind) -> Due:
    return Due({"kind": kind.value})


async def test_deadlines_come_last() -> None:
    heard = intake()
    heard.receive(delivery("m-1"))
    late, call, undo = due(Kind.DEADLINE), due(Kind.CALL), due(Kind.UNDO)
    first, second, *arrived, last = heard.gather([late, call, undo]).items
    assert (first, second, last) == (call, undo, late)
    assert [one.route.key for one in arrived if isinstance(one, Unit)] == [
        "notice", "give_up.until",
    ]  # fmt: skip


async def test_a_deadline_waits_for_what_was_in_hand_when_its_time_was_up() -> None:
    heard = intake(batch=1)
    heard.hear(0)
    assert heard.heard_until == math.inf
    heard.receive(delivery("m-1"))
    heard.receive(delivery("m-2"))
    heard.note(100.0)
    heard.receive(delivery("m-3"))  # it keeps coming
    heard.gather(())
    assert heard.heard_until == -math.inf
    heard.note(200.0)  # nobody looks at this before m-2 is taken
    heard.gather(())
    assert heard.heard_until == 100.0
    heard.note(300.0)
    assert heard.heard_until == -math.inf
    heard.gather(())
    assert heard.heard_until == math.inf


async def test_a_batch_that_took_long_is_followed_by_smaller_ones() -> None:
    heard = intake(batch=8)
    for number in range(40):
        heard.receive(delivery(f"m-{number}"))

    def size(seconds: float) -> int:
        batch = heard.gather(())
        heard.took(batch, seconds)
        return len(batch.deliveries)

    slow, fair, quick = 2 * LONGEST_BATCH_S, 0.75 * LONGEST_BATCH_S, 0.0
    taken = [size(seconds) for seconds in (slow, slow, fair, slow, slow, quick, quick, quick)]
    assert taken == [8, 4, 2, 2, 1, 1, 2, 4]
    assert len(heard.gather(()).deliveries) == 8
