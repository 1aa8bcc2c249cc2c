"""Puts a message into its envelope: an answer to another, or the start of a flow."""

from __future__ import annotations

from choreo.contract import Command, Message, contract_of, encode, subject_of
from choreo.envelope import LONGEST, Envelope, timestamp, traceparent
from choreo.errors import UndeclaredResultError
from choreo.identity import Ids
from choreo.seams import Outgoing


def make(
    message: Message,
    body: bytes,
    *,
    identifier: str,
    time: str,
    source: str,
    cause: Envelope | None = None,
    max_body_bytes: int | None = None,
) -> Outgoing:
    """Address an encoded message; `source` is `/service/handler`.

    Raises UndeclaredResultError if its body is longer than allowed, or its subject cannot be
    a name on the wire.
    """
    address = message.__address__
    if max_body_bytes is not None and len(body) > max_body_bytes:
        raise UndeclaredResultError(
            f"{type(message).__name__} of {len(body)} bytes is longer than "
            f"CHOREO_MAX_BODY_BYTES, {max_body_bytes}"
        )
    subject = subject_of(message)
    if subject is not None and (why := _unfit(subject)):
        raise UndeclaredResultError(
            f"the subject of {type(message).__name__} ({address.subject}) {why}"
        )
    flow = identifier if cause is None else cause.flow
    command, last_event = (None, None) if cause is None else _asked(cause)
    envelope = Envelope(
        id=identifier,
        type=address.wire_type,
        source=source,
        time=time,
        flow=flow,
        causation=None if cause is None else cause.id,
        subject=subject,
        traceparent=traceparent(flow, identifier, "" if cause is None else cause.traceparent),
        command=command,
        last_event=last_event,
    )
    return Outgoing(
        address.exchange, address.wire_type, envelope, body, isinstance(message, Command)
    )


def first(message: Message, ids: Ids, now: float, source: str) -> Outgoing:
    """Start a flow with a message; the flow is called by the message's id."""
    body = encode(message)
    return make(message, body, identifier=ids.next(), time=timestamp(now), source=source)


def _asked(cause: Envelope) -> tuple[str | None, str | None]:
    """Where the cause is a command, which the journal does not keep: its type, the last event.

    Nothing of a command that started the flow: its id is the flow's.
    """
    if cause.causation is not None:
        contract = contract_of(cause.type)
        if contract is not None and issubclass(contract, Command):
            return cause.type, cause.last_event or cause.causation
    return None, None


def _unfit(subject: str) -> str | None:
    """Why a subject cannot travel, if it cannot; an empty one would reach the whole flow."""
    if not subject:
        return "is empty"
    if "\x00" in subject:
        return "holds a NUL character"
    try:
        size = len(subject.encode())
    except UnicodeEncodeError:
        return "holds a lone surrogate, which is no character"
    return f"is longer than {LONGEST} bytes" if size > LONGEST else None
