"""What the journal holds is read to its end, whatever the broker counts and however late it is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import aiormq
import pytest
from ledger import Ledger, desk_fixture  # noqa: F401 - a fixture

from choreo import CannotRunError, rabbitmq

READING = sys.modules[rabbitmq.Past.__module__]


def count_as(
    count: int, monkeypatch: pytest.MonkeyPatch, then: Callable[[], None] = lambda: None
) -> None:
    """Have the broker count so many messages in each queue."""
    declare = aiormq.Channel.queue_declare

    async def counted(*given: Any, **options: Any) -> Any:
        found: Any = await declare(*given, **options)
        found.message_count = count
        then()
        return found

    monkeypatch.setattr(aiormq.Channel, "queue_declare", counted)


async def test_what_the_broker_hands_over_late_is_past_all_the_same(
    desk: Ledger, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream's count of messages is seconds old, and its answer may come before its events."""
    consume = aiormq.Channel.basic_consume

    async def slow(channel: aiormq.Channel, queue: str, heard: Any, **options: Any) -> Any:
        async def late(message: Any) -> None:
            await asyncio.sleep(0.5)
            await heard(message)

        return await consume(channel, queue, late, **options)

    monkeypatch.setattr(aiormq.Channel, "basic_consume", slow)
    monkeypatch.setattr(READING, "_SILENCE_S", 60)
    count_as(0, monkeypatch)
    await desk.tell("young")
    async with rabbitmq.past(amqp_url) as past:
        assert past.last == 0
        assert [delivery.message_id async for events in past for _, delivery in events] == ["young"]


async def test_what_is_counted_must_be_handed_over(
    desk: Ledger, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not before: to connect may take its time.
    count_as(1, monkeypatch, partial(monkeypatch.setattr, READING, "CONNECT_TIMEOUT_S", 0.2))
    with pytest.raises(CannotRunError, match="hands nothing over"):
        async with rabbitmq.past(amqp_url):
            pass


async def test_nothing_is_past_where_nothing_was_told(desk: Ledger, amqp_url: str) -> None:
    async with rabbitmq.past(amqp_url) as past:
        assert past.last == -1
        assert [events async for events in past] == []
