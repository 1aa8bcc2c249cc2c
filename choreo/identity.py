"""Message ids: UUID version 7 (RFC 9562), which sort by the order in which they were made."""

from __future__ import annotations

from random import Random

from choreo.seams import Clock


class Ids:
    """Makes ids that grow, also within one millisecond and when the clock steps back."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._last = 0

    def next(self) -> str:
        """A new id in the usual 36 characters."""
        # 48 bits of milliseconds and 12 bits of a counter within them (RFC 9562, method 1).
        stamp = int(self._clock.now() * 1000) << 12
        self._last = stamp if stamp > self._last else self._last + 1
        tail = self._random.getrandbits(62)
        high, low = self._last >> 12, self._last & 0xFFF
        head = f"{high:012x}7{low:03x}"
        text = f"{head}{(tail | 0x8000000000000000):016x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
