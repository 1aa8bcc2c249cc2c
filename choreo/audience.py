"""Who is there to hear a service's events: the agreement in a file, held against the broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from structlog.typing import FilteringBoundLogger

from choreo.errors import CannotRunError
from choreo.seams import Broker
from choreo.service import Service
from choreo.settings import Settings

#: The file in the package of contracts; `choreo map --json` writes it.
FILE = "choreography.json"
CHECK_S, CHECK_AGAIN_S = 10.0, 1.0


def agreed(settings: Settings) -> dict[str, Any] | None:
    """The agreement of the project; None if it has none.

    Raises CannotRunError if the file is not what `choreo map --json` writes.
    """
    try:
        spec = find_spec(settings.contracts)
    except ModuleNotFoundError:
        spec = None
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder) / FILE
        if not file.exists():
            continue
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["contracts"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CannotRunError(
                f"{file} is no agreement ({error!r}): write it anew with 'choreo map --json'"
            ) from error
        return found
    return None


def hearers(settings: Settings, service: Service) -> dict[str, tuple[str, ...]]:
    """The queues that hear each event of a service by agreement, by wire type."""
    contracts = agreed(settings) or {}
    own = {kind.__address__.wire_type for kind in service.published}
    return {
        wire_type: tuple(contract["heard_by"])
        for wire_type, contract in contracts.items()
        if wire_type in own and contract["kind"] == "event" and contract["heard_by"]
    }


class Audience:
    """Knows which events nobody can hear now: the journal takes them, so the broker does not say.

    An event of which every known queue is missing waits in the outbox; where some are missing it
    goes out, as the journal keeps it for them.
    """

    def __init__(
        self, broker: Broker, hearers: Mapping[str, Sequence[str]], log: FilteringBoundLogger
    ) -> None:
        self._broker = broker
        self._hearers = hearers
        self._log = log
        self._queues = {queue for queues in hearers.values() for queue in queues}
        self._missing: frozenset[str] = frozenset()
        #: Told when an event may be heard that was not before, or the other way round.
        self.on_change: Callable[[], None] = lambda: None

    def is_heard(self, wire_type: str) -> bool:
        """Whether anybody can hear this event, as far as is known."""
        known = self._hearers.get(wire_type)
        return known is None or not self._missing.issuperset(known)

    async def run(self) -> None:
        """Look again and again, for as long as the process lives."""
        while self._hearers:
            await asyncio.sleep(CHECK_AGAIN_S if self._missing else CHECK_S)
            await self.check()

    async def check(self) -> None:
        """See which of the queues are there, and say what has changed."""
        wanted = self._queues
        try:
            missing = frozenset(await self._broker.missing(wanted)) if wanted else frozenset()
        except Exception as error:  # noqa: BLE001 - it is asked again, and until then nothing changed
            self._log.debug("cannot ask which queues are there", error=repr(error))
            return
        if missing == self._missing:
            return
        for wire_type, queues in self._hearers.items():
            self._say(wire_type, missing.intersection(queues), whole=missing.issuperset(queues))
        if returned := self._missing - missing:
            self._log.info("subscribers are there again", queues=sorted(returned))
        self._missing = missing
        self.on_change()

    def _say(self, wire_type: str, missing: frozenset[str], *, whole: bool) -> None:
        if not missing - self._missing:
            return
        if whole:
            self._log.error(
                "nobody can hear this event: it waits in the outbox; declare its subscribers "
                "('choreo declare'), or take them out of the agreement",
                type=wire_type, missing=sorted(missing),
            )  # fmt: skip
        else:
            self._log.warning(
                "a subscriber of this event is missing; the journal keeps it",
                type=wire_type, missing=sorted(missing),
            )  # fmt: skip
