"""What can go wrong, in words for the person who reads it."""

from datetime import timedelta


class ChoreoError(Exception):
    """The base of every error that choreo raises itself."""


class DefinitionError(ChoreoError, TypeError):
    """A contract or handler is declared wrongly; raised while its module is imported."""


class CannotRunError(ChoreoError):
    """The surroundings are missing or wrong; the text says what to do. Exit code 2."""


class UndecodableError(ChoreoError):
    """A message is not what its type says; it becomes a dead letter."""


class UndeclaredResultError(ChoreoError, TypeError):
    """A handler returned something that its annotation does not announce."""


class Retry(ChoreoError):  # noqa: N818 - raised as an instruction, not reported as an error
    """Raised by a handler: not now, run me again later. Counts as an attempt."""

    def __init__(self, why: str = "", *, after: timedelta | float | None = None) -> None:
        """`after`: a timedelta or seconds; None takes the usual backoff."""
        super().__init__(why or "the handler asked to be run again")
        self.after_s = after.total_seconds() if isinstance(after, timedelta) else after


class Reject(ChoreoError):  # noqa: N818 - raised as an instruction, not reported as an error
    """Raised by a handler: no retry can help; straight to the dead letters."""
