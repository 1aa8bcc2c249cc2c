"""`choreo up`: the whole system on this machine, each service as a process of its own."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import typer

from choreo import discovery, log
from choreo.cli import frame
from choreo.cli.declare import create
from choreo.errors import CannotRunError
from choreo.node import private_node
from choreo.rabbitmq import connected
from choreo.service import Service
from choreo.settings import Settings
from choreo.supervisor import Supervisor

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_COLOURS = ("cyan", "green", "magenta", "blue", "yellow", "bright_cyan", "bright_green",
            "bright_magenta", "bright_blue", "bright_yellow")  # fmt: skip


def up() -> None:
    """Run every service, each as a process of its own, until Ctrl-C.

    Unless CHOREO_AMQP_URL is set, a private RabbitMQ is started with them, which 'choreo send'
    and 'choreo watch' join by themselves. All logs come out as one; a process that dies is
    started again. Ctrl-C stops all of them: the services, their companions, then the broker.
    """
    settings = frame.prepare()
    modules = discovery.by_module(settings)
    output = _Output(settings, [*_names(settings), *(one.name for one in modules.values())])
    with _alone(settings.var):
        asyncio.run(_until_signalled(settings, modules, output))


async def _until_signalled(
    settings: Settings, modules: Mapping[str, Service], output: _Output
) -> None:
    loop = asyncio.get_running_loop()
    told: list[signal.Signals] = []
    running = asyncio.create_task(_run(settings, modules, output))

    def stop(number: signal.Signals) -> None:
        told.append(number)
        output("choreo", "stopping" if len(told) == 1 else "stopping at once")
        running.cancel()  # a second time, it cuts short the waiting for the stop

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    output.on_broken_pipe = lambda: stop(signal.SIGPIPE)
    await asyncio.wait((running,))
    if not running.cancelled():
        running.result()
    if signal.SIGINT in told:
        raise KeyboardInterrupt


async def _run(settings: Settings, modules: Mapping[str, Service], output: _Output) -> None:
    grace_s = settings.grace_s + 5
    async with (
        _broker(settings, output) as url,
        Supervisor(output, grace_s=grace_s) as companions,
        Supervisor(output, grace_s=grace_s) as services,
    ):
        async with connected(url, settings, "choreo up", log.logger("choreo")) as broker:
            await create(broker, modules.values())
        env = _environment(settings, url)
        for name, module in zip(_names(settings), settings.companions, strict=True):
            await companions.start(name, [sys.executable, "-m", module], env=env)
        output.expect(one.name for one in modules.values())
        for module, service in modules.items():
            argv = [sys.executable, "-m", "choreo", "run", module]
            await services.start(service.name, argv, env=env)
        await asyncio.Future()  # until cancelled


@asynccontextmanager
async def _broker(settings: Settings, output: _Output) -> AsyncGenerator[str, None]:
    if settings.amqp_url:
        yield settings.amqp_url
        return
    output("choreo", "starting a private RabbitMQ")
    async with private_node(settings.var) as url:
        yield url


def _environment(settings: Settings, url: str) -> dict[str, str]:
    """What the processes are told: JSON lines, which `_Output` understands and shows anew."""
    level = "debug" if settings.log_level == "debug" else "info"
    return os.environ | {
        "CHOREO_AMQP_URL": url,
        "CHOREO_LOG_FORMAT": "json",
        "CHOREO_LOG_LEVEL": level,
        "PYTHONUNBUFFERED": "1",
    }


def _names(settings: Settings) -> list[str]:
    return [module.rpartition(".")[2] for module in settings.companions]


@contextmanager
def _alone(var: Path) -> Iterator[None]:
    """Hold the lock of this `var`; raises CannotRunError if another `choreo up` has it."""
    try:
        var.mkdir(parents=True, exist_ok=True)
        lock = (var / "up.lock").open("a+")
    except OSError as error:
        raise CannotRunError(f"cannot write to {var}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            raise CannotRunError(
                f"'choreo up' runs already on {var}/ (process {pid}): use that one, "
                "or set another CHOREO_VAR"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


class _Output:
    """One log of many processes: each line with its process's name before it."""

    def __init__(self, settings: Settings, names: Iterable[str]) -> None:
        every = [*names, "choreo"]
        self._colours = dict(zip(every, cycle(_COLOURS), strict=False)) | {"choreo": "white"}
        self._width = max(map(len, every))
        self._least = _LEVELS[settings.log_level]
        self._is_terminal = sys.stdout.isatty()
        pretty = settings.log_format == "console" or (
            settings.log_format == "auto" and self._is_terminal
        )
        self._render: Callable[..., Any] | None = None
        if pretty:
            self._render = log.for_people(colors=self._is_terminal, pad_event_to=0)
        self._expected: set[str] = set()
        self._count = 0
        self._is_lost = False
        self.on_broken_pipe: Callable[[], None] = lambda: None

    def expect(self, services: Iterable[str]) -> None:
        """Say so once all of these are consuming."""
        self._expected = set(services)
        self._count = len(self._expected)

    def __call__(self, name: str, line: str) -> None:
        """Show a line of a process."""
        entry = _entry(line)
        if entry.get("event") == "consuming":
            self._consuming(name)
        if _LEVELS.get(str(entry.get("level")), self._least) < self._least:
            return
        if entry and self._render:
            entry.pop("service", None)
            with suppress(Exception):  # a companion may write what the renderer does not take
                line = str(self._render(None, "", entry))
        prefix = f"{name:{self._width}} | "
        if self._is_terminal:
            prefix = typer.style(prefix, fg=self._colours.get(name))
        self._print("\n".join(prefix + one for one in line.split("\n")))

    def _consuming(self, name: str) -> None:
        if name in self._expected:
            self._expected.remove(name)
            if not self._expected:
                loop = asyncio.get_running_loop()  # after the line that is being shown
                loop.call_soon(
                    self, "choreo", f"all {self._count} services are running; Ctrl-C stops them"
                )

    def _print(self, text: str) -> None:
        try:
            print(text, flush=True)
            self._is_lost = False
        except BrokenPipeError:  # whoever read it has gone: say the rest to nobody
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.on_broken_pipe()
        except OSError as error:  # as on a full disk: the services go on, and their log later
            if not self._is_lost:
                self._is_lost = True
                with suppress(OSError):
                    print(f"choreo: the log is lost now: {error.strerror}", file=sys.stderr)


def _entry(line: str) -> dict[str, Any]:
    """A line of a service's log, understood; empty for any other line."""
    if not line.startswith("{"):
        return {}
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
