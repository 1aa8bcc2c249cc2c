"""The base of every event and command: a pydantic model with an address on the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, PydanticSerializationError

from choreo.errors import DefinitionError, UndeclaredResultError, UndecodableError, explain

#: What services, flows, ends and conductors may be called: it goes into queues, files and pictures.
NAME = re.compile(r"[a-z][a-z0-9_]*")
_TOPIC = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_SERIES = ("list", "tuple", "set", "frozenset", "dict")
#: Keys of a schema under which there is none, but perhaps what looks like one.
_NO_SCHEMA = ("metadata", "serialization", "default", "expected")
_contracts: dict[tuple[str, int], type[Message]] = {}


def _failing_fast(schema: Any) -> Any:
    """A copy of the schema, in which every series of items stops at the first bad one."""
    if isinstance(schema, list):
        return [_failing_fast(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {
        key: value if key in _NO_SCHEMA else _failing_fast(value) for key, value in schema.items()
    }
    return found | {"fail_fast": True} if schema.get("type") in _SERIES else found


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

    # JSON has no inf and no nan.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

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
            raise DefinitionError(
                f"{cls.__module__}.{cls.__qualname__}: its subject {address.subject!r} is none of "
                f"its fields: {', '.join(cls.model_fields) or 'it has none'}"
            )
        for name, field in cls.model_fields.items():
            read = field.validation_alias or name
            written = field.serialization_alias or name
            accepted = read.choices if isinstance(read, AliasChoices) else [read]
            if field.exclude or written not in accepted:
                raise DefinitionError(
                    f"{cls.__qualname__}: field {name!r} is not read as it is written; give it "
                    "one alias for both, and no exclude"
                )
        key = (address.topic, address.version)
        known = _contracts.get(key, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise DefinitionError(
                f"{cls.__module__}.{cls.__qualname__} and {known.__module__}.{known.__qualname__} "
                f"share topic {address.topic!r}, version {address.version}"
            )
        _contracts[key] = cls

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Stop at the first bad item of a series: one body must not make a million errors."""
        found: CoreSchema = _failing_fast(handler(source))
        return found

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
    """Write the message as its JSON body.

    Raises UndeclaredResultError, naming the fields, if nobody could read that body again.
    """
    kind = type(message)
    try:
        body = message.__pydantic_serializer__.to_json(message, by_alias=True)
        kind.__pydantic_validator__.validate_json(body)
    except ValidationError as error:
        raise UndeclaredResultError(
            f"{kind.__name__} cannot be read again from its own JSON: {explain(error)}"
        ) from error
    except PydanticSerializationError as error:
        raise UndeclaredResultError(f"{kind.__name__} cannot be written: {error}") from error
    return body


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
    value = None if field is None else getattr(message, field)
    return None if value is None else str(value)


def contract_of(wire_type: str) -> type[Message] | None:
    """The contract that travels under this wire type, if one of those imported so far does."""
    topic, _, version = wire_type.rpartition(".v")
    return _contracts.get((topic, int(version))) if version.isdecimal() else None


def contracts() -> Mapping[tuple[str, int], type[Message]]:
    """Every contract imported so far, by topic and version."""
    return MappingProxyType(_contracts)
