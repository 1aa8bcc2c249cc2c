"""A line of `choreo watch` for every event, whatever a stranger wrote into it."""

from __future__ import annotations

import io
import json
import time
from bisect import bisect_left
from collections.abc import Iterator

import pytest
from rich.console import Console

from choreo.cli.watch import Lines
from choreo.seams import Delivery


def watched(body: bytes = b"{}", *, as_json: bool = False, **headers: str) -> str:
    """What is shown of an event."""
    file = io.StringIO()
    event = Delivery(
        body, "1", "a.b.v1", None, "stranger",
        {f"cloudEvents:{name}": value for name, value in headers.items()}, {}, "a", "a.b.v1",
        redelivered=False, tag=1,
    )  # fmt: skip
    Lines(Console(file=file, soft_wrap=True, width=200), as_json=as_json).take(event, "")
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


def test_a_body_that_is_nested_too_deep() -> None:
    body = b"[" * 100_000
    assert " ms  a.b" in watched(body)
    assert json.loads(watched(body, as_json=True))["body"] == body.decode()


def _nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def _cannot_be_read(depth: int) -> bool:
    try:
        json.loads(_nested(depth))
    except RecursionError:
        return True
    return False


def test_a_body_that_is_nested_as_deep_as_can_be_read() -> None:
    """Then it cannot be written as part of something."""
    deepest = bisect_left(range(50_000), True, key=_cannot_be_read)
    for depth in range(deepest - 50, deepest + 2):
        assert watched(_nested(depth), as_json=True).startswith('{"flow": "1", "id": "1", ')
