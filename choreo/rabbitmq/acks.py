"""Which deliveries of one channel may be acked together."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aiormq import Channel


class Acks:
    """Which deliveries of one channel may be acked together.

    A multiple ack reaches only up to the lowest delivery that is not settled yet.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        #: In order of arrival.
        self._unsettled: dict[int, None] = {}

    @property
    def closed(self) -> bool:
        """Whether the channel is gone: what came on it and is not acked comes again."""
        return self.channel.is_closed

    def received(self, tag: int) -> None:
        """A delivery came; tags grow."""
        self._unsettled[tag] = None

    def settle(self, tags: Sequence[int]) -> list[tuple[int, bool]]:
        """The acks to send, as tag and `multiple`."""
        for tag in tags:
            del self._unsettled[tag]
        lowest = next(iter(self._unsettled), math.inf)
        below = [tag for tag in tags if tag < lowest]
        above = [(tag, False) for tag in tags if tag > lowest]
        return [(max(below), True), *above] if below else above
