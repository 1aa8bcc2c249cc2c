"""Publishes what is committed, with confirms, until the broker has it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from structlog.typing import FilteringBoundLogger

from choreo.failpoint import reach
from choreo.seams import Broker, Outgoing

#: At most so many messages wait for their confirms together, and so many groups of them.
GROUP, GROUPS = 500, 4
RETRY_FIRST_S, RETRY_LONGEST_S = 0.1, 5.0


class Relay:
    """The way out of one service: from its outbox to the broker."""

    def __init__(
        self,
        broker: Broker,
        log: FilteringBoundLogger,
        is_heard: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """`is_heard` tells of a wire type whether anybody can hear it now."""
        self._broker = broker
        self._log = log
        self._is_heard = is_heard
        #: What nobody can hear now.
        self._unheard: list[Outgoing] = []
        self._waiting: deque[Outgoing] = deque()
        self._groups: set[asyncio.Task[None]] = set()
        #: What failed is published again beside the rest, and as boundedly.
        self._again: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(GROUPS)
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        #: Ids that are committed to the outbox and not yet known to be forgotten.
        self.in_hand: set[str] = set()
        #: Confirmed, to be taken out of the outbox with the next transaction.
        self.confirmed: list[str] = []
        self.on_confirmed: Callable[[], None] = lambda: None

    @property
    def backlog(self) -> int:
        """How many messages the broker has not confirmed."""
        return len(self.in_hand) - len(self.confirmed)

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Publish messages that are committed, in this order."""
        if messages:
            self._waiting.extend(messages)
            self.in_hand.update(one.envelope.id for one in messages)
            self._wake.set()

    def look_again(self) -> None:
        """Who can hear has changed: what waited for that goes first."""
        self._waiting.extendleft(reversed(self._unheard))
        self._unheard.clear()
        self._wake.set()

    def take_confirmed(self) -> list[str]:
        """The ids that the outbox may forget."""
        taken, self.confirmed = self.confirmed, []
        self.in_hand.difference_update(taken)
        return taken

    def put_back(self, ids: Sequence[str]) -> None:
        """The transaction that should have forgotten them was rolled back."""
        self.confirmed.extend(ids)
        self.in_hand.update(ids)

    async def run(self) -> None:
        """Publish for as long as the process lives."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                if len(self._groups) >= GROUPS:
                    await asyncio.wait(self._groups, return_when=asyncio.FIRST_COMPLETED)
                group = self._next_group()
                if not group:
                    continue
                task = asyncio.create_task(self._publish(group, RETRY_FIRST_S))
                self._groups.add(task)
                task.add_done_callback(self._groups.discard)

    def _next_group(self) -> list[Outgoing]:
        """What is published next, but for what nobody can hear."""
        group: list[Outgoing] = []
        while self._waiting and len(group) < GROUP:
            one = self._waiting.popleft()
            (group if self._is_heard(one.routing_key) else self._unheard).append(one)
        self._progress.set()
        return group

    async def flush(self) -> None:
        """Wait until everything is confirmed that can be heard."""
        while self.backlog > len(self._unheard):
            self._progress.clear()
            await self._progress.wait()

    async def close(self) -> None:
        """Give up what is not confirmed; it stays in the outbox."""
        tasks = self._groups | self._again
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _publish(self, group: Sequence[Outgoing], wait_s: float) -> None:
        """Publish a group; what fails is tried again after the wait."""
        reach("outbox_read")
        try:
            failures = await self._broker.publish(group)
        except Exception as error:  # noqa: BLE001 - they are in the outbox: there is only trying again
            failures = dict.fromkeys((one.envelope.id for one in group), repr(error))
        self.confirmed.extend(one.envelope.id for one in group if one.envelope.id not in failures)
        reach("confirmed")
        self._progress.set()
        self.on_confirmed()
        if failures:
            self._postpone([one for one in group if one.envelope.id in failures], failures, wait_s)

    def _postpone(
        self, failed: Sequence[Outgoing], reasons: Mapping[str, str], wait_s: float
    ) -> None:
        """Try again later, in two halves: so one that never succeeds is soon alone with it."""
        first = failed[0].envelope
        self._log.error(
            "not published, trying again",
            count=len(failed),
            type=first.type,
            handler=first.source.rpartition("/")[2],
            flow=first.flow,
            message_id=first.id,
            error=reasons[first.id],
            after_s=wait_s,
        )
        middle = len(failed) // 2
        for half in filter(None, (failed[:middle], failed[middle:])):
            task = asyncio.create_task(self._publish_again(half, wait_s))
            self._again.add(task)
            task.add_done_callback(self._again.discard)

    async def _publish_again(self, group: Sequence[Outgoing], wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if len(group) == 1:
            wait_s = min(wait_s * 2, RETRY_LONGEST_S)
        async with self._slots:
            await self._publish(group, wait_s)
