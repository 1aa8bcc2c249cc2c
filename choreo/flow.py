"""What the processes of a project are: what each starts with, and how it may end."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from choreo.contract import NAME, Event, Message
from choreo.errors import DefinitionError
from choreo.signature import message_types

#: By the module that declares it, and its name.
_flows: dict[tuple[str, str], Flow] = {}


class Flow:
    """A process: a message that starts it, and the events of which exactly one ends it.

        Flow(
            "order",
            starts=PlaceOrder,
            ends={"fulfilled": OrderFulfilled, "cancelled": OrderCancelled},
            fails=["cancelled"],
        )

    It is an agreement of all services, and so stands among the contracts (`contracts/flows.py`).
    `choreo check` proves what it can of it, `choreo rehearse` plays it, `choreo audit` looks
    whether it was kept.
    """

    def __init__(
        self,
        name: str,
        *,
        starts: type[Message],
        ends: Mapping[str, type[Event]],
        fails: Collection[str] = (),
    ) -> None:
        """`ends`: each end by the word for it; `fails`: those before which all is undone.

        Raises DefinitionError if there is no end, one is named twice, or there is such a flow.
        """
        self.name = name
        self.starts = starts
        self.ends: Mapping[str, type[Event]] = MappingProxyType(dict(ends))
        self.fails = frozenset(fails)
        self.module, self.place = _declared_at()
        where = f"{self.place}: flow {name!r}"
        for word in (name, *ends):
            if not (isinstance(word, str) and NAME.fullmatch(word)):
                raise DefinitionError(
                    f"{where}: {word!r} must be in lower case, like a module's name"
                )
        kinds = [one for kind in (starts, *ends.values()) for one in message_types(kind, where)]
        if not ends:
            raise DefinitionError(f"{where} has no end")
        if not all(issubclass(end, Event) for end in kinds[1:]):
            raise DefinitionError(f"{where}: an end is an event, not a command")
        if len(set(kinds)) < len(kinds) or len(kinds) != len(ends) + 1:
            raise DefinitionError(f"{where}: its start and each of its ends are one message each")
        if strangers := self.fails - self.ends.keys():
            raise DefinitionError(f"{where}: {', '.join(sorted(strangers))} is none of its ends")
        if (other := _flows.get((self.module, name))) is not None:
            raise DefinitionError(f"{where} is there already ({other.place})")
        _flows[self.module, name] = self

    def __repr__(self) -> str:
        return f"Flow({self.name!r}, starts={self.starts.__name__}, ends={list(self.ends)})"


def flows(package: str) -> Sequence[Flow]:
    """Every flow that the modules of a package have declared so far, in that order."""
    return [
        flow
        for (module, _), flow in _flows.items()
        if module == package or module.startswith(f"{package}.")
    ]


def _declared_at() -> tuple[str, str]:
    """The module that calls the constructor, and the line as `file:line`."""
    frame = sys._getframe(2)  # noqa: SLF001 - as `warnings` finds its caller
    file = Path(frame.f_code.co_filename)
    return str(frame.f_globals.get("__name__")), f"{file}:{frame.f_lineno}"
