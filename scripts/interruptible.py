"""Runs a long command so that a signal ends everything that it started first."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import typer

T = TypeVar("T")


async def until_signalled(work: Coroutine[Any, Any, T]) -> T:
    """Run the work; a signal cancels it, waits for it to clean up, and gives its exit code."""
    loop, running = asyncio.get_running_loop(), asyncio.create_task(work)
    told: list[int] = []

    def stop(number: int) -> None:
        told.append(number)
        if len(told) == 1:
            running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    await asyncio.wait((running,))
    if running.cancelled():
        raise typer.Exit(128 + told[0])
    return running.result()
