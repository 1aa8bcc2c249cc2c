"""What a project gives a rehearsal: the outside world, what customers do, and what must be true."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from choreo import discovery
from choreo.contract import Message
from choreo.errors import CannotRunError, DefinitionError
from choreo.flow import Flow
from choreo.service import Service
from choreo.signature import place

if TYPE_CHECKING:
    from choreo.rehearse.outside import Outside
    from choreo.rehearse.world import World

#: What a customer does: yields the messages that start flows, one or several at once, and is given
#: for each the event that its flow ended with.
Story = Generator[Message | tuple[Message, ...], Any, None]
F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)

_STORY, _INVARIANT = "__choreo_story__", "__choreo_invariant__"
_STANDS_FOR, _FAILS = "__choreo_stands_for__", "__choreo_fails__"
#: Makes what an outside call fails with, of what is to be said.
Failing = Callable[[str], Exception]


def start(*flows: str) -> Callable[[F], F]:
    """Declare a story: a generator function that starts these flows, called with a seeded `Random`.

        @start("reservation", "trip")
        def book(random: Random) -> Story:
            end = yield ReserveTrip(...)
            if isinstance(end, TripReserved):
                yield ConfirmReservation(trip_id=end.trip_id, card=random.choice(CARDS))

    It may draw on nothing but `random`, so that a seed tells the same story everywhere.
    Raises DefinitionError if it names no flow, or is no generator function.
    """

    def declare(fn: F) -> F:
        if not inspect.isgeneratorfunction(fn):
            raise DefinitionError(
                f"{place(fn)}: {fn.__name__}: a story yields its messages: it has no 'yield'"
            )
        setattr(fn, _STORY, flows)
        return fn

    if not flows or not all(isinstance(one, str) for one in flows):
        raise DefinitionError("@start names the flows that the story starts: @start('order')")
    return declare


def invariant(fn: F) -> F:
    """Declare what must be true once all has settled: a generator function of the `World`.

        @invariant
        def stock(world: World) -> Iterator[str]:
            for row in world.rows("inventory", shelves):
                if row.on_hand < 0:
                    yield f"{row.sku}: {row.on_hand} on hand"

    Whatever it yields is wrong. Raises DefinitionError if it is no generator function.
    """
    if not inspect.isgeneratorfunction(fn):
        raise DefinitionError(
            f"{place(fn)}: {fn.__name__}: an invariant yields what is wrong: it has no 'yield'"
        )
    setattr(fn, _INVARIANT, True)
    return fn


def stand_in(
    adapter: type, *, fails: Failing | Sequence[Failing] = ConnectionError
) -> Callable[[C], C]:
    """Declare a class that stands in for an adapter of the services, made once in each schedule.

        @stand_in(Gateway, fails=(GatewayError, aiohttp.ClientConnectionError))
        class Bank:
            def __init__(self, outside: Outside) -> None: ...

    `adapter` is what the services name as the type: the class has the methods that they call.
    `fails`: what the adapter raises where a call fails or its answer is lost, exception types or
    whatever makes one of a text; schedules raise each of them, before and after it has acted.
    Raises DefinitionError if it lacks one of them.
    """

    def declare(made: C) -> C:
        wanted = {
            name
            for name, one in vars(adapter).items()
            if inspect.iscoroutinefunction(one) and not name.startswith("_")
        }
        if missing := sorted(name for name in wanted if not hasattr(made, name)):
            raise DefinitionError(
                f"{made.__module__}.{made.__qualname__} stands in for {adapter.__name__}, and has "
                f"no {', '.join(missing)}"
            )
        setattr(made, _STANDS_FOR, adapter)
        setattr(made, _FAILS, (fails,) if callable(fails) else tuple(fails))
        return made

    return declare


@dataclass(frozen=True, slots=True)
class Teller:
    """A story that can be told."""

    name: str
    flows: tuple[str, ...]
    tell: Callable[[Random], Story]


@dataclass(frozen=True, slots=True)
class Project:
    """Everything of a project that a rehearsal needs."""

    services: Sequence[Service]
    flows: Sequence[Flow]
    stories: Sequence[Teller]
    stand_ins: Mapping[type, Callable[[Outside], Any]]
    invariants: Sequence[Callable[[World], Iterator[str]]]
    #: The names of the flows that should be rehearsed, and that no story starts.
    untold: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raises CannotRunError where something is missing that no schedule can do without."""
        for story in self.stories:
            try:
                self._named(story.flows)
            except CannotRunError as error:
                raise CannotRunError(
                    f"story {story.name!r}: {error} (contracts/flows.py declares them)"
                ) from None
        for service in self.services:
            for kind in service.adapters:
                if kind not in self.stand_ins:
                    raise CannotRunError(
                        f"{service.name} calls {kind.__module__}.{kind.__name__}, and nothing "
                        f"stands in for it: declare a class with @stand_in({kind.__name__})"
                    )
        if not self.stories:
            raise CannotRunError(
                "nothing starts a flow: declare a story, a generator function with @start('flow')"
            )

    def fails(self, adapter: type) -> Sequence[Failing]:
        """What calls of this adapter fail with."""
        made: tuple[Failing, ...] = getattr(self.stand_ins[adapter], _FAILS)
        return made

    def only(self, flows: Iterable[str]) -> Project:
        """The same with the stories of these flows alone; raises CannotRunError if it has none."""
        wanted = self._named(flows)
        stories = [one for one in self.stories if wanted.intersection(one.flows)]
        if not stories:
            raise CannotRunError(f"no story starts {', '.join(sorted(wanted))}: see @start")
        return Project(self.services, self.flows, stories, self.stand_ins, self.invariants)

    def _named(self, flows: Iterable[str]) -> set[str]:
        """These names of flows; raises CannotRunError if one is of none."""
        known = {flow.name: flow for flow in self.flows}
        return {discovery.named("flow", one, known).name for one in flows}


def project(services: Sequence[Service], flows: Sequence[Flow], *modules: ModuleType) -> Project:
    """Put a project together from its services, its flows and what these modules declare.

    Raises DefinitionError if two of them have one name, or stand in for one adapter.
    """
    found: dict[str, Any] = {}
    for module in modules:
        for name, one in vars(module).items():
            if getattr(one, "__module__", None) != module.__name__ or not _is_declared(one):
                continue
            if (other := found.setdefault(name, one)) is not one:
                raise DefinitionError(
                    f"{_where(other)} and {_where(one)} have one name: call one of them otherwise"
                )
    stand_ins: dict[type, Callable[[Outside], Any]] = {}
    for one in found.values():
        adapter = getattr(one, "__dict__", {}).get(_STANDS_FOR)
        if adapter is None:
            continue
        if (other := stand_ins.setdefault(adapter, one)) is not one:
            raise DefinitionError(
                f"{_where(other)} and {_where(one)} both stand in for {adapter.__name__}"
            )
    stories = [
        Teller(name, getattr(one, _STORY), one)
        for name, one in found.items()
        if hasattr(one, _STORY)
    ]
    told = {name for story in stories for name in story.flows}
    return Project(
        services=services,
        flows=flows,
        stories=stories,
        stand_ins=stand_ins,
        invariants=[one for one in found.values() if getattr(one, _INVARIANT, False) is True],
        untold=[flow.name for flow in flows if flow.name not in told],
    )


def modules_of(name: str) -> list[ModuleType]:
    """A module, with all that is in it if it is a package.

    Raises CannotRunError if one of them cannot be imported.
    """
    found = discovery.imported(name, ", or mend rehearsals in pyproject.toml ([tool.choreo])")
    members = sorted(one.name for one in pkgutil.iter_modules(getattr(found, "__path__", ())))
    return [found, *(deep for one in members for deep in modules_of(f"{name}.{one}"))]


def _is_declared(one: object) -> bool:
    own = getattr(one, "__dict__", {})
    return any(mark in own for mark in (_STORY, _INVARIANT, _STANDS_FOR))


def _where(one: Any) -> str:
    return f"{one.__module__}.{one.__qualname__}"
