"""Messages as no client of ours would write them: bodies, headers, properties."""

from __future__ import annotations

import json
import struct
from datetime import datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from stranger import Raw, long, short, table
from theatre import Begun, Booked, Charge, Dropped, Held, Over, TripDied, TripFailed

from choreo import Command, Event
from choreo.contract import encode
from choreo.work import digest_of

#: So many batches, of so many messages each at most.
BATCHES, MOST = 50, 15
LONGEST_BODY = 50_000
#: What stands in every id that no other message has.
OWN = b"-own-"
#: In names, for the number of the batch: no other batch has their ids and flows.
BATCH = b"batch ####"
GOOD = Booked(trip="t", seat="good")
DIGEST = digest_of(GOOD.__address__.wire_type.encode() + encode(GOOD))
#: What no message may bring about.
TROUBLE = {
    "connection lost, opening it again", "cannot connect, trying again", "the service died",
    "a failure could not be recorded as it was", "not published, trying again",
    "database away, trying again",
}  # fmt: skip


class ReserveSeat(Command, topic="stage.reserve_seat", subject="seat"):
    seat: str


class Measured(Event, topic="stage.measured", subject="number"):
    """Something of every kind that JSON has, and some that it has not."""

    number: int
    ratio: float
    amount: Decimal
    at: datetime | None
    parts: dict[str, tuple[int | None, ...]]


class Recorded(Measured, topic="stage.recorded", subject="number"):
    """The same, once more."""


VALID: dict[type[Event | Command], dict[str, Any]] = {
    Booked: {"trip": "t", "seat": "1a"},
    Held: {"trip": "t", "seat": "1a"},
    Dropped: {"seat": "1a"},
    TripDied: {"trip": "t"},
    TripFailed: {"trip": "t"},
    Charge: {"trip": "t", "seat": "1a"},
    Begun: {"trip": "t"},
    Over: {"trip": "t"},
    ReserveSeat: {"seat": "1a"},
    Measured: {
        "number": 1, "ratio": 0.5, "amount": "1.10", "at": "2026-01-02T03:04:05Z",
        "parts": {"a": [1, None]},
    },
}  # fmt: skip

# Values.

ODD = st.sampled_from(
    [b"", b" ", b"\0", b"a\0b", b"\xff\xfe", b"\xed\xa0\x80", "ü€𐍈".encode(), b"%s{}'\"\n\x1b[2J",
     b"x" * 255, "ü".encode() * 127]
)  # fmt: skip
shorts = ODD | st.binary(max_size=40) | st.text(max_size=40).map(lambda one: one.encode()[:255])
longs = shorts | st.sampled_from([b"x" * 256, b"x" * 20_000])


def number(form: str) -> st.SearchStrategy[bytes]:
    """Any whole number of this form of `struct`, in bytes."""
    size = struct.calcsize(form)
    edges = st.sampled_from([bytes(size), b"\xff" * size, b"\x7f" + b"\xff" * (size - 1)])
    return edges | st.binary(min_size=size, max_size=size)


def a_float(form: str, width: Any) -> st.SearchStrategy[bytes]:
    # The broker itself refuses what is no number.
    finite = st.floats(width=width, allow_nan=False, allow_infinity=False)
    return finite.map(lambda one: struct.pack(form, one))


def typed(tag: bytes, raw: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return raw.map(lambda one: tag + one)


#: A value of each type that the broker takes in a table, its type before it.
plain: st.SearchStrategy[bytes] = st.one_of(
    typed(b"t", st.sampled_from([b"\0", b"\1", b"\2"])),
    *(typed(tag, number(form)) for tag, form in
      {b"b": "b", b"B": "B", b"s": "h", b"u": "H", b"I": "i", b"i": "I", b"l": "q",
       b"T": "Q"}.items()),
    typed(b"f", a_float(">f", 32)),
    typed(b"d", a_float(">d", 64)),
    typed(b"D", st.tuples(number("B"), number("I")).map(b"".join)),
    typed(b"S", longs.map(long)),
    typed(b"x", longs.map(long)),
    st.just(b"V"),
)  # fmt: skip
values = st.recursive(
    plain,
    lambda inner: (
        typed(b"A", st.lists(inner, max_size=4).map(lambda found: long(b"".join(found))))
        | typed(b"F", st.lists(st.tuples(shorts, inner), max_size=4).map(table))
    ),
    max_leaves=8,
)


def nested(deep: int) -> bytes:
    """A table in a table, and so on."""
    found = b"V"
    for _ in range(deep):
        found = b"F" + table([(b"a", found)])
    return found


def said(text: bytes) -> bytes:
    """A text as a header's value."""
    return b"S" + long(text)


# Bodies.

texts = st.sampled_from(["", "1a", "\0", "a\0b", "\ud800", "x" * 255, "x" * 256, "ü" * 200])
numbers = st.integers() | st.sampled_from([2**63, -(2**64), 10**300, 10**4299])
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | st.floats() | texts | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
STRANGE = [
    b"", b"\0", b"null", b"[]", b'""', b"NaN", b"{", b"{}{}", b"\xff\xfe", b"\xef\xbb\xbf{}",
    b"[" * 20_000, b"[" * 20_000 + b"]" * 20_000, b'{"a":' * 8000 + b"1" + b"}" * 8000,
    b'{"seat": "1a", "seat": "1b", "trip": 1, "trip": "t"}', b'{"seat": "1a", "trip": "t"} x',
    b'{"seat": "\xff", "trip": "t"}', b'{"seat": "\xed\xa0\x80", "trip": "t"}',
    b'{"seat": "1a", "trip": "t", "more": ' + b"[" * 190 + b"]" * 190 + b"}",
    b'{"seat": "1a", "trip": "t", "more": ' + b"9" * 40_000 + b"}",
    b'{"seat": "1a", "trip": "t", "more": 1e400}', b'{"seat": "1a", "trip": "t", "more": -NaN}',
    b'{"seat": "' + b"x" * LONGEST_BODY + b'"}', b"\x1f\x8b\x08" + bytes(50),
]  # fmt: skip


def changed(valid: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """A body with fields that are other, missing or too many."""
    others = st.dictionaries(st.sampled_from([*valid, "more"]), anything, min_size=1, max_size=3)
    lacking = st.sets(st.sampled_from([*valid]), max_size=1)
    return st.builds(
        lambda new, gone: written({k: v for k, v in (valid | new).items() if k not in gone}),
        others, lacking,
    )  # fmt: skip


def written(value: Any) -> bytes:
    """Its JSON, with the words for what is no number."""
    return json.dumps(value).encode()


# Messages.

HEADERS = ("id", "type", "source", "time", "subject", "specversion", "correlationid", "causationid",
           "traceparent", "commandtype", "lasteventid")  # fmt: skip
TIMES = [b"2026-01-02T03:04:05Z", b"2026-01-02", b"0001-01-01T00:00:00+23:59",
         b"9999-12-31T23:59:59-12:00", b"soon", b"2026-W01-1"]  # fmt: skip
WIRE_TYPES = [one.__address__.wire_type.encode() for one in VALID]
TYPES = [*WIRE_TYPES, b"stage.booked.v2", b"stage.booked.v0", b"stage.booked.v", b"stage.booked",
         b"stage.booked.v\xc2\xb2", b"stage.booked.v" + b"9" * 200, b"nobody.knows.v1"]  # fmt: skip
UNASKED = [b"x-death", b"x-delivery-count", b"choreo:unreadable", b"cloudEvents:", b"\xff\xfe", b""]


@st.composite
def messages(draw: st.DrawFn, place: int) -> Raw:
    """A message that is right but for up to three of its sides."""
    contract = draw(st.sampled_from(list(VALID)))
    odd = draw(st.sets(st.sampled_from(["id", "type", "flow", "headers", "body", "native"]),
                       max_size=3))  # fmt: skip
    names = st.sampled_from([BATCH + b"-%d" % one for one in range(3)])
    own = BATCH + OWN + b"%d" % place
    address = contract.__address__
    properties = {"message_id": short(own), "message_type": short(address.wire_type.encode())}
    headers: list[tuple[bytes, bytes]] = []
    if "id" in odd:
        properties["message_id"] = short(draw(names | shorts))
    if "type" in odd:
        properties["message_type"] = short(draw(st.sampled_from(TYPES) | shorts))
    if "flow" in odd:
        properties["correlation_id"] = short(draw(names | shorts))
        if draw(st.booleans()):
            headers.append((b"cloudEvents:causationid", said(draw(names | shorts))))
    if "headers" in odd:
        headers += draw(st.lists(_headers(names), max_size=6))
    if "native" in odd:
        properties |= draw(_natives())
        for lacking in draw(st.sets(st.sampled_from(["message_id", "message_type"]))):
            del properties[lacking]
    body = written(VALID[contract])
    if "body" in odd:
        body = draw(changed(VALID[contract]) | st.sampled_from(STRANGE) | st.binary(max_size=60))
    journalled = draw(st.booleans())
    exchange, key = (address.exchange, address.wire_type) if journalled else ("", "theatre")
    return Raw(exchange, key, body, properties, headers)


def _headers(names: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[bytes, bytes]]:
    known = st.builds(
        lambda prefix, name: prefix + name.encode(),
        st.sampled_from([b"cloudEvents:", b"cloudEvents_"]),
        st.sampled_from(HEADERS),
    )
    likely = names | st.sampled_from([*TIMES, *TYPES, b"1.0", b"/stage/test", b"//", b"00-x-y-01"])
    # The broker reads what lies deep as it comes; a client runs out of stack.
    deep = st.sampled_from([50, 400]).map(nested)
    return st.tuples(
        known | known | st.sampled_from(UNASKED) | shorts,
        likely.map(said) | longs.map(said) | values | deep,
    )


def _natives() -> st.SearchStrategy[dict[str, bytes]]:
    text, octet = shorts.map(short), number("B")
    return st.fixed_dictionaries(
        {},
        optional={
            "content_type": text, "content_encoding": text, "app_id": text, "correlation_id": text,
            "delivery_mode": octet, "priority": octet, "timestamp": number("Q"),
            # One that is over would be the stranger's own wish not to be heard.
            "expiration": st.just(short(b"3600000")),
        },
    )  # fmt: skip


@st.composite
def batches(draw: st.DrawFn) -> list[Raw]:
    """Messages that come together."""
    return [draw(messages(place)) for place in range(draw(st.integers(1, MOST)))]
