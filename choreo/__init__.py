"""choreo: choreographed services on RabbitMQ, with exactly-once effects and undo."""

from sqlalchemy import Connection

from choreo.contract import Command, Event
from choreo.errors import (
    CannotRunError,
    ChoreoError,
    DefinitionError,
    Reject,
    Retry,
    UndeclaredResultError,
)
from choreo.service import Service
from choreo.signature import Context

__all__ = [
    "CannotRunError",
    "ChoreoError",
    "Command",
    "Connection",
    "Context",
    "DefinitionError",
    "Event",
    "Reject",
    "Retry",
    "Service",
    "UndeclaredResultError",
]
