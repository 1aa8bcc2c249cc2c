"""When an event of the journal happened, also one that does not say."""

from __future__ import annotations

from typing import Any

import pytest

from choreo.envelope import timestamp
from choreo.replay import Dates, remembered_since
from choreo.seams import Delivery
from choreo.settings import Settings

NOON = 1_800_000_000.0


def event(**given: Any) -> Delivery:
    plain: dict[str, Any] = {
        "body": b"{}", "message_id": "m-1", "wire_type": "a.b.v1", "correlation_id": None,
        "app_id": None, "headers": {}, "properties": {}, "exchange": "a", "routing_key": "a.b.v1",
        "redelivered": False, "tag": 0,
    }  # fmt: skip
    return Delivery(**(plain | given))


def test_an_event_that_does_not_say_is_as_old_as_the_one_before_it() -> None:
    dates = Dates()
    assert dates.of(event()) == 0.0
    assert dates.of(event(headers={"cloudEvents:time": timestamp(NOON)})) == NOON
    assert dates.of(event()) == NOON
    assert dates.of(event(message_id=None)) == NOON
    assert dates.of(event(headers={"cloudEvents:time": timestamp(NOON - 60)})) == NOON - 60


def test_a_service_surely_remembers_a_little_less_than_it_keeps() -> None:
    settings = Settings(retention_days=10)
    assert NOON - remembered_since(settings, NOON) == pytest.approx(9.9 * 86400)
