"""Contracts: where they travel, what they refuse, and that they outlive a rename."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from choreo import Command, DefinitionError, Event, UndeclaredResultError, outgoing
from choreo.contract import contracts, decode, encode, subject_of
from choreo.errors import UndecodableError, explain
from choreo.seams import Outgoing


class Ordered(Event, topic="unit.ordered", version=2, subject="order_id"):
    order_id: str
    many: int = 1


class Order(Command, topic="unit.order"):
    order_id: str


def test_an_event_travels_by_topic_and_version() -> None:
    address = Ordered.__address__
    assert (address.exchange, address.wire_type) == ("unit", "unit.ordered.v2")
    assert contracts()[("unit.ordered", 2)] is Ordered


def test_a_command_has_an_exchange_that_only_its_owner_hears() -> None:
    assert Order.__address__.exchange == "unit.commands"


def test_the_body_is_the_events_json_alone() -> None:
    event = Ordered(order_id="o-1")
    assert encode(event) == b'{"order_id":"o-1","many":1}'
    assert decode(Ordered, encode(event)) == event
    assert subject_of(event) == "o-1"


def test_an_unknown_field_is_let_pass() -> None:
    assert decode(Ordered, b'{"order_id": "o", "added_later": 1}') == Ordered(order_id="o")


@pytest.mark.parametrize(
    ("body", "named"),
    [(b"{", "Invalid JSON"), (b"[]", "object"), (b'{"many": "x"}', "order_id: Field required")],
)
def test_a_bad_body_is_refused_by_field(body: bytes, named: str) -> None:
    with pytest.raises(UndecodableError, match=named):
        decode(Ordered, body)


def test_two_contracts_may_not_share_a_topic_and_version() -> None:
    with pytest.raises(DefinitionError, match=r"Again and .*Ordered share topic 'unit.ordered'"):

        class Again(Event, topic="unit.ordered", version=2):
            pass


@pytest.mark.parametrize("topic", ["orders", "Orders.placed", "orders.", ".placed", "a b.c", ""])
def test_a_topic_reads_context_dot_name(topic: str) -> None:
    with pytest.raises(DefinitionError, match="topic"):
        type("Wrong", (Event,), {"__module__": __name__}, topic=topic)


def test_a_subject_must_be_a_field() -> None:
    with pytest.raises(DefinitionError, match="subject 'order' is none of its fields: order_id"):

        class Wrong(Event, topic="unit.wrong", subject="order"):
            order_id: str


def test_a_field_may_be_called_what_it_likes() -> None:
    class Awkward(Event, topic="unit.awkward", subject="subject"):
        topic: str
        version: int
        subject: str

    event = Awkward(topic="t", version=3, subject="s")
    assert subject_of(event) == "s"
    assert decode(Awkward, encode(event)) == event


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Piece(BaseModel):
    model_config = ConfigDict(frozen=True)

    kind: str = Field(alias="type")
    weight: float | None = None


class Everything(Event, topic="unit.everything"):
    ratio: float
    sender: str = Field(alias="from")
    colour: Annotated[Colour | None, Field(validation_alias=AliasChoices("color", "colour"))] = (
        Field(None, serialization_alias="colour")
    )
    at: datetime
    day: date
    pause: timedelta
    price: Decimal
    number: int
    identifier: UUID
    raw: bytes
    piece: Piece
    pieces: tuple[Piece, ...]
    pair: tuple[int, str]
    names: frozenset[str]
    by_name: dict[str, tuple[float, ...]]
    either: int | str | None


finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(codec="utf-8"))
pieces = st.builds(lambda kind, weight: Piece(type=kind, weight=weight), text, st.none() | finite)
zones = st.none() | st.integers(-23 * 60, 23 * 60).map(
    lambda minutes: timezone(timedelta(minutes=minutes))
)
everything = st.fixed_dictionaries(
    {
        "ratio": finite,
        "from": text,
        "color": st.none() | st.sampled_from(Colour),
        "at": st.datetimes(timezones=zones),
        "day": st.dates(),
        "pause": st.timedeltas(),
        "price": st.decimals(allow_nan=False, allow_infinity=False),
        "number": st.integers(),
        "identifier": st.uuids(),
        "raw": text.map(str.encode),
        "piece": pieces,
        "pieces": st.lists(pieces, max_size=3).map(tuple),
        "pair": st.tuples(st.integers(), text),
        "names": st.frozensets(text, max_size=3),
        "by_name": st.dictionaries(text, st.lists(finite, max_size=3).map(tuple), max_size=3),
        "either": st.none() | st.integers() | text,
    }
)


@given(everything)
def test_every_message_survives_its_own_json(values: dict[str, Any]) -> None:
    message = Everything(**values)
    assert decode(Everything, encode(message)) == message


class Loose(BaseModel):
    weight: float = 0.0


class Weighed(Event, topic="unit.weighed"):
    ratio: float = 0.0
    loose: Loose = Loose()
    text: str = ""


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_a_number_that_json_does_not_know_is_not_published(number: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        Weighed(ratio=number)
    with pytest.raises(UndecodableError, match="ratio: Input should be a finite number"):
        decode(Weighed, b'{"ratio": NaN}')
    says = "Weighed cannot be read again from its own JSON: loose.weight: Input should be"
    with pytest.raises(UndeclaredResultError, match=says):
        encode(Weighed(loose=Loose(weight=number)))


def test_what_cannot_be_written_is_not_published() -> None:
    with pytest.raises(UndeclaredResultError, match=r"Weighed cannot be written: .*surrogates"):
        encode(Weighed(text="\ud800"))
    with pytest.raises(UndeclaredResultError, match=r"Ordered cannot be read .*order_id: Field"):
        encode(Ordered.model_construct(many=1))  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "field",
    [
        lambda: Field(0, validation_alias="other"),
        lambda: Field(0, serialization_alias="other"),
        lambda: Field(0, exclude=True),
    ],
)
def test_a_field_is_read_as_it_is_written(field: Callable[[], Any]) -> None:
    with pytest.raises(DefinitionError, match="field 'many' is not read as it is written"):

        class Wrong(Event, topic="unit.wrong"):
            many: int = field()


class Item(BaseModel):
    name: str
    size: int


class Parcel(BaseModel):
    items: tuple[Item, ...] = ()


class Packed(Event, topic="unit.packed"):
    #: Named like the keys of a schema.
    type: tuple[Item, ...] = ()
    default: str = "x"
    marks: Annotated[dict[str, int], Field(min_length=2)] = Field(default={"a": 1, "b": 2})
    parcel: Parcel = Parcel()
    several: Annotated[list[int] | None, Field(min_length=3)] = None


@pytest.mark.parametrize("item", [b"0", b"{}", b"[0]"])
def test_a_body_full_of_errors_is_refused_in_no_time(item: bytes) -> None:
    items = b",".join([item] * (1024 * 1024 // (len(item) + 1)))
    started = time.process_time()
    with pytest.raises(UndecodableError, match=r"unit.packed.v1: type\.0") as caught:
        decode(Packed, b'{"type": [%b]}' % items)
    assert time.process_time() - started < 1
    assert len(str(caught.value)) < 500


def test_of_too_many_errors_only_the_number_is_told() -> None:
    items = b",".join([b"0"] * 50_000)
    with pytest.raises(UndecodableError, match="50000 errors, too many to name"):
        decode(Packed, b'{"parcel": {"items": [%b]}}' % items)


def test_the_first_errors_are_named_and_the_rest_counted() -> None:
    class Wide(BaseModel):
        a: int
        b: int
        c: int
        d: int
        e: int
        f: int
        g: int

    with pytest.raises(ValidationError) as caught:
        Wide.model_validate({})
    assert explain(caught.value) == (
        "a: Field required; b: Field required; c: Field required; d: Field required; "
        "e: Field required; and 2 more"
    )


def test_an_error_is_told_in_one_short_line_whatever_the_body_says() -> None:
    name = "\\u0000\\n" + "x" * 100_000
    with pytest.raises(UndecodableError) as caught:
        decode(Packed, f'{{"marks": {{"{name}": "x", "b": 1}}}}'.encode())
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_a_bad_item_is_the_only_error_of_its_series() -> None:
    with pytest.raises(UndecodableError, match=r"^[^;]* several\.1: [^;]*$"):
        decode(Packed, b'{"several": [1, "x", 3]}')


class Long(Event, topic="unit.long", subject="about"):
    about: str


def address(event: Event, limit: int | None = None) -> Outgoing:
    return outgoing.make(
        event, encode(event), identifier="1", time="2030-01-01T00:00:00Z", source="/unit/test",
        max_body_bytes=limit,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ("a\x00b", "holds a NUL character"),
        ("é" * 128, "is longer than 255 bytes"),
        ("", "is empty"),
    ],
)
def test_a_subject_that_cannot_travel_is_not_published(about: str, says: str) -> None:
    with pytest.raises(UndeclaredResultError, match=rf"the subject of Long \(about\) {says}"):
        address(Long(about=about))


def test_a_subject_of_half_a_character_is_not_published() -> None:
    event = Long(about="\udc80")
    with pytest.raises(UndeclaredResultError, match="lone surrogate"):
        outgoing.make(event, b"{}", identifier="1", time="", source="/unit/test")


def test_a_body_may_not_be_longer_than_a_reader_takes() -> None:
    event = Long(about="x" * 255)
    size = len(encode(event))
    assert address(event, size).envelope.subject == event.about
    assert address(event).body == encode(event)
    says = f"Long of {size} bytes is longer than CHOREO_MAX_BODY_BYTES, {size - 1}"
    with pytest.raises(UndeclaredResultError, match=says):
        address(event, size - 1)
