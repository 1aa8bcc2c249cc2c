"""Text of strangers on a terminal, which it cannot steer."""

from __future__ import annotations

import json
import re

#: Control characters, but for the end of a line, and what turns the direction of writing.
_STEERS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def shown(text: str, longest: int = 255) -> str:
    """The text on one line."""
    text = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def escaped(text: str) -> str:
    """The text on its lines, whole; JSON stays the same JSON."""
    return _STEERS.sub(lambda found: json.dumps(found[0])[1:-1], text)
