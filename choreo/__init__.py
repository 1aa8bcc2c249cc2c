"""choreo: choreographed services on RabbitMQ, with exactly-once effects and undo."""

from sqlalchemy import Connection

from choreo.conducting import Failure
from choreo.conductor import Ask, Conductor, Tell
from choreo.contract import Command, Event
from choreo.errors import (
    CannotRunError,
    ChoreoError,
    DefinitionError,
    Reject,
    Retry,
    UndeclaredResultError,
)
from choreo.flow import Flow
from choreo.service import Service
from choreo.signature import Context

__all__ = [
    "Ask",
    "CannotRunError",
    "ChoreoError",
    "Command",
    "Conductor",
    "Connection",
    "Context",
    "DefinitionError",
    "Event",
    "Failure",
    "Flow",
    "Reject",
    "Retry",
    "Service",
    "Tell",
    "UndeclaredResultError",
]
