"""Turns a function into a script: its options, its help, and its way of saying what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import typer
from pydantic import ValidationError

from choreo import CannotRunError, DefinitionError
from choreo.process import CANNOT_RUN


def run(name: str, main: Callable[..., None]) -> None:
    """Run it as `scripts/name`; what cannot run is one line on stderr and exit code 2."""
    app = typer.Typer(
        add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False
    )
    app.command()(main)
    try:
        app(prog_name=f"scripts/{name}")
    except (CannotRunError, DefinitionError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(CANNOT_RUN)


@contextmanager
def options(option: str | None = None) -> Generator[None]:
    """Make commands of options in this block; raises CannotRunError if no command can say that.

    `option`: which one it is, where the command's field is not called like it.
    """
    try:
        yield
    except ValidationError as error:
        wrong = (f"{option or one['loc'][-1]}: {one['msg']}" for one in error.errors())
        raise CannotRunError("; ".join(f"--{one}" for one in wrong)) from error
