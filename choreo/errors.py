"""What can go wrong, in words for the person who reads it."""

from __future__ import annotations

import math
import re
import traceback
from datetime import timedelta

from pydantic import ValidationError

#: What a terminal, a database or UTF-8 does not take: control characters and lone surrogates.
_UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_LONGEST_LINE, _LONGEST_TRACE = 500, 8000
#: A bad message is told by so many fields, each in so many characters; of too many by the number.
_SHOWN_FIELDS, _LONGEST_FIELD, _MOST_FIELDS = 5, 200, 1000


class ChoreoError(Exception):
    """The base of every error that choreo raises itself."""


class DefinitionError(ChoreoError, TypeError):
    """A contract or handler is declared wrongly; raised while its module is imported."""


class CannotRunError(ChoreoError):
    """The surroundings are missing or wrong; the text says what to do. Exit code 2."""


class UndecodableError(ChoreoError):
    """A message is not what its type says; it becomes a dead letter."""


class UndeclaredResultError(ChoreoError, TypeError):
    """A handler returned something that its annotation does not announce, or that cannot travel."""


class Retry(ChoreoError):  # noqa: N818 - raised as an instruction, not reported as an error
    """Raised by a handler: not now, run me again later. Counts as an attempt."""

    def __init__(self, why: str = "", *, after: timedelta | float | None = None) -> None:
        """`after`: a timedelta or seconds, finite and not negative; None takes the usual backoff.

        Raises TypeError or ValueError if it is anything else.
        """
        super().__init__(why or "the handler asked to be run again")
        self.after_s = None if after is None else _seconds(after)


class Reject(ChoreoError):  # noqa: N818 - raised as an instruction, not reported as an error
    """Raised by a handler: no retry can help; straight to the dead letters."""


def describe(error: BaseException) -> str:
    """An error in one line, whatever the error: its type and the first line of its text.

    Of a message that cannot be, the fields are named.
    """
    name = type(error).__name__
    try:
        if isinstance(error, ValidationError):
            text = f"{error.title}: {explain(error)}"
        else:
            text = str(error)
    except Exception as other:  # noqa: BLE001 - somebody else's __str__ may do anything
        text = f"(its text cannot be read: {type(other).__name__})"
    first_line = next(iter(text.strip().splitlines()), "")
    return line(f"{name}: {first_line}" if first_line else name, _LONGEST_LINE)


def explain(error: ValidationError) -> str:
    """One line that names the first bad fields and what is wrong with them."""
    count = error.error_count()
    if count > _MOST_FIELDS:
        return f"{count} errors, too many to name"
    found = error.errors(include_url=False, include_context=False, include_input=False)
    # A bad item makes its whole tuple look too short: that is no error of its own.
    wholes = {one["loc"][:end] for one in found for end in range(len(one["loc"]))}
    proper = [one for one in found if one["loc"] not in wholes]
    said = [
        line(f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": "), _LONGEST_FIELD)
        for one in proper[:_SHOWN_FIELDS]
    ]
    more = f"; and {len(proper) - _SHOWN_FIELDS} more" if len(proper) > _SHOWN_FIELDS else ""
    return "; ".join(said) + more


def trace(error: BaseException) -> str:
    """The end of an error's traceback, whatever the error."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as other:  # noqa: BLE001 - it reads attributes that may be anything
        text = f"{describe(error)}\n(its traceback cannot be written: {describe(other)})\n"
    return _clean(text[-_LONGEST_TRACE:])[-_LONGEST_TRACE:]


def line(text: str, longest: int) -> str:
    """The text as one line of at most so many characters, fit for every log and database."""
    found = _clean(" ".join(text[:longest].split()))
    return found if max(len(text), len(found)) <= longest else f"{found[: longest - 3]}..."


def _clean(text: str) -> str:
    return _UNFIT.sub(lambda found: repr(found[0])[1:-1], text)


def _seconds(after: timedelta | float) -> float:
    if isinstance(after, timedelta):
        after = after.total_seconds()
    elif not isinstance(after, int | float):
        raise TypeError(f"Retry(after={after!r}): give a timedelta or a number of seconds")
    try:
        seconds = float(after)
    except OverflowError:
        seconds = math.inf
    if not 0 <= seconds < math.inf:
        raise ValueError(f"Retry(after={after!r}): give a finite time that is not negative")
    return seconds
