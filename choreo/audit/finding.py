"""What an audit says: one sentence about one flow, message and handler, and where to look."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """What is to be thought of a finding."""

    #: A promise is broken.
    WRONG = "wrong"
    #: No promise is broken, and a person must know: a dead letter, and what is owed because of one.
    NOTED = "noted"
    #: Under way: it comes right by itself, or is found to be wrong later.
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be, or not yet."""

    #: One word: lost, doubled, phantom ...
    kind: str
    what: str
    flow: str | None = None
    #: The message's id.
    message: str | None = None
    #: `service.handler`.
    handler: str | None = None
    severity: Severity = Severity.WRONG
    #: The command that shows more, where that is not watching the flow.
    look: str | None = None

    @property
    def look_at(self) -> str | None:
        """The command that shows more."""
        return self.look or (self.flow and f"choreo watch {self.flow}")

    def as_json(self) -> dict[str, Any]:
        """What a machine is told of it."""
        return {**asdict(self), "look": self.look_at}

    def __str__(self) -> str:
        about = f" (message {self.message})" if self.message else ""
        return f"{self.kind}: {f'{self.handler}: ' if self.handler else ''}{self.what}{about}"
