"""What every command begins and ends with."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from choreo import log, process
from choreo.rabbitmq import RabbitMQ, connected
from choreo.settings import Settings, load
from choreo.terminal import escaped

FOUND_SOMETHING = 1


def prepare() -> Settings:
    """Read the settings; a command says in its own words what the runtime would log."""
    settings = load()
    log.configure(settings.model_copy(update={"log_level": "error"}))
    return settings


@asynccontextmanager
async def broker(settings: Settings) -> AsyncGenerator[RabbitMQ, None]:
    """The broker that is set, or the private one that runs; raises CannotRunError if none is."""
    url = process.amqp_url(settings)
    async with connected(url, settings, "choreo", log.logger("choreo")) as found:
        yield found


def refuse(why: str) -> NoReturn:
    """End the command with one line on stderr: it could run, and what it found is wrong."""
    print(f"choreo: {why}", file=sys.stderr)
    raise typer.Exit(FOUND_SOMETHING)


def console() -> Console:
    """Where tables go; wide enough not to cut them where nobody looks at a terminal."""
    width = None if sys.stdout.isatty() else 200
    return _Console(width=width, markup=False, highlight=False, emoji=False)


class _Console(Console):
    """Shows what strangers wrote as well: in a cell of a table, or on a line."""

    def render_str(self, text: str, **how: Any) -> Text:
        """Give the text its style."""
        return super().render_str(escaped(text), **how)
