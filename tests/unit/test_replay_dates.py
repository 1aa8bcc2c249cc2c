"""When an event of the journal happened, also one that does not say; and since when to replay."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import typer

from choreo.cli.replay import _time
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


@pytest.mark.parametrize(
    "text",
    [
        "99999999999999d",
        "999999999d",
        "25000d",
        f"{'9' * 5000}s",
        "²d",
        "2 days",
        "1960-01-01",
        "0001-01-01T00:00+14:00",
        "9999-12-31T23:59-14:00",
    ],
    ids=lambda text: text[:30],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"--since '.*' is no time: like .* or 'all'"):
        _time(text, datetime.fromtimestamp(NOON, UTC), "--since")


def test_a_time_may_be_said_as_an_age() -> None:
    assert _time("90m", datetime.fromtimestamp(NOON, UTC), "--since").timestamp() == NOON - 5400
