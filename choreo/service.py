"""A service as its author writes it: handlers whose signatures are the choreography."""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import UnionType
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, overload

from sqlalchemy import Connection, MetaData

from choreo.contract import NAME, Message
from choreo.errors import DefinitionError, describe
from choreo.signature import Context, MessageType, Signature, message_types, place, read

if TYPE_CHECKING:
    from choreo.conductor import Conductor

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
Q = ParamSpec("Q")
S = TypeVar("S")

Kind = Literal["step", "undo", "deadline"]
Role = Literal["step", "undo", "unless", "arm", "until"]
#: One message, or a union of several.
Messages = type[Message] | UnionType
#: The queue of such a service would be the journal; its announcements would be choreo's own.
_TAKEN = ("choreo", "journal")
#: Under this name, in place of a handler's, a service announces its dead letters.
_DEAD = "dead"


class Handler(Generic[P, R]):
    """A declared handler; calling it calls the plain function, so that a test needs no broker."""

    def __init__(
        self, service: Service, fn: Callable[P, R], signature: Signature, kind: Kind
    ) -> None:
        self.service = service
        self.fn = fn
        self.signature = signature
        self.kind: Kind = kind
        self.name: str = fn.__name__
        self.place: str = place(fn)
        self.summary: str = (inspect.getdoc(fn) or "").partition("\n")[0]
        self.source = f"/{service.name}/{self.name}"
        self.timeout_s: float | None = None
        #: The conductor that it was derived for, if it was.
        self.conductor: str | None = None
        self.__doc__ = fn.__doc__
        self.__wrapped__ = fn

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # noqa: D102
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.service.name}.{self.name}>"

    @property
    def is_async(self) -> bool:
        """Whether it calls the outside world."""
        return self.signature.is_async


class Step(Handler[P, R]):
    """What a service does in answer to a message, with what takes it back."""

    taken_back_by: Handler[..., Any] | None = None
    #: Why it needs no undo, if it needs none.
    final: str | None = None
    #: Events that, once seen in the flow, keep it from running.
    unless: tuple[MessageType, ...] = ()

    def undo(self, fn: Callable[Q, S]) -> Handler[Q, S]:
        """Declare what takes this step back.

        The first parameter is the cause (a union: several), the second the outcome that this
        step announced. It runs once ever for each outcome, whichever cause comes first.
        Raises DefinitionError if the outcome is nothing that the step publishes, or if a cause
        is about something else than the step.
        """
        if self.taken_back_by is not None or self.final is not None:
            already = "is final" if self.final else "has an undo already"
            raise DefinitionError(f"{place(fn)}: {self.service.name}.{self.name} {already}")
        signature = read(fn, undo=True)
        for outcome in signature.outcomes:
            if outcome not in self.signature.publishes:
                raise DefinitionError(
                    f"{place(fn)}: {fn.__name__} undoes {outcome.__name__}, which "
                    f"{self.name} does not publish: an undo takes its cause, then the outcome"
                )
        must_reach(signature.consumes, self.signature.consumes, f"{place(fn)}: {fn.__name__}")
        handler: Handler[Q, S] = Handler(self.service, fn, signature, "undo")
        self.service.enter(handler)
        self.taken_back_by = handler
        return handler


class Deadline(Handler[P, R]):
    """What a service does when a flow has not come to something in time."""

    within: timedelta
    until: tuple[MessageType, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that a service does with a message: a handler, and in which role."""

    role: Role
    handler: Handler[..., Any]
    #: The step that an undo or `unless` is about.
    step: Step[..., Any] | None = None

    @property
    def key(self) -> str:
        """What the inbox calls this route."""
        if self.role in ("step", "undo"):
            return self.handler.name
        return f"{self.handler.name}.{self.role}"


def must_reach(causes: Sequence[MessageType], begun_by: Sequence[MessageType], where: str) -> None:
    """Refuse causes that would never find what they are to end: a subject equals its like only."""
    for cause in causes:
        about = cause.__address__.subject
        for one in begun_by if about is not None else ():
            other = one.__address__.subject
            if other != about:
                raise DefinitionError(
                    f"{where}: {cause.__name__} is about {about!r} and {one.__name__} about "
                    f"{'nothing' if other is None else repr(other)}, so the one would never reach "
                    f"the other; give both the same subject, or {cause.__name__} none: it then "
                    "reaches the whole flow"
                )


AdapterFactory = Callable[[], AbstractAsyncContextManager[Any]]


class Service:
    """An independent process that reacts to messages and announces what it did.

    Raises DefinitionError if the name is not lower case letters, digits and underscores, or
    is one that choreo uses itself.
    """

    def __init__(self, name: str, *, tables: MetaData | None = None) -> None:
        """`name` is also its queue's and its database's; `tables` are created at start."""
        if not NAME.fullmatch(name):
            raise DefinitionError(f"service {name!r}: lower case letters, digits, underscores")
        if name in _TAKEN:
            raise DefinitionError(f"service {name!r}: choreo itself uses this name; take another")
        self.name = name
        self.tables = tables
        self.handlers: dict[str, Handler[..., Any]] = {}
        self.adapters: dict[type, AdapterFactory] = {}
        self.setups: list[Callable[[Connection], None]] = []
        #: By name; each has entered its handlers.
        self.conductors: dict[str, Conductor] = {}
        self._routes: dict[MessageType, tuple[Route, ...]] | None = None

    def __repr__(self) -> str:
        return f"<Service {self.name}>"

    @overload
    def on(self, fn: Callable[P, R], /) -> Step[P, R]: ...

    @overload
    def on(
        self,
        fn: None = None,
        /,
        *,
        final: str | None = None,
        unless: Messages | None = None,
        timeout: timedelta | None = None,
    ) -> Callable[[Callable[P, R]], Step[P, R]]: ...

    def on(
        self,
        fn: Callable[P, R] | None = None,
        /,
        *,
        final: str | None = None,
        unless: Messages | None = None,
        timeout: timedelta | None = None,
    ) -> Step[P, R] | Callable[[Callable[P, R]], Step[P, R]]:
        """Declare a step: its first parameter is what it reacts to, its return what it says.

        `final` says why it needs no undo; `unless` names events that, once seen in the flow,
        keep it from running; `timeout` limits one outside call (`async def` only).
        Raises DefinitionError if an annotation is missing or says nothing.
        """

        def declare(fn: Callable[P, R]) -> Step[P, R]:
            step: Step[P, R] = Step(self, fn, read(fn), "step")
            if final is not None and not (isinstance(final, str) and final.strip()):
                raise DefinitionError(f"{step.place}: {step.name}: 'final' must say why")
            step.final = final
            if unless is not None:
                where = f"{step.place}: {step.name}: unless"
                step.unless = message_types(unless, where)
                must_reach(step.unless, step.signature.consumes, where)
            if timeout is not None:
                if not step.is_async:
                    raise DefinitionError(
                        f"{step.place}: {step.name}: a time limit needs 'async def'"
                    )
                step.timeout_s = timeout.total_seconds()
            self.enter(step)
            return step

        return declare if fn is None else declare(fn)

    def deadline(
        self, armed_by: type[Message], *, within: timedelta, until: Messages
    ) -> Callable[[Callable[P, R]], Deadline[P, R]]:
        """Declare what to do when nothing in `until` was seen in time after `armed_by`.

        The handler gets the message that armed it. It survives restarts and runs once.
        Raises DefinitionError if the handler takes another message, or is `async def`.
        """

        def declare(fn: Callable[P, R]) -> Deadline[P, R]:
            signature = read(fn)
            where = f"{place(fn)}: {fn.__name__}"
            if signature.consumes != (armed_by,):
                raise DefinitionError(f"{where}: its first parameter must be {armed_by.__name__}")
            if signature.is_async:
                raise DefinitionError(f"{where}: a deadline decides and stores; make it 'def'")
            if not isinstance(within, timedelta) or within <= timedelta():
                raise DefinitionError(
                    f"{where}: 'within' must be a timedelta, and longer than nothing"
                )
            handler: Deadline[P, R] = Deadline(self, fn, signature, "deadline")
            handler.within = within
            handler.until = message_types(until, f"{where}: until")
            must_reach(handler.until, (armed_by,), f"{where}: until")
            self.enter(handler)
            return handler

        return declare

    def adapter(
        self, fn: Callable[[], AsyncGenerator[A]]
    ) -> Callable[[], AbstractAsyncContextManager[A]]:
        """Declare an adapter of the outside world: an async generator that yields it once.

        It is opened when the service starts and closed when it stops; `async def` handlers
        get it by its type.
        """
        try:
            hint = typing.get_type_hints(fn).get("return")
        except Exception as error:
            raise DefinitionError(
                f"{place(fn)}: cannot read its annotations: {describe(error)}"
            ) from error
        if not inspect.isasyncgenfunction(fn):
            raise DefinitionError(
                f"{place(fn)}: write it 'async def', and 'yield' the adapter once"
            )
        made = typing.get_args(hint)
        if not made or not isinstance(made[0], type):
            raise DefinitionError(f"{place(fn)}: annotate it '-> AsyncGenerator[YourAdapter]'")
        factory = asynccontextmanager(fn)
        self.adapters[made[0]] = factory
        return factory

    def setup(self, fn: Callable[[Connection], None]) -> Callable[[Connection], None]:
        """Declare what fills the service's tables; runs at each start, in one transaction."""
        self.setups.append(fn)
        return fn

    def enter(self, handler: Handler[..., Any]) -> None:
        """Add a handler; raises DefinitionError if its name is taken or its wants are unknown."""
        if handler.name == _DEAD:
            raise DefinitionError(
                f"{handler.place}: {self.name}.{handler.name}: choreo itself uses this name, for "
                "dead letters; take another"
            )
        taken = self.handlers.get(handler.name)
        if taken is not None:
            raise DefinitionError(
                f"{handler.place}: {self.name}.{handler.name} is already at {taken.place}"
            )
        for name, kind in handler.signature.wants.items():
            if kind not in (Connection, Context) and not handler.is_async:
                what = (
                    "it takes one message; a second one is the outcome of an undo, @STEP.undo"
                    if issubclass(kind, Message)
                    else "a 'def' handler may take a Connection and a Context; adapters need "
                    "'async def'"
                )
                raise DefinitionError(
                    f"{handler.place}: {handler.name}: parameter {name!r}: {what}"
                )
        self.handlers[handler.name] = handler
        self._routes = None

    @property
    def steps(self) -> list[Step[..., Any]]:
        """Every step, in the order of the source."""
        return [one for one in self.handlers.values() if isinstance(one, Step)]

    @property
    def deadlines(self) -> list[Deadline[..., Any]]:
        """Every deadline, in the order of the source."""
        return [one for one in self.handlers.values() if isinstance(one, Deadline)]

    @property
    def published(self) -> tuple[MessageType, ...]:
        """Everything that any handler may publish."""
        every = (kind for one in self.handlers.values() for kind in one.signature.publishes)
        return tuple(dict.fromkeys(every))

    def routes(self) -> dict[MessageType, tuple[Route, ...]]:
        """What the service does with each message that it subscribes to.

        A deadline is armed and ended by the service's own events in the transaction that
        returns them, so for those no subscription is needed.
        """
        if self._routes is None:
            self._routes = {kind: tuple(routes) for kind, routes in self._found_routes().items()}
        return self._routes

    def _found_routes(self) -> dict[MessageType, list[Route]]:
        found: dict[MessageType, list[Route]] = {}
        for step in self.steps:
            for kind in step.signature.consumes:
                found.setdefault(kind, []).append(Route("step", step))
            for kind in step.unless:
                found.setdefault(kind, []).append(Route("unless", step, step))
            if (undo := step.taken_back_by) is not None:
                for kind in undo.signature.consumes:
                    found.setdefault(kind, []).append(Route("undo", undo, step))
        own = set(self.published)
        for deadline in self.deadlines:
            if deadline.conductor is not None:
                continue  # it is armed by what its service sends, and ended by its run
            for kind in set(deadline.signature.consumes) - own:
                found.setdefault(kind, []).append(Route("arm", deadline))
            for kind in set(deadline.until) - own:
                found.setdefault(kind, []).append(Route("until", deadline))
        return found

    def run(self) -> None:
        """Run this service in this process until it is told to stop."""
        from choreo.process import main  # noqa: PLC0415 - declaring a service needs no runtime

        main(self)
