"""Contracts: where they travel, what they refuse, and that they outlive a rename."""

from __future__ import annotations

import pytest

from choreo import Command, DefinitionError, Event
from choreo.contract import contracts, decode, encode, subject_of
from choreo.errors import UndecodableError


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
    with pytest.raises(DefinitionError, match="no field 'order'"):

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
