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
from choreo.errors import DefinitionError, UndeclaredResultError

MessageType = type[Message]


@dataclass(frozen=True, slots=True)
class Context:
    """What surrounds the message in hand; a handler that annotates a parameter with it gets it.

    A `def` handler takes its time from here, so that running it again gives the same result.
    """

    #: The flow (correlation id) that the message belongs to.
    flow: str
    message_id: str
    #: When the message was published.
    time: datetime
    subject: str | None
    #: Idempotency key for an outside call: equal for every attempt of the same work.
    key: str


@dataclass(frozen=True, slots=True)
class Signature:
    """A handler's annotations, understood."""

    consumes: tuple[MessageType, ...]
    publishes: tuple[MessageType, ...]
    #: For an undo: the outcomes of its step that it takes back.
    outcomes: tuple[MessageType, ...] = ()
    #: Parameter name to type, for all but the messages.
    wants: dict[str, type] = field(default_factory=dict)
    may_be_silent: bool = False
    is_async: bool = False

    def results(self, returned: object) -> tuple[Message, ...]:
        """What the handler returned, as a tuple of declared messages.

        Raises UndeclaredResultError for anything that the annotation does not announce.
        """
        if returned is None:
            if self.may_be_silent:
                return ()
            raise UndeclaredResultError(f"returned None; declared {self._declared()}")
        many = returned if isinstance(returned, tuple) else (returned,)
        for one in many:
            if type(one) not in self.publishes:
                raise UndeclaredResultError(
                    f"returned {type(one).__name__}; declared {self._declared()}"
                )
        return many

    def _declared(self) -> str:
        return " | ".join(one.__name__ for one in self.publishes) or "None"


def place(fn: Callable[..., Any]) -> str:
    """Where the function stands, as `file:line`."""
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


def read(fn: Callable[..., Any], *, undo: bool = False) -> Signature:
    """Understand a handler's annotations.

    Raises DefinitionError if one is missing, or says nothing (`Any`, a bare `Event`).
    """
    where = f"{place(fn)}: {fn.__name__}"
    try:
        hints = typing.get_type_hints(fn)
    except NameError as error:
        raise DefinitionError(f"{where}: cannot read its annotations: {error}") from error
    parameters = [
        one
        for one in inspect.signature(fn).parameters.values()
        if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    for one in parameters:
        if one.name not in hints:
            raise DefinitionError(f"{where}: parameter {one.name!r} has no annotation")
    messages = 2 if undo else 1
    if len(parameters) < messages:
        needs = "its cause and the outcome it undoes" if undo else "the message it handles"
        raise DefinitionError(f"{where}: its first parameter must be {needs}")
    if "return" not in hints:
        raise DefinitionError(f"{where}: say what it publishes, or '-> None'")
    publishes, silent = _published(hints["return"], where)
    is_async = inspect.iscoroutinefunction(fn)
    wants = {one.name: hints[one.name] for one in parameters[messages:]}
    for name, kind in wants.items():
        if not isinstance(kind, type):
            raise DefinitionError(f"{where}: parameter {name!r}: {kind!r} is no class")
        if is_async and kind is Connection:
            raise DefinitionError(
                f"{where}: an 'async def' handler calls the outside world and takes no "
                "connection; make it two handlers and a command between them"
            )
    return Signature(
        consumes=message_types(hints[parameters[0].name], where),
        outcomes=message_types(hints[parameters[1].name], where) if undo else (),
        publishes=publishes,
        wants=wants,
        may_be_silent=silent,
        is_async=is_async,
    )


def _published(annotation: object, where: str) -> tuple[tuple[MessageType, ...], bool]:
    """What a return annotation announces, and whether it may announce nothing."""
    found: list[MessageType] = []
    silent = False
    for one in members(annotation):
        if one is type(None):
            silent = True
        elif typing.get_origin(one) is tuple:
            parts = typing.get_args(one)
            silent = silent or Ellipsis in parts
            for part in parts:
                if part is not Ellipsis:
                    found.extend(message_types(part, where))
        elif one in (Event, Message, Any):
            raise DefinitionError(f"{where}: name the exact events it publishes, not {one!r}")
        else:
            found.extend(message_types(one, where))
    return tuple(dict.fromkeys(found)), silent
