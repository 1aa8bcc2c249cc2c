"""`choreo run`: one service, one process."""

from __future__ import annotations

from typing import Annotated

import typer

from choreo import discovery, process
from choreo.settings import load


def run(
    service: Annotated[
        str, typer.Argument(help="Its module, or its name alone.", metavar="SERVICE")
    ],
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Take in what the journal keeps, then what comes.")
    ] = False,
) -> None:
    """Run one service in this process until Ctrl-C or SIGTERM.

    The same as `python -m services.inventory`. It consumes from the broker of CHOREO_AMQP_URL,
    or from the private one of a running `choreo up`.

    --from-start is for the first start of a new service: it handles every event of the journal that
    it hears, in order, while what comes waits in its queue. Interrupted, it goes on with the same
    command; what it has handled has no effect again. Commands are not in the journal.
    """
    process.main(discovery.service(load(), service), from_start=from_start)
