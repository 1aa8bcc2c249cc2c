"""A line of `choreo watch` for every event, whatever a stranger wrote into it."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import pytest
from rich.console import Console

from choreo.cli.watch import Lines
from choreo.seams import Delivery


def watched(**headers: str) -> str:
    """What is shown of an event."""
    file = io.StringIO()
    event = Delivery(
        b"{}", "1", "a.b.v1", None, "stranger",
        {f"cloudEvents:{name}": value for name, value in headers.items()}, {}, "a", "a.b.v1",
        redelivered=False, tag=1,
    )  # fmt: skip
    Lines(Console(file=file, soft_wrap=True, width=200), as_json=False).take(event, "")
    return file.getvalue()


@pytest.fixture(params=["America/New_York", "Asia/Tokyo"])
def far_from_utc(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_from_utc")
@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_time_that_is_no_date_here(at: str) -> None:
    """As it is in UTC, if not in the zone of whoever watches."""
    assert " ms  a.b" in watched(time=at)


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_is_no_date_at_all(at: str) -> None:
    assert watched(time=at).startswith("unreadable, on a a.b.v1: time ")
