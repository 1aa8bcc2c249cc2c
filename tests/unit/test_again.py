"""A delivery that is published once more goes as it came, and to one queue alone."""

from __future__ import annotations

from typing import Any

import pamqp.frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from choreo.rabbitmq.again import frames
from choreo.seams import Delivery


def written(**given: Any) -> list[Any]:
    """The frames of a delivery, as a broker would read them."""
    plain: dict[str, Any] = {
        "body": b"12345", "message_id": "m-1", "wire_type": "a.b.v1", "correlation_id": None,
        "app_id": None, "headers": {}, "properties": {}, "exchange": "a", "routing_key": "a.b.v1",
        "redelivered": True, "tag": 3,
    }  # fmt: skip
    made = frames("ledger", Delivery(**(plain | given)), 3)
    return [pamqp.frame.unmarshal(pamqp.frame.marshal(one, 1))[2] for one in made]


def test_goes_to_one_queue_and_must_reach_it() -> None:
    publish, header, *_ = written(headers={"CC": ["other"], "BCC": ["hidden"], "kept": "x"})
    assert isinstance(publish, Basic.Publish)
    assert (publish.exchange, publish.routing_key, publish.mandatory) == ("", "ledger", True)
    assert isinstance(header, ContentHeader)
    assert header.properties.headers == {"kept": "x"}


def test_a_long_body_goes_in_pieces() -> None:
    _, header, *pieces = written()
    assert header.body_size == 5
    assert [one.value for one in pieces if isinstance(one, ContentBody)] == [b"123", b"45"]
    assert len(written(body=b"")) == 2


def test_what_it_did_not_say_is_not_made_up() -> None:
    _, header, *_ = written(message_id=None, properties={"priority": 3, "user_id": "stranger"})
    said = {name: value for name, value in header.properties if value}
    # The broker takes a user's name from that user alone.
    assert said == {"message_type": "a.b.v1", "priority": 3}
