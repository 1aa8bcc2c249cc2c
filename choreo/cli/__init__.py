"""The command line: `choreo --help`."""

from __future__ import annotations

import codecs
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Annotated

import typer

from choreo.cli import dead
from choreo.cli.audit import run_audit
from choreo.cli.check import check
from choreo.cli.declare import declare
from choreo.cli.doctor import doctor
from choreo.cli.map import show_map
from choreo.cli.rehearse import rehearse
from choreo.cli.replay import replay
from choreo.cli.run import run
from choreo.cli.runs import show_runs
from choreo.cli.send import send
from choreo.cli.up import up
from choreo.cli.watch import watch
from choreo.errors import CannotRunError, DefinitionError
from choreo.process import CANNOT_RUN

#: Nobody reads the output any more: what a shell says of programs that SIGPIPE has ended.
_UNREAD = 128 + signal.SIGPIPE
#: Each command, with examples.
_COMMANDS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "up": (up, ("choreo up", "CHOREO_AMQP_URL=amqp://guest:guest@localhost/ choreo up")),
    "run": (run, ("choreo run services.inventory", "choreo run inventory",
                  "choreo run services.new --from-start")),
    "send": (send, ("choreo send orders.place --file order.json",
                    "choreo send orders.place.v1 < order.json")),
    "watch": (watch, ("choreo watch", "choreo watch 01a1f81d-ebf3-7000-845a-43cfb832a096")),
    "declare": (declare, ("choreo declare",)),
    "map": (show_map, ("choreo map", "choreo map OrderPlaced",
                       "choreo map --flow order --svg > order.svg",
                       "choreo map --json > contracts/choreography.json")),
    "check": (check, ("choreo check", "choreo check order trip", "choreo check --json")),
    "rehearse": (rehearse, ("choreo rehearse", "choreo rehearse --runs 5000 --flow order",
                            "choreo rehearse --seed 17", "choreo rehearse --trace found.json",
                            "choreo rehearse --seed 100000 --minutes 10 --json")),
    "doctor": (doctor, ("choreo doctor", "choreo doctor --json", "choreo doctor --prune",
                        "choreo doctor --prune --yes")),
    "audit": (run_audit, ("choreo audit", "choreo audit --settled --json",
                          "choreo audit --flow ID")),
    "replay": (replay, ("choreo replay --to rewards --since 2h --dry-run",
                        "choreo replay --to rewards --since 2026-11-20T10:00 --flow 11112222")),
    "runs": (show_runs, ("choreo runs", "choreo runs trip-7 --all --json")),
}  # fmt: skip

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; what is wrong with the surroundings is one line and exit code 2."""
    if sys.argv[1:2] == ["rehearse"]:
        _have_sets_in_one_order()
    # A stream that has no sign for a letter gets it as JSON writes it: --json stays what it is.
    codecs.register_error("json", _as_json_has_it)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="json")
    try:
        _run()
    except (BrokenPipeError, SystemExit) as ended:
        # Typer and rich end with 1 where they cannot write, which here is something wrong.
        if not any(isinstance(one, BrokenPipeError) for one in (ended, ended.__context__)):
            raise
        _say_the_rest_to_nobody()
        raise SystemExit(_UNREAD) from None


def _run() -> None:
    try:
        app(prog_name="choreo")
    except (CannotRunError, DefinitionError) as error:
        print(f"choreo: {error}", file=sys.stderr)
        raise SystemExit(CANNOT_RUN) from None
    finally:
        print(end="", flush=True)  # at its very end nobody would notice that this fails


def _have_sets_in_one_order() -> None:
    """Start anew as Python orders sets alike in every process: a seed is the same schedule there.

    As https://docs.python.org/3/using/cmdline.html#envvar-PYTHONHASHSEED says.
    """
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - itself


def _say_the_rest_to_nobody() -> None:
    """Have the interpreter write at its end what it could not, without a word about it.

    As https://docs.python.org/3/library/signal.html#note-on-sigpipe says.
    """
    nobody = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nobody, stream)


def _as_json_has_it(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"choreo {version_of('choreo')}")
        except PackageNotFoundError:
            print("choreo, run from its source")
        raise typer.Exit


@app.callback()
def choreo(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and end.")
    ] = False,
) -> None:
    """Choreographed services on RabbitMQ: run them, talk to them, see what they do.

    Settings come from CHOREO_* in the environment and from [tool.choreo] in pyproject.toml.

    Exit codes: 0 done; 1 it found something wrong; 2 it could not run.
    """


for name, (command, examples) in _COMMANDS.items():
    shown = "\n\n".join(f"    {one}" for one in examples)
    app.command(name, epilog=f"Examples:\n\n{shown}")(command)
app.add_typer(dead.app, name="dead", help="List, show, send back and drop dead letters.")
