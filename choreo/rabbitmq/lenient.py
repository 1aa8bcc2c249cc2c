"""Makes pamqp read whatever a stranger sent, so that it becomes a dead letter.

What pamqp cannot read ends the connection; the broker hands it over again on the next one, and
so for ever, and nothing behind it is ever reached.
"""

from __future__ import annotations

from pamqp import decode
from pamqp.common import FieldValue

from choreo.envelope import UNREADABLE


def install() -> None:
    """Replace three of pamqp's functions, where it looks them up."""
    decode.METHODS.update(shortstr=_short_str, timestamp=_timestamp, table=_table)
    decode.TABLE_MAPPING[b"T"] = _timestamp


def _short_str(value: bytes) -> tuple[int, FieldValue]:
    """Bytes that are no UTF-8 stay in it as surrogates."""
    end = 1 + value[0]
    return end, value[1:end].decode(errors="surrogateescape")


def _timestamp(value: bytes) -> tuple[int, FieldValue]:
    """What is no time in seconds stays a number."""
    try:
        return decode.timestamp(value)
    except (ValueError, OverflowError, OSError):
        return 8, int.from_bytes(value[:8], "big")


def _table(value: bytes) -> tuple[int, FieldValue]:
    """A table with names that are no UTF-8, or nested too deep, stays as its bytes."""
    try:
        return decode.field_table(value)
    except (ValueError, RecursionError):
        end = 4 + int.from_bytes(value[:4], "big")
        return end, {UNREADABLE: value[4:end]}
