"""Runs `python -m ...` by forking a process that has imported already what all of them import.

Most of a process's start is imports, and the tests start thousands. What is forked is a process of
its own like any other: its own id, its own session, killed and waited for as such.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from choreo.node import end_with_parent
from choreo.supervisor import Child, Supervisor

#: Imported once for all; a service, with what it reads of the environment, is imported anew.
SERVICES = ("choreo.process", "aiohttp.web", "pydantic_settings", "contracts")
#: The same for commands, which find contracts of their own.
COMMANDS = ("choreo.cli",)
#: A command that wants sets in one order would start itself anew to have them.
_HASHED = {"PYTHONHASHSEED": "0"}
_LONGEST = 1 << 20


class Origin:
    """The process that is forked from: it ends with this one."""

    def __init__(self, preloaded: Sequence[str]) -> None:
        leash, self._leash = os.pipe()
        self._address = f"\0choreo-tests-{os.getpid()}-{preloaded[0]}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(self._address)
            listening.listen(64)
            given = [leash, listening.fileno()]
            self._process = subprocess.Popen(
                [sys.executable, __file__, *map(str, given), *preloaded],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=given,
                env={**os.environ, **_HASHED},
            )  # fmt: skip
        os.close(leash)

    def connect(self) -> socket.socket:
        """A way to ask it for processes, which tells of each that it has started and has ended."""
        near = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.connect(self._address)
        return near


@cache
def origin(preloaded: Sequence[str]) -> Origin:
    """The one process of this kind."""
    return Origin(preloaded)


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: str = "",
    timeout_s: float | None = None,
    cpu_s: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `python -m ...`, one of `COMMANDS`, to its end; it may use a core for `cpu_s` seconds.

    Raises subprocess.TimeoutExpired as `subprocess.run` does.
    """
    asked = {"argv": argv, "env": {**env, **_HASHED}, "cwd": str(cwd), "cpu_s": cpu_s}
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as said,
        tempfile.TemporaryFile("w+") as complained,
        origin(COMMANDS).connect() as near,
    ):
        given.write(stdin)
        given.seek(0)
        streams = [one.fileno() for one in (given, said, complained)]
        socket.send_fds(near, [json.dumps(asked).encode()], streams)
        pid, _ = _heard(near)
        near.settimeout(timeout_s)
        try:
            _, code = _heard(near)
        except BaseException as error:
            os.kill(pid, signal.SIGKILL)
            if isinstance(error, TimeoutError):
                raise subprocess.TimeoutExpired(argv, timeout_s or 0.0) from None
            raise
        assert code is not None, f"{pid} has started twice"
        said.seek(0)
        complained.seek(0)
        return subprocess.CompletedProcess(argv, code, said.read(), complained.read())


def _heard(near: socket.socket) -> tuple[int, int | None]:
    """The next process that has started or ended, and how."""
    said = near.recv(_LONGEST)
    if not said:
        raise ConnectionError("what is forked from has ended")
    pid, code = json.loads(said)
    return pid, code


@dataclass(slots=True)
class Forked:
    """A forked process, as asyncio's own look."""

    pid: int
    stdout: asyncio.StreamReader
    ended: asyncio.Future[int]

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.ended.result() if self.ended.done() else None

    async def wait(self) -> int:
        """Wait until it has ended; gives its exit code."""
        return await asyncio.shield(self.ended)


@dataclass(slots=True)
class _Asked:
    """What the process to fork from has been asked for, and answers in turn."""

    started: list[asyncio.Future[int]] = field(default_factory=list)
    running: dict[int, asyncio.Future[int]] = field(default_factory=dict)


class ForkingSupervisor(Supervisor):
    """A supervisor whose Python processes are forked."""

    async def __aenter__(self) -> Self:
        """Find the process to fork from."""
        self._near = origin(SERVICES).connect()
        self._near.setblocking(False)
        self._asked = _Asked()
        asyncio.get_running_loop().add_reader(self._near, self._hear)
        return await super().__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop all."""
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            asyncio.get_running_loop().remove_reader(self._near)
            self._near.close()

    async def spawn(self, argv: Sequence[str], env: Mapping[str, str] | None) -> Child:
        """Fork `python -m module ...`; start anything else as it is."""
        if list(argv[:2]) != [sys.executable, "-m"]:
            return await super().spawn(argv, env)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 26)
        ours, theirs = os.pipe()
        pipe = os.fdopen(ours, "rb", 0)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        started: asyncio.Future[int] = loop.create_future()
        self._asked.started.append(started)
        asked = {
            "argv": argv[2:], "env": dict(os.environ if env is None else env),
            "cwd": str(Path.cwd()), "cpu_s": None,
        }  # fmt: skip
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            socket.send_fds(self._near, [json.dumps(asked).encode()], [nothing, theirs, theirs])
        finally:
            os.close(theirs)
            os.close(nothing)
        pid = await started
        return Forked(pid, reader, self._asked.running[pid])

    def _hear(self) -> None:
        said = self._near.recv(_LONGEST)
        if not said:
            asyncio.get_running_loop().remove_reader(self._near)
            for waiting in (*self._asked.started, *self._asked.running.values()):
                if not waiting.done():
                    waiting.set_exception(ConnectionError("what is forked from has ended"))
            return
        pid, code = json.loads(said)
        if code is None:
            self._asked.running[pid] = asyncio.get_running_loop().create_future()
            if not (started := self._asked.started.pop(0)).cancelled():
                started.set_result(pid)
        else:
            self._asked.running.pop(pid).set_result(code)


# The process that is forked from.


def serve(leash: int, listening: socket.socket, preloaded: Sequence[str]) -> None:
    """Fork whatever is asked for, tell what has ended; end with who holds the leash."""
    del sys.path[0]  # this file's folder
    for name in preloaded:
        package = importlib.import_module(name)
        for member in pkgutil.iter_modules(getattr(package, "__path__", ())):
            importlib.import_module(f"{name}.{member.name}")
    gc.freeze()
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    askers: dict[int, socket.socket] = {}
    #: Who is told when a process has ended.
    whose: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([leash, ended, listening.fileno(), *askers], [], [])
        if leash in ready:
            return
        if ended in ready:
            os.read(ended, 4096)
            _tell_ended(whose)
        if listening.fileno() in ready:
            asker, _ = listening.accept()
            askers[asker.fileno()] = asker
        for number in ready:
            if number in askers and not _answer(askers[number], whose):
                askers.pop(number).close()


def _answer(asker: socket.socket, whose: dict[int, socket.socket]) -> bool:
    """Fork what is asked for; False if nobody asks any more."""
    try:
        asked, files, _, _ = socket.recv_fds(asker, _LONGEST, 3)
    except ConnectionError:
        return False
    if not asked:
        return False
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _become(json.loads(asked), files)
    for one in files:
        os.close(one)
    whose[pid] = asker
    _tell(asker, pid, None)
    return True


def _tell_ended(whose: dict[int, socket.socket]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _tell(whose.pop(pid), pid, os.waitstatus_to_exitcode(status))


def _tell(asker: socket.socket, pid: int, code: int | None) -> None:
    try:
        asker.send(json.dumps([pid, code]).encode())
    except OSError:
        """Nobody asks any more."""


def _become(asked: dict[str, Any], streams: Sequence[int]) -> None:
    """Be `python -m module ...`, and end as it would."""
    code = 1
    try:
        os.setsid()
        end_with_parent()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, 1024)
        if asked["cpu_s"] is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (asked["cpu_s"], asked["cpu_s"] + 1))
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["env"])
        sys.path[:0] = [asked["cwd"], *asked["env"].get("PYTHONPATH", "").split(os.pathsep)]
        sys.argv = list(asked["argv"])
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ending:
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter would
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])), sys.argv[3:])
