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
) -> None:
    """Run one service in this process until Ctrl-C or SIGTERM.

    The same as `python -m services.inventory`. It consumes from the broker of CHOREO_AMQP_URL,
    or from the private one of a running `choreo up`.
    """
    process.main(discovery.service(load(), service))
