"""Which deliveries of one channel may be acked together."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from aiormq import Channel


class Acks:
    """Which deliveries of one channel may be acked together.

    A multiple ack reaches only up to the lowest delivery that is not settled yet.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._open: deque[int] = deque()
        self._settled: set[int] = set()
        self._acked: set[int] = set()

    def received(self, tag: int) -> None:
        """A delivery came; tags grow."""
        self._open.append(tag)

    def settle(self, tags: Sequence[int]) -> list[tuple[int, bool]]:
        """The acks to send, as tag and `multiple`."""
        self._settled.update(tags)
        reach = 0
        while self._open and self._open[0] in self._settled:
            tag = self._open.popleft()
            self._settled.discard(tag)
            if tag in self._acked:
                self._acked.discard(tag)
            else:
                reach = tag
        single = [tag for tag in tags if tag in self._settled and tag not in self._acked]
        self._acked.update(single)
        return [(reach, True)] * bool(reach) + [(tag, False) for tag in single]
