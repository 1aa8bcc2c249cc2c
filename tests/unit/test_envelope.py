"""The envelope: CloudEvents in AMQP headers, there and back, and from strangers."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo import Command, Event
from choreo.contract import Message, encode
from choreo.dead import DeadLettered
from choreo.envelope import Envelope, read, timestamp, traceparent
from choreo.errors import UndecodableError
from choreo.identity import Ids
from choreo.outgoing import make
from choreo.seams import Delivery


def delivery(**given: Any) -> Delivery:
    known: dict[str, Any] = {
        "body": b"{}", "message_id": None, "wire_type": None, "correlation_id": None,
        "app_id": None, "headers": {}, "properties": {}, "exchange": "", "routing_key": "",
        "redelivered": False, "tag": 1,
    }  # fmt: skip
    return Delivery(**known | given)


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60)


@given(names, names, names, *[st.none() | names] * 4)
def test_an_envelope_survives_its_headers(  # noqa: PLR0917 - an envelope has many parts
    identifier: str,
    source: str,
    flow: str,
    causation: str | None,
    subject: str | None,
    command: str | None,
    last_event: str | None,
) -> None:
    sent = Envelope(
        id=identifier,
        type="orders.placed.v1",
        source=source,
        time="2026-01-02T03:04:05.678Z",
        flow=flow if causation else identifier,
        causation=causation,
        subject=subject,
        traceparent=traceparent(flow, identifier),
        command=command,
        last_event=last_event,
    )
    got = read(delivery(message_id=identifier, wire_type=sent.type, headers=sent.headers()), 0.0)
    assert got == sent


def test_a_stranger_needs_only_an_id_and_a_type() -> None:
    got = read(delivery(message_id="m", wire_type="t.t.v1", correlation_id="mine"), 86400.0)
    assert (got.id, got.flow, got.causation, got.source) == ("m", "m", None, "unknown")
    assert got.time == "1970-01-02T00:00:00.000Z"
    assert got.foreign_correlation == "mine"


def test_either_prefix_of_cloudevents_is_read() -> None:
    headers = {"cloudEvents_id": "m", "cloudEvents_type": "t.t.v1", "cloudEvents_subject": "s"}
    got = read(delivery(headers=headers), 0.0)
    assert (got.id, got.type, got.subject) == ("m", "t.t.v1", "s")


@given(st.dictionaries(names, st.none() | st.integers() | st.binary() | names | st.lists(names)))
def test_headers_of_any_kind_are_read_or_refused(headers: dict[str, Any]) -> None:
    odd = {f"cloudEvents:{name}": value for name, value in headers.items()} | headers
    with suppress(UndecodableError):
        assert read(delivery(message_id="m", wire_type="t", headers=odd), 0.0).id == "m"


@pytest.mark.parametrize(
    "time",
    [
        "soon",
        "2026-13-01T00:00:00Z",
        "1",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "9999-12-31T23:59:59.999999Z",
    ],
)
def test_a_time_that_is_none_is_refused(time: str) -> None:
    with pytest.raises(UndecodableError, match="RFC 3339"):
        read(delivery(message_id="m", wire_type="t", headers={"cloudEvents:time": time}), 0.0)


def test_a_flow_is_a_trace() -> None:
    flow, first, second = (f"0190a1b2-c3d4-7e5f-8a9b-{n:012x}" for n in (1, 2, 3))
    parent = traceparent(flow, first)
    assert parent == f"00-{flow.replace('-', '')}-8a9b{2:012x}-01"
    assert traceparent("another", second, parent) == f"00-{flow.replace('-', '')}-8a9b{3:012x}-01"


class Order(Command, topic="envelope.order", version=2):
    pass


class Ordered(Event, topic="envelope.ordered"):
    pass


ORDER, ORDERED = Order.__address__.wire_type, Ordered.__address__.wire_type


def chain(*kinds: type[Message]) -> list[Envelope]:
    """Messages of these kinds, each answering the one before; their ids count from 0."""
    found: list[Envelope] = []
    for number, kind in enumerate(kinds):
        message, cause = kind(), found[-1] if found else None
        sent = make(
            message, encode(message), identifier=str(number), time="2026-01-02T03:04:05Z",
            source="/unit/test", cause=cause,
        ).envelope  # fmt: skip
        # It goes over the wire to whoever answers it.
        found.append(
            read(
                delivery(
                    message_id=sent.id,
                    wire_type=sent.type,
                    correlation_id=sent.flow,
                    headers=sent.headers(),
                ),
                0.0,
            )
        )
    return found


def asked(*kinds: type[Message]) -> list[tuple[str | None, str | None]]:
    return [(one.command, one.last_event) for one in chain(*kinds)]


def test_an_answer_to_a_command_names_it_and_the_last_event_before_it() -> None:
    assert asked(Ordered, Order, Ordered) == [(None, None), (None, None), (ORDER, "0")]
    assert asked(Order, Ordered, Order, Order, Order, Ordered, Ordered) == [
        (None, None),
        (None, None),
        (None, None),
        (ORDER, "1"),
        (ORDER, "1"),
        (ORDER, "1"),
        (None, None),
    ]


def test_the_first_command_is_known_by_the_name_of_its_flow() -> None:
    assert asked(Order, Order, Ordered) == [(None, None), (None, None), (ORDER, "0")]
    headers = chain(Order, Ordered)[1].headers()
    assert not headers.keys() & {"cloudEvents:commandtype", "cloudEvents:lasteventid"}


@pytest.mark.parametrize("wire_type", ["", "nobody.knows.v1", "envelope.order.v²", ".v", "x" * 255])
def test_a_cause_of_a_type_that_nobody_knows_is_no_command(wire_type: str) -> None:
    letter = DeadLettered(
        letter_id="l", service="s", handler="", message_id=None, type=None, reason="", attempts=1
    )
    cause = Envelope("m", wire_type, "/x/y", "2026-01-02T03:04:05Z", "f", causation="f")
    made = make(letter, b"{}", identifier="1", time=cause.time, source="/unit/test", cause=cause)
    assert (made.envelope.command, made.envelope.last_event) == (None, None)


class SteppingClock:
    def __init__(self, times: list[float]) -> None:
        self.times = times

    def now(self) -> float:
        return self.times.pop(0) if len(self.times) > 1 else self.times[0]


@given(st.lists(st.floats(1e9, 4e9), min_size=1, max_size=50))
def test_ids_grow_even_when_the_clock_steps_back(times: list[float]) -> None:
    ids = Ids(SteppingClock(times), Random(1))
    made = [ids.next() for _ in range(60)]
    assert made == sorted(set(made))
    assert all(UUID(one).version == 7 and UUID(one).variant == RFC_4122 for one in made)


def test_an_id_tells_when_it_was_made() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC).timestamp()
    made = UUID(Ids(SteppingClock([now]), Random(1)).next())
    assert made.int >> 80 == int(now * 1000)
    assert timestamp(now) == "2026-01-02T00:00:00.000Z"
