"""Errors: described whatever they are, and an instruction to retry that can be followed."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from choreo.errors import Retry, describe, trace


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class EvilSyntaxError(SyntaxError):
    """`traceback` reads these attributes, and compares them."""

    lineno: Any = "x"
    offset: Any = object()
    text: Any = 3


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (ValueError(), "ValueError"),
        (ValueError("  \n one \r\n two"), "ValueError: one"),
        (ValueError("a\x00b\x1b[31m\ud800"), r"ValueError: a\x00b\x1b[31m\ud800"),
        (ValueError("café"), "ValueError: café"),
        (MuteError(), "MuteError: (its text cannot be read: RuntimeError)"),
    ],
)
def test_an_error_is_described_in_one_line(error: BaseException, line: str) -> None:
    assert describe(error) == line


def test_a_message_that_cannot_be_is_described_by_its_fields() -> None:
    class Lent(BaseModel):
        loan: str
        days: int

    with pytest.raises(ValidationError) as caught:
        Lent.model_validate({"days": "a secret"})
    assert describe(caught.value) == (
        "ValidationError: Lent: loan: Field required; days: Input should be a valid integer, "
        "unable to parse string as an integer"
    )


@pytest.mark.parametrize("text", ["x" * 10**7, "\ud800" * 10**6, "\n" * 10**6 + "x" * 501])
def test_a_long_text_is_cut(text: str) -> None:
    found = describe(ValueError(text))
    assert len(found) == 500
    assert found.endswith("...")


@pytest.mark.parametrize(
    "error",
    [
        MuteError(),
        EvilSyntaxError("odd"),
        ValueError("\x00\ud800" * 10_000),
        ExceptionGroup("many", [MuteError(), ValueError("\x00")]),
    ],
)
def test_a_traceback_can_be_kept_whatever_it_is_of(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        raise error
    found = trace(caught.value)
    assert 0 < len(found) <= 8000
    assert "\x00" not in found
    assert found.encode()


def test_the_end_of_a_traceback_is_what_counts() -> None:
    with pytest.raises(ValueError, match="the end") as caught:
        raise ValueError("x" * 7000 + "the end")
    found = trace(caught.value)
    assert found.endswith("the end\n")
    assert "test_errors.py" in found


@pytest.mark.parametrize(
    ("after", "seconds"), [(None, None), (0, 0.0), (1.5, 1.5), (timedelta(minutes=1), 60.0)]
)
def test_a_retry_may_say_when(after: Any, seconds: float | None) -> None:
    assert Retry("busy", after=after).after_s == seconds


@pytest.mark.parametrize("after", ["5", [1], 1j])
def test_a_retry_is_after_a_time(after: Any) -> None:
    with pytest.raises(TypeError, match="give a timedelta or a number of seconds"):
        Retry(after=after)


@pytest.mark.parametrize("after", [-1, -0.5, math.nan, math.inf, timedelta(-1), 10**400])
def test_a_retry_is_after_a_time_that_comes(after: Any) -> None:
    with pytest.raises(ValueError, match="finite time that is not negative"):
        Retry(after=after)
