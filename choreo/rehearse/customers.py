"""What happens to the services from outside: stories are told, and it is noted how flows end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

from choreo.contract import Message as Contract
from choreo.contract import decode
from choreo.errors import describe
from choreo.flow import Flow
from choreo.identity import Ids
from choreo.outgoing import first
from choreo.rehearse.broker import SimulatedBroker
from choreo.rehearse.project import Project, Teller
from choreo.rehearse.rabbit import Message, Stream
from choreo.topology import JOURNAL

if TYPE_CHECKING:
    from choreo.rehearse.play import Play

#: At most so many stories are told in one schedule.
STORIES = 3
_SOURCE = "/customer/rehearsal"
_AGAIN_S = 1.0


class Started:
    """A flow that a story has started, and how it ended."""

    def __init__(self, identifier: str, message: Contract, flow: Flow | None) -> None:
        self.id = identifier
        #: What started it.
        self.message = message
        #: What it was declared as; None for what is no flow's start.
        self.flow = flow
        #: The ids of the events that ended it, with the word for the end.
        self.ends: dict[str, str] = {}
        self._end: asyncio.Future[Contract | None] | None = None

    def is_over(self) -> asyncio.Future[Contract | None]:
        """Comes to the event that ends it; at once to None if it is no flow."""
        self._end = asyncio.get_running_loop().create_future()
        if self.flow is None:
            self._end.set_result(None)
        return self._end

    def heard(self, event: Message) -> None:
        """An event of this flow."""
        for name, kind in self.flow.ends.items() if self.flow is not None else ():
            if kind.__address__.wire_type == event.wire_type and event.message_id is not None:
                self.ends[event.message_id] = name
                if self._end is not None and not self._end.done():
                    self._end.set_result(decode(kind, event.body))


class Customers:
    """Tells the stories of a schedule."""

    def __init__(self, play: Play, project: Project) -> None:
        self.broker = SimulatedBroker(play.rabbit, "customer", play.settings, play.clock.now)
        #: By the flow's id.
        self.started: dict[str, Started] = {}
        self._play = play
        self._ids = Ids(play.clock, play.random)
        tellers = {one.name: one for one in project.stories}
        undone = [one.name for one in project.stories if not play.undone.isdisjoint(one.flows)]
        #: What is told, each with its number.
        self.stories = [
            (number, tellers[name])
            for number, name in play.schedule.among("story", list(tellers), undone, STORIES)
        ]
        self._flows = {flow.starts: flow for flow in project.flows}
        self._read = 0
        #: How many messages are not known to be published.
        self._unsent = 0

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is to be published now."""
        return not self._unsent and self.broker.is_quiet

    def begin(self) -> None:
        """Begin the stories that the schedule decides on."""
        spawn, world = self._play.loop.spawn, self._play.world
        spawn(world, self.broker.open())
        for number, teller in self.stories:
            random = Random(f"story {self._play.schedule.seed} {number}")  # noqa: S311 - no secret
            spawn(world, self._tell(teller, random))

    def look(self) -> None:
        """Read on in the journal how flows have ended."""
        journal = self._play.rabbit.queues.get(JOURNAL)
        if isinstance(journal, Stream) and self._read < len(journal.messages):
            for event in journal.messages[self._read :]:
                started = self.started.get(event.correlation_id or "")
                if started is not None:
                    started.heard(event)
            self._read = len(journal.messages)

    def findings(self) -> Iterator[tuple[str, str]]:
        """The flows that have not exactly one end: the flow's id, and what is wrong."""
        for one in self.started.values():
            if one.flow is not None and len(one.ends) != 1:
                ends = " and ".join(one.ends.values()) or "none"
                yield one.id, f"the flow {one.flow.name!r} should have one end, and has {ends}"

    async def _tell(self, teller: Teller, random: Random) -> None:
        try:
            story = teller.tell(random)
            said = next(story, None)
            while said is not None:
                together = said if isinstance(said, tuple) else (said,)
                started = [await self._start(one) for one in together]
                ends = [await one.is_over() for one in started]
                said = story.send(tuple(ends) if isinstance(said, tuple) else ends[0])
        except StopIteration:
            pass
        except Exception as error:  # noqa: BLE001 - a story's mistake is told as such
            self._play.findings.append(f"story {teller.name!r} failed: {describe(error)}")

    async def _start(self, message: Contract) -> Started:
        outgoing = first(message, self._ids, self._play.clock.now(), _SOURCE)
        identifier = outgoing.envelope.id
        started = Started(identifier, message, self._flows.get(type(message)))
        self.started[identifier] = started
        self._unsent += 1
        while await self.broker.publish([outgoing]):  # noqa: ASYNC110 - it waits for the broker
            await asyncio.sleep(_AGAIN_S)
        self._unsent -= 1
        return started
