"""The base of every event and command: a pydantic model with an address on the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from choreo.errors import DefinitionError, UndecodableError

_TOPIC = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_contracts: dict[tuple[str, int], type[Message]] = {}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a contract travels."""

    topic: str
    version: int
    exchange: str
    #: Routing key and CloudEvents type: topic and version, never the class's name.
    wire_type: str
    #: The field that tells what the message is about, if any.
    subject: str | None


class Message(BaseModel):
    """What events and commands have in common; derive from `Event` or `Command` instead.

    A class without a `topic` is a base for others and cannot be published.
    Unknown fields are ignored, so that a service goes on when a newer publisher adds one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    __address__: ClassVar[Address]

    def __init_subclass__(
        cls,
        *,
        topic: str | None = None,
        version: int = 1,
        subject: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        if topic is None:
            if subject is not None or version != 1:
                raise DefinitionError(f"{cls.__qualname__}: version and subject need a topic")
            return
        if not _TOPIC.fullmatch(topic) or len(topic) > 200:
            raise DefinitionError(
                f"{cls.__module__}.{cls.__qualname__}: topic {topic!r} must read 'context.name', "
                "in lower case"
            )
        if version < 1:
            raise DefinitionError(f"{cls.__qualname__}: version {version} must be 1 or more")
        exchange = cls._exchange_of(topic.partition(".")[0])
        cls.__address__ = Address(topic, version, exchange, f"{topic}.v{version}", subject)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Enter the finished class in the register of contracts."""
        address = cls.__dict__.get("__address__")
        if address is None:
            return
        if address.subject is not None and address.subject not in cls.model_fields:
            raise DefinitionError(f"{cls.__qualname__}: no field {address.subject!r} (subject)")
        key = (address.topic, address.version)
        known = _contracts.get(key, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise DefinitionError(
                f"{cls.__module__}.{cls.__qualname__} and {known.__module__}.{known.__qualname__} "
                f"share topic {address.topic!r}, version {address.version}"
            )
        _contracts[key] = cls

    @classmethod
    def _exchange_of(cls, context: str) -> str:
        return context


class Event(Message):
    """Something that happened, announced to whoever listens; its name is in the past tense.

        class OrderPlaced(Event, topic="orders.placed", version=1, subject="order_id"):
            order_id: str

    gives exchange `orders` and routing key `orders.placed.v1`. `subject` names the field that
    tells what the event is about; undo reaches only steps of an equal subject.
    """


class Command(Message):
    """Something that one service is asked to do; its name is in the imperative.

    `class PlaceOrder(Command, topic="orders.place")` gives exchange `orders.commands` and
    routing key `orders.place.v1`, bound by the one service that handles it.
    """

    @classmethod
    def _exchange_of(cls, context: str) -> str:
        return f"{context}.commands"


M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """Write the message as its JSON body."""
    return message.__pydantic_serializer__.to_json(message)


def decode(contract: type[M], body: bytes) -> M:
    """Read a message of this contract from its JSON body.

    Raises UndecodableError, naming the fields, if the body is not such a message.
    """
    try:
        return contract.model_validate_json(body)
    except ValidationError as error:
        wire_type = contract.__address__.wire_type
        raise UndecodableError(f"not a {wire_type}: {explain(error)}") from error


def subject_of(message: Message) -> str | None:
    """What the message is about (CloudEvents `subject`), or None."""
    field = message.__address__.subject
    return None if field is None else str(getattr(message, field))


def contracts() -> Mapping[tuple[str, int], type[Message]]:
    """Every contract imported so far, by topic and version."""
    return MappingProxyType(_contracts)


def explain(error: ValidationError) -> str:
    """One line that names each bad field and what is wrong with it."""
    found = error.errors(include_url=False, include_context=False)
    places = [one["loc"] for one in found]

    def is_echo(place: tuple[int | str, ...]) -> bool:
        """A bad item makes its whole tuple look too short: that is no error of its own."""
        return any(other != place and other[: len(place)] == place for other in places)

    return "; ".join(
        f"{'.'.join(map(str, one['loc']))}: {one['msg']}" if one["loc"] else one["msg"]
        for one in found
        if not is_echo(one["loc"])
    )
