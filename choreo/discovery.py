"""Finds the services and the contracts of a project, by importing their packages."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from choreo import contract, flow
from choreo.errors import CannotRunError, DefinitionError
from choreo.flow import Flow
from choreo.service import Service
from choreo.settings import Settings
from choreo.signature import MessageType

_T = TypeVar("_T")


def services(settings: Settings) -> list[Service]:
    """Every service of the project; raises CannotRunError if one cannot be imported."""
    return list(by_module(settings).values())


def by_module(settings: Settings) -> dict[str, Service]:
    """Every service of the project, by the name of its module."""
    found: dict[str, Service] = {}
    for module in _members(settings.services, "services"):
        service = getattr(module, "service", None)
        if isinstance(service, Service):
            found[module.__name__] = service
    if not found:
        raise CannotRunError(
            f"no service in the package {settings.services!r}: a service is a module of it with "
            "service = Service(...)"
        )
    modules: dict[str, str] = {}
    for module_name, service in found.items():
        if (other := modules.setdefault(service.name, module_name)) != module_name:
            raise CannotRunError(f"{other} and {module_name} are both called {service.name!r}")
    return found


def service(settings: Settings, name: str) -> Service:
    """One service, by its module or by its name alone."""
    module_name = name if "." in name else f"{settings.services}.{name}"
    package, _, member = module_name.rpartition(".")
    known = pkgutil.iter_modules(_package(package, None).__path__)
    named("service", member, {one.name: one for one in known})
    found = getattr(imported(module_name), "service", None)
    if not isinstance(found, Service):
        raise CannotRunError(f"{module_name} is no service: it has no service = Service(...)")
    return found


def contracts(settings: Settings) -> list[MessageType]:
    """Every contract of the project; enters them in the register (`choreo.contract.contracts`)."""
    _members(settings.contracts, "contracts")
    inside = f"{settings.contracts}."
    known = contract.contracts().values()
    return [kind for kind in known if f"{kind.__module__}.".startswith(inside)]


def flows(settings: Settings) -> Sequence[Flow]:
    """Every flow that the project's contracts declare."""
    contracts(settings)
    return flow.flows(settings.contracts)


def named(what: str, name: str, known: Mapping[str, _T]) -> _T:
    """The one of a name; raises CannotRunError that says what was meant, or what there is.

    `what` they are, in a word: "flow".
    """
    if name in known:
        return known[name]
    meant = get_close_matches(name, known, 1)
    hint = f"did you mean {meant[0]!r}?" if meant else f"there is {', '.join(known) or 'none'}"
    raise CannotRunError(f"no {what} {name!r}: {hint}")


def imported(name: str, also: str = "") -> ModuleType:
    """Import a module of the project; raises CannotRunError that says where it fails."""
    # `python -m choreo` finds what lies in the working folder; the console script must as well,
    # and so must pytest.
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except (CannotRunError, DefinitionError):
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise CannotRunError(
                f"no package {error.name!r} here: run choreo in the project's folder{also}"
            ) from error
        what = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CannotRunError(f"{name} cannot be imported: {what}{place_of(error)}") from error


def _members(package: str, setting: str) -> list[ModuleType]:
    found = _package(package, setting)
    names = sorted(one.name for one in pkgutil.iter_modules(found.__path__))
    return [imported(f"{package}.{name}") for name in names]


def _package(name: str, setting: str | None) -> ModuleType:
    also = ""
    if setting:
        where = f"{setting} in pyproject.toml ([tool.choreo]), or CHOREO_{setting.upper()}"
        also = f", or name yours: {where}"
    found = imported(name, also)
    if not hasattr(found, "__path__"):
        raise CannotRunError(f"{name!r} is a module, and should be a package with members")
    return found


def place_of(error: Exception) -> str:
    """Where in the project it was raised, if the traceback knows."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    here = f"{Path.cwd()}{os.sep}"
    own = [
        one for one in frames if one.filename.startswith(here) and "-packages" not in one.filename
    ]
    return f" ({own[-1].filename.removeprefix(here)}:{own[-1].lineno})" if own else ""
