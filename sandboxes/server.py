"""What every sandbox is made of: a web application over a ledger, and the process it runs in."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import NoReturn, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from sandboxes.ledger import Answer, Ledger, refusal

#: How late a slow answer is.
SLOW_S = float(os.environ.get("SANDBOX_SLOW_S") or 3)
#: How long a stop waits for requests under way. Their effects are committed; who asked asks again.
_STOP_S = 0.2

_log = logging.getLogger("sandboxes")
B = TypeVar("B", bound=BaseModel)


class RefusedError(Exception):
    """A request that cannot be taken as it is."""

    def __init__(self, status: int, error: str, reason: str) -> None:
        super().__init__(reason)
        self.answer = refusal(status, error, reason)


def key_of(request: web.Request) -> str:
    """Read the idempotency key, without which nothing is done."""
    if key := request.headers.get("Idempotency-Key"):
        return key
    raise RefusedError(400, "no_key", "the header Idempotency-Key is missing")


async def body_of(request: web.Request, model: type[B]) -> B:
    """Read the body; what is wrong with it is told field by field."""
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        wrong = "; ".join(
            ": ".join(filter(None, [".".join(map(str, one["loc"])), one["msg"]]))
            for one in error.errors(include_url=False)
        )
        raise RefusedError(400, "invalid", wrong) from error


def respond(answer: Answer) -> web.Response:
    """Turn an answer into a response."""
    return web.json_response(answer.body, status=answer.status)


def cut(request: web.Request) -> web.Response:
    """Lose the answer: the connection ends before a byte of it is sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def application(ledger: Ledger, routes: Iterable[web.AbstractRouteDef]) -> web.Application:
    """Build the web application: the sandbox's own routes, `/ledger` and `/health`."""

    async def show(_: web.Request) -> web.Response:
        return web.json_response(ledger.rows())

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    app = web.Application(middlewares=[_middleware])
    app.add_routes([*routes, web.get("/ledger", show), web.get("/health", health)])
    return app


@web.middleware
async def _middleware(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer refusals, and write one line for each request that is answered or lost.

    Except for /health, which a watchdog asks for every few seconds.
    """
    try:
        response = await handler(request)
    except RefusedError as error:
        response = respond(error.answer)
    if request.path == "/health":
        return response
    lost = request.transport is None or request.transport.is_closing()
    outcome = "answer lost" if lost else response.status
    key = request.headers.get("Idempotency-Key", "")
    _log.info("%s %s %s %s", request.method, request.path, outcome, key)
    return response


def main(name: str, about: str, build: Callable[[Ledger], web.Application]) -> NoReturn:
    """Run a sandbox until SIGTERM or SIGINT: read the command line, listen, serve, exit."""
    var = Path(os.environ.get("CHOREO_VAR") or "var")
    arguments = _command_line(name, about, var)
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        listening = socket.create_server((arguments.host, arguments.port))
    except (OSError, OverflowError) as error:
        where = f"{arguments.host}:{arguments.port}"
        _give_up(f"{name}: cannot listen on {where}: {error}; choose another --host or --port")
    announced = var / f"{name}.url"
    try:
        with listening, contextlib.closing(Ledger(arguments.ledger)) as ledger:
            asyncio.run(_serve(build(ledger), listening, announced))
    except (OSError, sqlite3.Error) as error:
        _give_up(f"{name}: cannot write {arguments.ledger} and {announced}: {error}")
    sys.exit(0)


def _command_line(name: str, about: str, var: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m sandboxes.{name}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (%(default)s)")
    parser.add_argument(
        "--ledger", type=Path, default=var / f"{name}.db", help="SQLite file (%(default)s)"
    )
    return parser.parse_args()


def _give_up(why: str) -> NoReturn:
    print(why, file=sys.stderr)
    sys.exit(2)


async def _serve(app: web.Application, listening: socket.socket, announced: Path) -> None:
    """Serve until told to stop; the file tells the URL to whoever looks for this sandbox."""
    stop = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_S)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        host, port = listening.getsockname()[:2]
        url = f"http://{host}:{port}"
        _announce(announced, url)
        _log.info("listening on %s", url)
        await stop.wait()
        _withdraw(announced, url)
    finally:
        await runner.cleanup()
    _log.info("stopped")


def _announce(file: Path, url: str) -> None:
    """Write the file whole or not at all: a reader never sees half a URL."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text(f"{url}\n")
    draft.replace(file)


def _withdraw(file: Path, url: str) -> None:
    """Remove the file, unless another process has announced itself there since."""
    with contextlib.suppress(FileNotFoundError):
        if file.read_text().strip() == url:
            file.unlink()
