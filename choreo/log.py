"""Logs: JSON lines for machines, coloured lines for a terminal; aio-pika's in the same form."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from choreo.envelope import Envelope
from choreo.settings import Settings
from choreo.terminal import escaped

#: The handler that is running and the message that it has in hand.
in_hand: ContextVar[tuple[str, Envelope] | None] = ContextVar("in_hand", default=None)


def _add_in_hand(_: object, __: str, line: EventDict) -> EventDict:
    """Bind what is in hand, also to the lines of handlers and of the libraries they use.

    Looked up when a line is written, so that a message without lines costs nothing.
    """
    if (current := in_hand.get()) is not None:
        handler, envelope = current
        line.setdefault("handler", handler)
        line.setdefault("flow", envelope.flow)
        line.setdefault("message_id", envelope.id)
    return line


def configure(settings: Settings, service: str | None = None) -> None:
    """Set up structlog and the standard library's logging, all to standard error.

    A service's name is on every line of its process, whoever writes it.
    """

    def add_service(_: object, __: str, line: EventDict) -> EventDict:
        if service is not None:
            line.setdefault("service", service)
        return line

    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and not sys.stderr.isatty()
    )
    level = getattr(logging, settings.log_level.upper())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_service,
        _add_in_hand,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
        if as_json
        else [for_people(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # The client says at length what choreo says once, in its own words.
    for noisy in ("aiormq", "aio_pika"):
        logging.getLogger(noisy).setLevel(max(level, logging.CRITICAL if level > 10 else level))


def for_people(*, colors: bool, pad_event_to: int = 30) -> Processor:
    """What writes a line for a person; nothing in it can steer the terminal.

    An error has a plain traceback: structlog's own shows the values of all variables, passwords
    and the bodies of messages among them.
    """
    render = ConsoleRenderer(
        colors=colors, pad_event_to=pad_event_to, exception_formatter=plain_traceback
    )

    def write(logger: object, method: str, line: EventDict) -> str:
        line = structlog.processors.format_exc_info(logger, method, line)
        safe = {
            key: escaped(value) if isinstance(value, str) else value for key, value in line.items()
        }
        return render(logger, method, safe)

    return write


def logger(service: str) -> FilteringBoundLogger:
    """The logger of a service: its name is on every line."""
    bound: FilteringBoundLogger = structlog.get_logger("choreo").bind(service=service)
    return bound
