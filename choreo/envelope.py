"""What a message says about itself: CloudEvents 1.0 attributes as AMQP headers (binary mode).

Sources: CloudEvents 1.0.2, "AMQP Protocol Binding"; W3C Trace Context, level 1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from choreo.errors import UndecodableError

PREFIX = "cloudEvents:"
#: The only header of a message whose headers are no AMQP table that can be read: their bytes.
UNREADABLE = "choreo:unreadable"
#: Bytes of a short string in AMQP 0-9-1, and so of every name and id.
LONGEST = 255
_HEX32 = re.compile(r"[0-9a-f]{32}")
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Envelope:
    """Everything about a message but its body."""

    id: str
    #: The wire type: topic and version.
    type: str
    #: `/service/handler`, or what a stranger called itself.
    source: str
    #: RFC 3339.
    time: str
    #: The correlation id that all messages of one flow share: the id of its first message.
    flow: str
    #: The id of the message that this one answers; None starts a flow.
    causation: str | None = None
    subject: str | None = None
    traceparent: str = ""
    #: A correlation id that a stranger gave to the first message; never used as a key.
    foreign_correlation: str | None = None
    #: The wire type of the command that this one answers: the journal does not keep that command.
    #: None where an event is the cause, or the flow's first message.
    command: str | None = None
    #: Where there is such a command: the nearest event before it, or the flow's first message.
    last_event: str | None = None

    @property
    def service(self) -> str:
        """Who published it."""
        return self.source.split("/")[1] if self.source.startswith("/") else self.source

    def headers(self) -> dict[str, str]:
        """The CloudEvents attributes as AMQP headers."""
        found = {
            "cloudEvents:specversion": "1.0",
            "cloudEvents:id": self.id,
            "cloudEvents:source": self.source,
            "cloudEvents:type": self.type,
            "cloudEvents:time": self.time,
            "cloudEvents:correlationid": self.flow,
            "cloudEvents:traceparent": self.traceparent,
        }
        if self.causation is not None:
            found["cloudEvents:causationid"] = self.causation
        if self.subject is not None:
            found["cloudEvents:subject"] = self.subject
        if self.command is not None:
            found["cloudEvents:commandtype"] = self.command
        if self.last_event is not None:
            found["cloudEvents:lasteventid"] = self.last_event
        return found


def timestamp(now: float) -> str:
    """Seconds since 1970 as RFC 3339, in UTC."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def moment(time: str) -> datetime:
    """RFC 3339 as a datetime; raises ValueError if it is none, or no date in UTC."""
    found = datetime.fromisoformat(time)
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    datetime.fromtimestamp(found.timestamp(), UTC)  # the year may be 0 or 10000 there
    return found


def traceparent(flow: str, message_id: str, parent: str = "") -> str:
    """A W3C trace context: the flow is the trace, the message is the span."""
    known = _TRACEPARENT.fullmatch(parent)
    trace = known.group(1) if known else _hex(flow, 32)
    return f"00-{trace}-{_hex(message_id, 32)[16:]}-01"


def _hex(identifier: str, length: int) -> str:
    plain = identifier.replace("-", "").lower()
    if length == 32 and _HEX32.fullmatch(plain):
        return plain
    return hashlib.blake2b(identifier.encode(), digest_size=length // 2).hexdigest()


class Stamped(Protocol):
    """What carries properties and headers."""

    message_id: str | None
    wire_type: str | None
    correlation_id: str | None
    app_id: str | None
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]


def read(stamped: Stamped, now: float) -> Envelope:
    """Understand native properties and headers; native ones win where both speak.

    But for the time: the native one has whole seconds. A message with only an id and a type is
    accepted. Raises UndecodableError if it lacks one of them, or an attribute is no text of at
    most 255 bytes.
    """
    headers = stamped.headers
    if UNREADABLE in headers:
        raise UndecodableError("its headers cannot be read")

    def attribute(name: str) -> str | None:
        value = headers.get(PREFIX + name)
        if value is None:
            value = headers.get("cloudEvents_" + name)
        return None if value is None else text(name, value)

    identifier = text("message_id", stamped.message_id) if stamped.message_id else attribute("id")
    if not identifier:
        raise UndecodableError("no message id (property message_id)")
    kind = text("type", stamped.wire_type) if stamped.wire_type else attribute("type")
    if not kind:
        raise UndecodableError("no type (property type)")
    causation = attribute("causationid")
    native = stamped.correlation_id
    correlation = text("correlation_id", native) if native else attribute("correlationid")
    if causation is not None and not correlation:
        raise UndecodableError("it names its cause (causationid) but no flow (correlation_id)")
    starts = causation is None
    flow = identifier if starts or correlation is None else correlation
    time = attribute("time") or _native_time(stamped.properties) or timestamp(now)
    try:
        moment(time)
    except ValueError as error:
        raise UndecodableError(f"time {time!r} is not RFC 3339, or no date in UTC") from error
    return Envelope(
        id=identifier,
        type=kind,
        source=attribute("source") or text("app_id", stamped.app_id or "unknown"),
        time=time,
        flow=flow,
        causation=causation,
        subject=attribute("subject"),
        traceparent=attribute("traceparent") or traceparent(flow, identifier),
        foreign_correlation=correlation if starts and correlation != flow else None,
        command=attribute("commandtype"),
        last_event=attribute("lasteventid"),
    )


def text(name: str, value: object) -> str:
    """A name or id that fits the wire and every database; else raises UndecodableError."""
    try:
        if isinstance(value, str) and len(value.encode()) <= LONGEST and "\x00" not in value:
            return value
    except UnicodeEncodeError:
        pass  # surrogates: it came as bytes that are no UTF-8
    raise UndecodableError(f"{name} is no text of at most {LONGEST} bytes")


def _native_time(properties: Mapping[str, Any]) -> str | None:
    """The native timestamp, which is text once it has been written down."""
    sent = properties.get("timestamp")
    if sent is None:
        return None
    if isinstance(sent, str):
        sent = datetime.fromisoformat(sent)
    if not isinstance(sent, datetime):
        raise UndecodableError(f"timestamp {sent!r} is no time in seconds")
    return timestamp(sent.timestamp())
