"""Runs `python -m ...` by forking a process that has imported already what all of them import.

Most of a service's start is imports, and the tests start thousands of services. What is forked is a
process of its own like any other: its own id, its own session, killed and waited for as such.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from choreo.node import end_with_parent
from choreo.supervisor import Child, Supervisor

#: Imported once for all; a service, with what it reads of the environment, is imported anew.
PRELOADED = ("choreo.process", "aiohttp.web", "pydantic_settings", "contracts")
_LONGEST = 1 << 20


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
        """Start the process to fork from."""
        self._near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._near.setblocking(False)
        with far:
            self._origin = await asyncio.create_subprocess_exec(
                sys.executable, __file__, str(far.fileno()),
                pass_fds=[far.fileno()], preexec_fn=end_with_parent,
            )  # fmt: skip
        self._asked = _Asked()
        asyncio.get_running_loop().add_reader(self._near, self._hear)
        return await super().__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop all, and then what they were forked from."""
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            asyncio.get_running_loop().remove_reader(self._near)
            self._near.close()
            await self._origin.wait()

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
        asked = json.dumps({"argv": argv[2:], "env": dict(os.environ if env is None else env)})
        try:
            socket.send_fds(self._near, [asked.encode()], [theirs])
        finally:
            os.close(theirs)
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


def serve(near: socket.socket) -> None:
    """Fork whatever is asked for, tell what has ended; end with who asks."""
    for name in PRELOADED:
        package = importlib.import_module(name)
        for member in pkgutil.iter_modules(getattr(package, "__path__", ())):
            importlib.import_module(f"{name}.{member.name}")
    gc.freeze()
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([near.fileno(), ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
            _tell_ended(near)
        if near.fileno() in ready:
            asked, files, _, _ = socket.recv_fds(near, _LONGEST, 1)
            if not asked:
                return
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for one in (near.fileno(), ended, wake):
                    os.close(one)
                _become(json.loads(asked), files[0])
            os.close(files[0])
            near.send(json.dumps([pid, None]).encode())


def _tell_ended(near: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        near.send(json.dumps([pid, os.waitstatus_to_exitcode(status)]).encode())


def _become(asked: dict[str, object], output: int) -> None:
    """Be `python -m module ...`, and end as it would."""
    code = 1
    try:
        os.setsid()
        end_with_parent()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        env, argv = asked["env"], asked["argv"]
        assert isinstance(env, dict)
        assert isinstance(argv, list)
        os.environ.clear()
        os.environ.update(env)
        sys.path[:0] = env.get("PYTHONPATH", "").split(os.pathsep)
        sys.argv = [argv[0], *argv[1:]]
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter would
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
