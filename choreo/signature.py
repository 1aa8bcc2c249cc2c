"""Reads from a handler's annotations what it consumes, what it publishes and what it wants."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Union

from sqlalchemy import Connection

from choreo.contract import Event, Message
from choreo.errors import DefinitionError, UndeclaredResultError, describe

MessageType = type[Message]


@dataclass(frozen=True, slots=True)
class Context:
    """What surrounds the message in hand; a handler that annotates a parameter with it gets it.

    A `def` handler takes its time from here, so that running it again gives the same result.
    """

    #: The flow (correlation id) that the message belongs to.
    flow: str
    message_id: str
    #: The wire type: topic and version.
    type: str
    #: Who published it: `/service/handler`, or what a stranger called itself.
    source: str
    #: When the message was published.
    time: datetime
    subject: str | None
    #: The id of the message that it answers; None starts a flow.
    causation: str | None
    #: Idempotency key for an outside call: equal for every attempt of the same work.
    key: str


@dataclass(frozen=True, slots=True)
class Several:
    """A tuple of messages that a return annotation announces."""

    #: What may stand at each place; just one place if it repeats.
    places: tuple[tuple[MessageType, ...], ...]
    repeats: bool

    def fits(self, returned: tuple[Any, ...]) -> bool:
        """Whether these messages are such a tuple."""
        if self.repeats:
            return all(type(one) in self.places[0] for one in returned)
        return len(returned) == len(self.places) and all(
            type(one) in kinds for one, kinds in zip(returned, self.places, strict=True)
        )

    def __str__(self) -> str:
        parts = [" | ".join(one.__name__ for one in kinds) for kinds in self.places] or ["()"]
        return f"tuple[{', '.join([*parts, '...'] if self.repeats else parts)}]"


@dataclass(frozen=True, slots=True)
class Returns:
    """What a handler may return: any one of these."""

    single: tuple[MessageType, ...]
    several: tuple[Several, ...]
    none: bool

    @property
    def kinds(self) -> tuple[MessageType, ...]:
        """Every message that may be among it."""
        many = (kind for one in self.several for kinds in one.places for kind in kinds)
        return tuple(dict.fromkeys((*self.single, *many)))

    @property
    def may_be_silent(self) -> bool:
        """Whether it may be nothing."""
        return self.none or any(one.repeats or not one.places for one in self.several)

    def results(self, returned: Any) -> tuple[Message, ...]:
        """What was returned, as a tuple of declared messages.

        Raises UndeclaredResultError for anything that the annotation does not announce.
        """
        if type(returned) in self.single:
            return (returned,)
        if returned is None and self.none:
            return ()
        if isinstance(returned, tuple) and any(one.fits(returned) for one in self.several):
            return returned
        raise UndeclaredResultError(f"returned {_shape(returned)}; declared {self}")

    def __str__(self) -> str:
        names = [one.__name__ for one in self.single] + [str(one) for one in self.several]
        return " | ".join([*names, "None"] if self.none else names)


@dataclass(frozen=True, slots=True)
class Signature:
    """A handler's annotations, understood."""

    consumes: tuple[MessageType, ...]
    returns: Returns
    #: For an undo: the outcomes of its step that it takes back.
    outcomes: tuple[MessageType, ...] = ()
    #: Parameter name to type, for all but the messages.
    wants: dict[str, type] = field(default_factory=dict)
    is_async: bool = False

    @property
    def publishes(self) -> tuple[MessageType, ...]:
        """Every message that it may publish."""
        return self.returns.kinds

    @property
    def may_be_silent(self) -> bool:
        """Whether it may publish nothing."""
        return self.returns.may_be_silent

    def results(self, returned: Any) -> tuple[Message, ...]:
        """What the handler returned, as a tuple of declared messages.

        Raises UndeclaredResultError for anything that the annotation does not announce.
        """
        return self.returns.results(returned)


def _shape(returned: object) -> str:
    if returned is None:
        return "None"
    if not isinstance(returned, tuple):
        return type(returned).__name__
    names = [type(one).__name__ for one in returned[:5]]
    return f"({', '.join(names if len(returned) <= 5 else [*names, '...'])})"


def place(fn: Callable[..., Any]) -> str:
    """Where the function stands, as `file:line`; raises DefinitionError if it is none."""
    if not (inspect.isfunction(fn) or inspect.ismethod(fn)):
        raise DefinitionError(f"{fn!r} is no function; declare one with 'def' or 'async def'")
    code = inspect.unwrap(fn).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def members(annotation: object) -> tuple[object, ...]:
    """The members of a union, or the annotation itself."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def message_types(annotation: object, where: str) -> tuple[MessageType, ...]:
    """The messages that an annotation names; raises DefinitionError if it is anything else."""
    found: list[MessageType] = []
    for one in members(annotation):
        if not (isinstance(one, type) and issubclass(one, Message)):
            raise DefinitionError(f"{where}: {one!r} is no event or command")
        if "__address__" not in one.__dict__:
            raise DefinitionError(f"{where}: {one.__name__} has no topic; name the exact contract")
        found.append(one)
    return tuple(found)


def hints_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """The function's parameters in order, then "return", each with its annotation.

    Raises DefinitionError if one is missing.
    """
    where = f"{place(fn)}: {fn.__name__}"
    try:
        hints = typing.get_type_hints(fn)
    except Exception as error:
        raise DefinitionError(f"{where}: cannot read its annotations: {describe(error)}") from error
    found: dict[str, Any] = {}
    for one in inspect.signature(fn).parameters.values():
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        if one.name not in hints:
            raise DefinitionError(
                f"{where}: parameter {one.name!r} has no annotation; that says what it is given"
            )
        found[one.name] = hints[one.name]
    if "return" not in hints:
        raise DefinitionError(f"{where}: say what it publishes, or '-> None'")
    return {**found, "return": hints["return"]}


def read(fn: Callable[..., Any], *, undo: bool = False) -> Signature:
    """Understand a handler's annotations.

    Raises DefinitionError if one is missing, or says nothing (`Any`, a bare `Event`).
    """
    where = f"{place(fn)}: {fn.__name__}"
    hints = hints_of(fn)
    parameters = [name for name in hints if name != "return"]
    messages = 2 if undo else 1
    needs = "its cause, then the outcome it undoes" if undo else "the message it handles"
    if len(parameters) < messages:
        raise DefinitionError(f"{where}: its first parameter must be {needs}")
    is_async = inspect.iscoroutinefunction(fn)
    wants = {name: hints[name] for name in parameters[messages:]}
    for name, kind in wants.items():
        if not isinstance(kind, type):
            raise DefinitionError(f"{where}: parameter {name!r}: {kind!r} is no class")
        if is_async and kind is Connection:
            raise DefinitionError(
                f"{where}: an 'async def' handler calls the outside world and takes no "
                "connection; make it two handlers and a command between them"
            )
    kinds = [
        message_types(hints[name], f"{where}: it must first take {needs}: parameter {name!r}")
        for name in parameters[:messages]
    ]
    return Signature(
        consumes=kinds[0],
        outcomes=kinds[1] if undo else (),
        returns=returns(hints["return"], where),
        wants=wants,
        is_async=is_async,
    )


def returns(annotation: object, where: str) -> Returns:
    """What a return annotation announces."""
    single: list[MessageType] = []
    several: list[Several] = []
    for one in members(annotation):
        if one in (Event, Message, Any):
            raise DefinitionError(f"{where}: name the exact events it publishes, not {one!r}")
        if typing.get_origin(one) is tuple:
            parts = [part for part in typing.get_args(one) if part is not Ellipsis]
            places = tuple(message_types(part, where) for part in parts)
            several.append(Several(places, repeats=Ellipsis in typing.get_args(one)))
        elif one is not type(None):
            single.extend(message_types(one, where))
    return Returns(tuple(single), tuple(several), none=type(None) in members(annotation))
