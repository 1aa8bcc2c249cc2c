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
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from choreo.node import end_with_parent
from choreo.supervisor import Child, Supervisor

#: Imported once for all; a service, with what it reads of the environment, is imported anew.
SERVICES = ("choreo.process", "aiohttp.web", "pydantic_settings", "contracts")
#: The same for the command line, which finds contracts of its own.
COMMANDS = ("choreo.cli",)
#: Without it `choreo rehearse` would start itself anew; that it does is tested where it is no fork.
_SETS_IN_ONE_ORDER = {"PYTHONHASHSEED": "0"}
_LONGEST = 1 << 20


class Origin:
    """The process that is forked from: it ends with this one."""

    def __init__(self, preloaded: Sequence[str]) -> None:
        self._control, far = _pair()
        with far:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(far.fileno()), *preloaded],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[far.fileno()],
                start_new_session=True,  # Ctrl-C is for those who stop what they have started
                env=os.environ | (_SETS_IN_ONE_ORDER if preloaded == COMMANDS else {}),
            )  # fmt: skip

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def connect(self) -> socket.socket:
        """A way to ask it for processes; whoever closes it ends those that still run."""
        near, far = _pair()
        with far:
            socket.send_fds(self._control, [b"listen"], [far.fileno()])
        return near


_origins: dict[Sequence[str], Origin] = {}
_lock = threading.Lock()


def origin(preloaded: Sequence[str]) -> Origin:
    """The one process of this kind."""
    with _lock:
        if preloaded not in _origins or not _origins[preloaded].is_alive:
            _origins[preloaded] = Origin(preloaded)
        return _origins[preloaded]


def choreo(
    *words: str,
    cwd: Path,
    env: Mapping[str, str],
    stdin: str = "",
    timeout_s: float | None = None,
    cpu_s: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; it may use a core for `cpu_s` seconds.

    It finds sets in one order, whatever `env` says of that. Raises subprocess.TimeoutExpired as
    `subprocess.run` does.
    """
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as said,
        tempfile.TemporaryFile("w+") as complained,
        origin(COMMANDS).connect() as near,
    ):
        given.write(stdin)
        given.seek(0)
        streams = [one.fileno() for one in (given, said, complained)]
        argv, told = ["choreo", *words], {**env, **_SETS_IN_ONE_ORDER}
        _ask(near, argv, told, cwd, streams, cpu_s=cpu_s)
        near.settimeout(timeout_s)
        try:
            _heard(near)  # it has started
            _, code = _heard(near)
        except TimeoutError:
            raise subprocess.TimeoutExpired(words, timeout_s or 0.0) from None
        assert code is not None, "it has started twice"
        said.seek(0)
        complained.seek(0)
        return subprocess.CompletedProcess(words, code, said.read(), complained.read())


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _ask(
    near: socket.socket,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: Path,
    streams: Sequence[int],
    *,
    cpu_s: int | None = None,
) -> None:
    """Ask for `python -m ...` with these standard streams."""
    asked = {"argv": list(argv), "env": dict(env), "cwd": str(cwd), "cpu_s": cpu_s}
    socket.send_fds(near, [json.dumps(asked).encode()], streams)


def _heard(near: socket.socket) -> tuple[int, int | None]:
    """Which process has started, or has ended and how."""
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


@asynccontextmanager
async def forking_supervisor(on_line: Callable[[str, str], None]) -> AsyncIterator[Supervisor]:
    """A supervisor whose Python processes are forked; it stops all of them at the end."""
    loop = asyncio.get_running_loop()
    with origin(SERVICES).connect() as near:
        near.setblocking(False)
        supervisor = _ForkingSupervisor(on_line, near)
        loop.add_reader(near, supervisor.hear)
        try:
            async with supervisor:
                yield supervisor
        finally:
            loop.remove_reader(near)


class _ForkingSupervisor(Supervisor):
    def __init__(self, on_line: Callable[[str, str], None], near: socket.socket) -> None:
        super().__init__(on_line)
        self._near = near
        self._asked = _Asked()

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
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            streams = [nothing, theirs, theirs]
            _ask(self._near, argv[2:], os.environ if env is None else env, Path.cwd(), streams)
        finally:
            os.close(theirs)
            os.close(nothing)
        pid = await started
        return Forked(pid, reader, self._asked.running[pid])

    def hear(self) -> None:
        """Take note of what has started or ended."""
        try:
            pid, code = _heard(self._near)
        except ConnectionError as error:
            asyncio.get_running_loop().remove_reader(self._near)
            for waiting in (*self._asked.started, *self._asked.running.values()):
                if not waiting.done():
                    waiting.set_exception(error)
            return
        if code is None:
            self._asked.running[pid] = asyncio.get_running_loop().create_future()
            if not (started := self._asked.started.pop(0)).cancelled():
                started.set_result(pid)
        else:
            self._asked.running.pop(pid).set_result(code)


# The process that is forked from.


def serve(control: socket.socket, preloaded: Sequence[str]) -> None:
    """Fork whatever is asked for and tell what has ended; end with who has the other end."""
    sys.path.remove(str(Path(__file__).parent))
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
        ready, _, _ = select.select([control.fileno(), ended, *askers], [], [])
        if ended in ready:
            os.read(ended, 4096)
            _tell_ended(whose)
        for number in askers.keys() & ready:
            if not _answer(askers[number], whose):
                _end_all_of(askers[number], whose)
                askers.pop(number).close()
        if control.fileno() in ready:
            said, found, _, _ = socket.recv_fds(control, _LONGEST, 1)
            if not said:
                return
            askers[found[0]] = socket.socket(fileno=found[0])


def _answer(asker: socket.socket, whose: dict[int, socket.socket]) -> bool:
    """Fork what is asked for; False if nobody asks any more."""
    try:
        asked, streams, _, _ = socket.recv_fds(asker, _LONGEST, 3)
    except ConnectionError:
        return False
    if not asked:
        return False
    begun, begins = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _become(asked, streams, begins)
    for one in (*streams, begins):
        os.close(one)
    os.read(begun, 1)  # only then can its group be signalled
    os.close(begun)
    whose[pid] = asker
    _tell(asker, pid, None)
    return True


def _end_all_of(asker: socket.socket, whose: Mapping[int, socket.socket]) -> None:
    for pid, one in whose.items():
        if one is asker:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


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
    with suppress(OSError):  # nobody asks any more
        asker.send(json.dumps([pid, code]).encode())


def _become(said: bytes, streams: Sequence[int], begins: int) -> None:
    """Be `python -m module ...`, and end as it would."""
    code = 1
    try:
        os.setsid()
        end_with_parent()
        os.write(begins, b".")
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(len(streams), 1024)
        try:
            _run(json.loads(said))
            code = 0
        except SystemExit as ending:
            if isinstance(ending.code, int | None):
                code = ending.code or 0
            else:
                print(ending.code, file=sys.stderr)
        except BaseException:  # noqa: BLE001 - as the interpreter would
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(code)


def _run(asked: dict[str, Any]) -> None:
    if asked["cpu_s"] is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (asked["cpu_s"], asked["cpu_s"] + 1))
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.path[:0] = [asked["cwd"], *asked["env"].get("PYTHONPATH", "").split(os.pathsep)]
    sys.argv = asked["argv"]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
