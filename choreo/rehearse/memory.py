"""What a process has in its modules is lost with it: whoever keeps state there, loses it."""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from choreo.service import Service

_CONTAINERS = (dict, list, set, deque)
_VALUES = (bool, int, float, str, bytes, type(None))


class ProcessMemory:
    """The variables of a service's modules, as they were when they were imported."""

    def __init__(self, service: Service) -> None:
        self._saved = [
            (variables, name, deepcopy(value))
            for variables in _variables(service)
            for name, value in variables.items()
            if not name.startswith("__") and _is_plain(value)
        ]

    def lose(self) -> None:
        """Bring the variables back to what a new process has; containers stay the same objects."""
        for variables, name, saved in self._saved:
            value: Any = variables.get(name)
            if _is_same(value, saved):
                continue
            fresh: Any = deepcopy(saved)
            if type(value) is not type(saved) or not isinstance(saved, _CONTAINERS):
                variables[name] = fresh
            elif isinstance(saved, dict | set):
                value.clear()
                value.update(fresh)
            else:
                value.clear()
                value.extend(fresh)


def _is_plain(value: object) -> bool:
    """Whether it is data, through and through: statements, tables and services are none."""
    if isinstance(value, dict):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    if isinstance(value, list | set | deque | tuple | frozenset):
        return all(map(_is_plain, value))
    return isinstance(value, _VALUES)


def _is_same(value: Any, saved: Any) -> bool:
    try:
        return type(value) is type(saved) and bool(value == saved)
    except Exception:  # noqa: BLE001 - what is in it now may be a lazy SQL expression
        return False


def _variables(service: Service) -> Iterator[dict[str, Any]]:
    """Of the modules that the service is declared in, and of all that is in these packages."""
    homes = {_home(service, handler.fn.__module__) for handler in service.handlers.values()}
    homes.discard(None)
    for name, module in list(sys.modules.items()):
        if any(f"{name}.".startswith(f"{home}.") for home in homes):
            yield vars(module)


def _home(service: Service, module: str) -> str | None:
    """The package around a handler's module that declares its service, and no other one.

    Or this very module, whatever else it declares. A module that declares no service keeps what
    it has: the handlers may be somebody else's.
    """
    found = None
    for name in itertools.accumulate(module.split("."), "{}.{}".format):
        within = vars(sys.modules[name]).values() if name in sys.modules else ()
        declared = [one for one in within if isinstance(one, Service)]
        if service in declared:
            if all(one is service for one in declared):
                return name
            found = name if name == module else None
    return found
