"""The wire: how our own messages go onto it, and whatever a stranger sent comes off it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pamqp.frame
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from choreo.envelope import UNREADABLE, Envelope, read
from choreo.errors import UndecodableError
from choreo.rabbitmq.frames import frames
from choreo.record import delivery_from, delivery_of, properties_of
from choreo.seams import Delivery, Outgoing
from choreo.store.memory import envelope_json

ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


def delivery(**given: Any) -> Delivery:
    known: dict[str, Any] = {
        "body": b"{}", "message_id": "m", "wire_type": "t.t.v1", "correlation_id": None,
        "app_id": None, "headers": {}, "properties": {}, "exchange": "", "routing_key": "",
        "redelivered": False, "tag": 1,
    }  # fmt: skip
    return Delivery(**known | given)


def unmarshalled(data: bytes) -> list[Any]:
    found = []
    while data:
        size, _, frame = pamqp.frame.unmarshal(data)
        found.append(frame)
        data = data[size:]
    return found


envelopes = st.builds(
    Envelope,
    id=ids,
    type=ids,
    source=ids.map(lambda name: f"/{name.replace('/', '_')}/handler"),
    time=st.just("2026-01-02T03:04:05.678Z"),
    flow=ids,
    causation=st.none() | ids,
    subject=st.none() | ids,
    traceparent=st.just("00-1-2-01") | st.just(""),
    command=st.none() | ids,
    last_event=st.none() | ids,
)


@given(envelopes, st.binary(), st.integers(0, 2**32 - 1))
@example(Envelope("i" * 255, "t", "/s/h", "", "f", "", ""), b"", 0)
def test_frames_are_what_pamqp_would_have_made(envelope: Envelope, body: bytes, now: int) -> None:
    message = Outgoing("exchange", "key", envelope, body, mandatory=True)
    publish, header, *bodies = unmarshalled(b"".join(frames(message, 1, 10, now + 0.9)))
    assert (publish.exchange, publish.routing_key, publish.mandatory) == ("exchange", "key", True)
    assert b"".join(one.value for one in bodies) == body
    plain = Basic.Properties(
        content_type="application/json", headers=dict(envelope.headers()), delivery_mode=2,
        correlation_id=envelope.flow, message_id=envelope.id, message_type=envelope.type,
        app_id=envelope.service, timestamp=datetime.fromtimestamp(now, UTC),
    )  # fmt: skip
    expected = ContentHeader(body_size=len(body), properties=plain)
    [read_back] = unmarshalled(pamqp.frame.marshal(expected, 1))
    assert header.properties == read_back.properties == plain
    assert header.body_size == read_back.body_size == len(body)


@given(envelopes)
def test_an_envelope_survives_the_outbox(envelope: Envelope) -> None:
    kept = json.loads(envelope_json(envelope))
    assert Envelope(**kept) == envelope
    assert None not in kept.values()


def test_what_is_due_keeps_which_command_was_answered() -> None:
    sent = Envelope(
        "m", "t.t.v1", "/s/h", "2026-01-02T03:04:05Z", "f", causation="c", traceparent="00-1-2-01",
        command="t.ask.v1", last_event="e",
    )  # fmt: skip
    due = delivery_from(properties_of(delivery_of(Outgoing("t", "t.t.v1", sent, b""))), b"")
    assert read(due, 0.0) == sent


def test_a_name_that_does_not_fit_is_refused() -> None:
    message = Outgoing("exchange", "key", Envelope("i" * 256, "t", "/s/h", "", "f"), b"")
    with pytest.raises(ValueError, match="over 255 bytes"):
        list(frames(message, 1, 10, 0))


def properties(flag: str, value: bytes) -> Basic.Properties:
    """What pamqp reads when a stranger sends one property."""
    start = ContentHeader(body_size=0).marshal()[:12]
    data = start + Basic.Properties.flags[flag].to_bytes(2, "big") + value
    frame = b"\x02\x00\x01" + len(data).to_bytes(4, "big") + data + b"\xce"
    [header] = unmarshalled(frame)
    found: Basic.Properties = header.properties
    return found


def table(entries: bytes) -> bytes:
    return len(entries).to_bytes(4, "big") + entries


def nested(depth: int) -> bytes:
    found = table(b"")
    for _ in range(depth):
        found = table(b"\x01nF" + found)
    return found


def test_properties_that_are_no_text_are_read_and_refused() -> None:
    odd = properties("message_id", b"\x03a\xff\xfe").message_id
    assert odd is not None
    assert odd.encode(errors="surrogateescape") == b"a\xff\xfe"
    for name in ("message_id", "wire_type", "correlation_id", "app_id"):
        with pytest.raises(UndecodableError, match="is no text"):
            read(delivery(**{name: odd}), 0.0)
    assert delivery_from(properties_of(delivery(message_id=odd)), b"").message_id == odd


@pytest.mark.parametrize(
    "headers",
    [table(b"\x02a\xffS\x00\x00\x00\x01x"), nested(3000), table(b"\x01a?")],
    ids=["a name that is no text", "nested too deep", "an unknown kind of value"],
)
def test_headers_that_cannot_be_read_are_kept_and_refused(headers: bytes) -> None:
    found = properties("headers", headers).headers
    assert found == {UNREADABLE: headers[4:]}
    with pytest.raises(UndecodableError, match="headers cannot be read"):
        read(delivery(headers=found), 0.0)


def test_a_timestamp_that_is_none_is_read_and_refused() -> None:
    microseconds = 1_767_323_045_000_000
    raw = microseconds.to_bytes(8, "big")
    sent: Any = properties("timestamp", raw).timestamp
    assert sent == microseconds
    assert properties("headers", table(b"\x01aT" + raw)).headers == {"a": microseconds}
    with pytest.raises(UndecodableError, match="no time in seconds"):
        read(delivery(properties={"timestamp": sent}), 0.0)


def test_the_native_timestamp_is_the_time_where_no_header_is_finer() -> None:
    sent = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    came = delivery(properties={"timestamp": sent})
    retried = delivery_from(properties_of(came), came.body)
    assert read(came, 1.0).time == read(retried, 2.0).time == "2026-01-02T03:04:05.000Z"
    finer = delivery(
        properties={"timestamp": sent}, headers={"cloudEvents:time": "2026-01-02T03:04:04.999Z"}
    )
    assert read(finer, 1.0).time == "2026-01-02T03:04:04.999Z"
