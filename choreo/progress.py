"""Shows how far the reading of the journal has come."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress
from structlog.typing import FilteringBoundLogger

#: Where there is no terminal, a line of the log says it so often.
_LINE_EVERY_S = 5.0


@contextmanager
def shown(
    what: str, last: int, log: FilteringBoundLogger | None = None
) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, elsewhere lines of the log if there is one.

    Gives what is to be told the first and the last offset of each piece; `last` is the end.
    """
    is_terminal = sys.stderr.isatty()
    start, line_at = -1, time.monotonic() + _LINE_EVERY_S
    bar = Progress(console=Console(stderr=True), disable=not is_terminal, transient=True)
    with bar:
        task = bar.add_task(what, total=None)

        def tell(first: int, reached: int) -> None:
            nonlocal start, line_at
            start = first if start < 0 else start
            done, total = reached - start + 1, last - start + 1
            bar.update(task, completed=done, total=total)
            if log is not None and not is_terminal and time.monotonic() >= line_at:
                line_at = time.monotonic() + _LINE_EVERY_S
                log.info(what, done=done, of=total)

        yield tell
