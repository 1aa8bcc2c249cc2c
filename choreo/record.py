"""A delivery as text, so that dead letters and retries keep every property it came with."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from decimal import Decimal
from typing import Any

from choreo.seams import Delivery, Outgoing


def properties_of(delivery: Delivery) -> str:
    """Everything about a delivery but its body, as JSON."""
    return json.dumps(
        {
            "message_id": delivery.message_id,
            "type": delivery.wire_type,
            "correlation_id": delivery.correlation_id,
            "app_id": delivery.app_id,
            "exchange": delivery.exchange,
            "routing_key": delivery.routing_key,
            "headers": dict(delivery.headers),
            "properties": dict(delivery.properties),
        },
        default=_as_json,
    )


def delivery_from(properties: str, body: bytes) -> Delivery:
    """The delivery that was written down."""
    known = json.loads(properties)
    return Delivery(
        body=bytes(body),
        message_id=known["message_id"],
        wire_type=known["type"],
        correlation_id=known["correlation_id"],
        app_id=known["app_id"],
        headers=known["headers"],
        properties=known["properties"],
        exchange=known["exchange"],
        routing_key=known["routing_key"],
        redelivered=False,
        tag=0,
    )


def delivery_of(message: Outgoing) -> Delivery:
    """A message of our own, as if it had been delivered."""
    envelope = message.envelope
    return Delivery(
        body=message.body,
        message_id=envelope.id,
        wire_type=envelope.type,
        correlation_id=envelope.flow,
        app_id=envelope.service,
        headers=envelope.headers(),
        properties={},
        exchange=message.exchange,
        routing_key=message.routing_key,
        redelivered=False,
        tag=0,
    )


def _as_json(value: object) -> Any:
    """What AMQP knows and JSON does not."""
    if isinstance(value, bytes | bytearray):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    return repr(value)
