"""What has arrived at a service and waits to be committed: deliveries and finished calls."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from choreo.calls import Calls
from choreo.failpoint import reach
from choreo.plan import Plan
from choreo.relay import Relay
from choreo.seams import Clock, Delivery
from choreo.settings import Settings
from choreo.work import Finished, Item, is_deadline, judge

#: A service that was down has heard what waited for it once nothing came for so long.
SILENCE_S = 1.0
#: A batch that takes longer is followed by a smaller one: other instances wait for their turn, and
#: between two batches a service says again what it has in hand.
LONGEST_BATCH_S = 1.0


@dataclass(slots=True)
class Batch:
    """What one transaction takes."""

    items: list[Item] = field(default_factory=list)
    #: Settled at the broker once the items are committed.
    deliveries: list[Delivery] = field(default_factory=list)
    #: Whether it may have killed a process before, and so is taken alone.
    suspect: bool = False


class Intake:
    """Collects what arrives, and hands it out in batches as far as the bounds allow."""

    def __init__(
        self, plan: Plan, settings: Settings, calls: Calls, relay: Relay, clock: Clock
    ) -> None:
        self._plan = plan
        self._settings = settings
        self._calls = calls
        self._relay = relay
        self._clock = clock
        self._arrived: deque[Delivery] = deque()
        self._finished: deque[Finished] = deque()
        #: How many messages waited when it began to hear, and are not taken yet; None: it is deaf.
        self._behind: int | None = None
        #: When that was, or when a message came since, in the loop's time.
        self._heard_at = 0.0
        #: How many deliveries become one batch.
        self._most = settings.batch
        #: A time of the database, and how many of the messages that were in hand then are left.
        self._noted_at, self._left = -math.inf, 0
        self._wake = asyncio.Event()
        calls.on_finished = self._call_finished
        relay.on_confirmed = self._wake.set

    def receive(self, delivery: Delivery) -> None:
        """Take what the broker hands over."""
        self._arrived.append(delivery)
        if self._behind:
            self._heard_at = asyncio.get_running_loop().time()
        self._wake.set()

    def hear(self, waiting: int | None) -> None:
        """From now on messages arrive, and so many wait already; None: none can arrive."""
        self._behind = waiting
        self._heard_at = asyncio.get_running_loop().time()

    @property
    def is_behind(self) -> bool:
        """Whether it may not have heard yet what was said in time.

        A deadline that passed while the service was down, or the broker away, waits for that.
        """
        if not self._behind:
            return self._behind is None
        # What it has not taken although all was silent, other instances have.
        return asyncio.get_running_loop().time() - self._heard_at < SILENCE_S

    @property
    def heard_until(self) -> float:
        """Deadlines whose time was up by then may run: all that was in hand then is taken.

        In the database's time; infinite if nothing is in hand.
        """
        if self.is_behind or self._left:
            return -math.inf
        return self._noted_at if self._arrived else math.inf

    def note(self, now: float) -> None:
        """Remember what is in hand at this time of the database, once what was before is taken."""
        if not self._left:
            self._noted_at, self._left = now, len(self._arrived)

    def _call_finished(self, finished: Finished) -> None:
        self._finished.append(finished)
        self._wake.set()

    def wake(self) -> None:
        """End a wait."""
        self._wake.set()

    async def wait(self, until: float) -> bool:
        """Wait until something happens; True if by that time of the loop nothing did."""
        loop = asyncio.get_running_loop()
        timer = loop.call_at(until, self._wake.set)
        await self._wake.wait()
        timer.cancel()
        return loop.time() >= until

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, and no call under way will come to wait."""
        return not self._arrived and not self._calls.under_way

    def rest(self) -> None:
        """From now on, a wait waits for what happens after this."""
        self._wake.clear()

    def gather(self, due: Sequence[Item]) -> Batch:
        """What is due and what has arrived, decoded, up to the size of a batch.

        Deadlines come last: what this batch takes was said in time.
        """
        late = [item for item in due if is_deadline(item)]
        batch = Batch([item for item in due if item not in late])
        while self._finished:
            batch.items.append(self._finished.popleft())
        self._drop_what_comes_again()
        room = self._room(len(due))
        now = self._clock.now()
        while self._arrived and len(batch.deliveries) < room and not batch.suspect:
            if self._arrived[0].redelivered:
                if batch.items:
                    break
                batch.suspect = True
            delivery = self._take()
            self._behind = self._behind and self._behind - 1
            batch.deliveries.append(delivery)
            limit = self._settings.max_body_bytes
            batch.items.extend(judge(self._plan, delivery, now, limit))
        batch.items.extend(late)
        if batch.deliveries:
            reach("received")
        return batch

    def took(self, batch: Batch, seconds: float) -> None:
        """Fit the size of the next batches to how long the database was held for this one."""
        if seconds > LONGEST_BATCH_S:
            self._most = max(1, len(batch.deliveries) // 2)
        elif seconds < LONGEST_BATCH_S / 2:
            self._most = min(self._settings.batch, 2 * self._most)

    def _drop_what_comes_again(self) -> None:
        """Forget the deliveries of a channel that is gone, or each reconnect would add as many."""
        while self._arrived and (origin := self._arrived[0].channel) and origin.closed:
            self._take()

    def _take(self) -> Delivery:
        self._left = max(0, self._left - 1)
        return self._arrived.popleft()

    def _room(self, due: int) -> int:
        """How many deliveries may be begun: at a bound none, so that nothing grows."""
        if self._relay.backlog >= self._settings.backlog:
            return 0
        if not self._calls.handlers:
            return self._most
        return min(self._most, self._calls.room - due)
