"""A private RabbitMQ node as a child process: own data folder, own local ports, own password.

`private_node(var)` runs one while a block lasts; `joined(var)` finds one that another process runs;
`discard(var)` deletes what one has left outside of `var`.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from choreo.errors import CannotRunError
from choreo.ports import accepts, free_ports, speaks_amqp

IMAGE = "rabbitmq:4-management"
_USER = "choreo"
#: Its folder, under `var`.
_HOME = "broker"
_START_S = 90.0
_STOP_S = 20.0
_SHOWN_LINES = 15

# First where packages keep the plain script: Debian's `rabbitmq-server` on the PATH is a wrapper
# that changes user and folder.
_PLACES = ("/usr/lib/rabbitmq/bin", *os.get_exec_path(), "/usr/sbin", "/usr/local/sbin")

_CONFIGURATION = """\
# Written by choreo whenever it starts its private node: a change made here is lost.
listeners.tcp.1 = 127.0.0.1:{amqp}
default_user = {user}
default_pass = {password}
# The node shares a machine, perhaps a small one, with the services that it connects.
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.relative = 0.6
"""
_MANAGEMENT = """\
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
"""


def rabbitmq_server() -> str | None:
    """Find the RabbitMQ that is installed on this machine, if one is."""
    return shutil.which("rabbitmq-server", path=os.pathsep.join(_PLACES))


def docker_engine() -> str | None:
    """Ask the Docker engine for its version; None if no engine answers."""
    with suppress(OSError, subprocess.SubprocessError):
        return _docker("version", "--format", "{{.Server.Version}}", timeout_s=10) or None
    return None


def joined(var: Path) -> str | None:
    """Give the AMQP URL of the private node that is recorded under `var`, if it is alive."""
    try:
        record = json.loads(_record(var).read_text())
        os.kill(record["pid"], 0)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    url: str = record["url"]
    return url if speaks_amqp("127.0.0.1", urlsplit(url).port or 0) else None


def discard(var: Path) -> None:
    """Delete what a node that has ended keeps outside of `var`: the volume of its container."""
    if docker_engine():
        with suppress(subprocess.SubprocessError):  # there is none
            _docker("volume", "rm", _container(var), timeout_s=_STOP_S)


@asynccontextmanager
async def private_node(var: Path) -> AsyncIterator[str]:
    """Run a private node while the block lasts; gives its AMQP URL."""
    node = Node(var)
    url = await node.start()
    try:
        yield url
    finally:
        await node.stop()


def end_with_parent() -> None:
    """Make a child, as its `preexec_fn`, end when its parent does, in whatever way that ends.

    On Linux only; and the kernel takes for the parent the thread that starts the child.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


class Node:
    """A private RabbitMQ node whose data lives under `var`.

    It can be stopped or killed and started again: ports, password and data stay. On Linux it
    ends, too, when the process that started it is killed. Where RabbitMQ is not installed it is a
    container, and its data a Docker volume of the same name, which stays until `discard`.
    """

    def __init__(self, var: Path, *, management: bool = False) -> None:
        self.var = var.resolve()
        self.home = self.var / _HOME
        self.log = self.home / "rabbitmq.log"
        self.pid: int | None = None
        self._management = management
        self._ports = free_ports("amqp", "management", "peers", "epmd")
        self._container = _container(var)
        self._server: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it speaks AMQP."""
        return f"amqp://{_USER}:{self._password()}@127.0.0.1:{self._ports['amqp']}/"

    @property
    def management_url(self) -> str:
        """Where it serves its management API, if `management` was asked for."""
        return f"http://{_USER}:{self._password()}@127.0.0.1:{self._ports['management']}/api"

    async def start(self) -> str:
        """Start it and wait until it answers; gives its AMQP URL.

        Raises CannotRunError if nothing is there to start, if a node for this `var` is alive
        already, or if it does not come up (with what its log says).
        """
        self.home.mkdir(parents=True, exist_ok=True)
        lock = await self._lock()
        try:
            if rabbitmq_server():
                await self._run_installed(lock)
            else:
                await asyncio.to_thread(_require_image)
                self._run_container(lock)
            os.pwrite(lock, f"{self.pid}\n".encode(), 0)
            await self._ready()
            record = {"url": self.url, "pid": self.pid, "log": str(self.log)}
            _write_private(_record(self.var), json.dumps(record))
        except BaseException:  # a Ctrl-C while it starts must not leave it behind either
            await self.kill()
            raise
        finally:
            os.close(lock)  # the server has inherited it and holds it until it has ended
        return self.url

    async def stop(self) -> None:
        """End it gracefully; if that takes too long, by force."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it at once, as `kill -9` does."""
        await self._end(signal.SIGKILL)

    async def _lock(self) -> int:
        """Hold this node's folder, or raise CannotRunError if a living node holds it."""
        lock = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        began = time.monotonic()
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.truncate(lock, 0)
                return lock
            # One whose parent was killed may be on its way out: give it the time.
            waited_s = time.monotonic() - began
            if waited_s > _STOP_S or (waited_s > 1 and joined(self.var)):
                pid = os.pread(lock, 20, 0).decode().strip() or "unknown"
                os.close(lock)
                raise CannotRunError(
                    f"a private broker for {self.var} is running already (process {pid}): "
                    "use that one, or stop it first"
                )
            await asyncio.sleep(0.1)

    async def _run_installed(self, lock: int) -> None:
        """Start the installed server, and for it a port mapper (epmd) of its own.

        The machine's epmd would be started on demand, on all interfaces, and left behind.
        """
        environment = self._configure()
        epmd = shutil.which("epmd", path=os.pathsep.join(_PLACES))
        if not epmd:
            raise CannotRunError("RabbitMQ is installed, but epmd (a part of Erlang) is not found")
        self._epmd = self._child([epmd, "-port", str(self._ports["epmd"])], environment)
        while not accepts(self._ports["epmd"]):
            if self._epmd.poll() is not None:
                raise CannotRunError(f"epmd did not start; {self.log} says:\n{self._complaint()}")
            await asyncio.sleep(0.01)
        self._server = self._child([rabbitmq_server() or "rabbitmq-server"], environment, lock)

    def _run_container(self, lock: int) -> None:
        """Start a container in the foreground: its client is the child process."""
        self._remove_container()
        settings = {
            "RABBITMQ_NODENAME": f"{_USER}@localhost",
            "RABBITMQ_DEFAULT_USER": _USER,
            "RABBITMQ_DEFAULT_PASS": self._password(),
        }
        command = ["docker", "run", "--rm", "--name", self._container]
        command += ["--volume", f"{self._container}:/var/lib/rabbitmq"]
        command += ["--publish", f"127.0.0.1:{self._ports['amqp']}:5672"]
        command += ["--publish", f"127.0.0.1:{self._ports['management']}:15672"]
        command += [word for name in settings for word in ("--env", name)]
        self._server = self._child([*command, IMAGE], os.environ | settings, lock)

    def _child(
        self, command: list[str], environment: Mapping[str, str], lock: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start one process, in a session of its own so that a Ctrl-C reaches it through us."""
        with self.log.open("wb" if lock is None else "ab") as log:
            child = subprocess.Popen(  # noqa: S603 - the commands are this module's
                command,
                env=environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=() if lock is None else (lock,),
                preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call, safe beside threads
            )
        self.pid = child.pid
        return child

    def _configure(self) -> dict[str, str]:
        """Write the node's configuration; gives the environment that makes it use nothing else."""
        configuration = _CONFIGURATION + (_MANAGEMENT if self._management else "")
        _write_private(
            self.home / "rabbitmq.conf",
            configuration.format(user=_USER, password=self._password(), **self._ports),
        )
        plugins = "[rabbitmq_management]." if self._management else "[]."
        (self.home / "enabled_plugins").write_text(plugins)
        foreign = ("RABBITMQ_", "ERL_", "NOTIFY_SOCKET")
        return {k: v for k, v in os.environ.items() if not k.startswith(foreign)} | {
            "HOME": str(self.home),  # the Erlang cookie's place: nobody else's node can join
            # Any name will do, since it is known to its own epmd alone; a new one loses the data.
            "RABBITMQ_NODENAME": f"{_USER}@localhost",
            "RABBITMQ_CONFIG_FILE": str(self.home / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(self.home / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.home / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self.home / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.home / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.home / "generated"),
            "RABBITMQ_SCHEMA_DIR": str(self.home / "generated"),
            "RABBITMQ_MNESIA_BASE": str(self.home / "data"),
            "RABBITMQ_LOG_BASE": str(self.home),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_DIST_PORT": str(self._ports["peers"]),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self._ports["epmd"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # Makes the start script become the server, instead of waiting for it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    async def _ready(self) -> None:
        """Wait until it speaks AMQP, which it does when all else is up."""
        began = time.monotonic()
        while not await asyncio.to_thread(speaks_amqp, "127.0.0.1", self._ports["amqp"]):
            ended = self._server.poll() if self._server else None
            if ended is None and time.monotonic() - began < _START_S:
                await asyncio.sleep(0.05)
                continue
            what = f"did not answer within {_START_S:.0f} s"
            if ended is not None:
                what = f"ended while it started (exit code {ended})"
            raise CannotRunError(f"RabbitMQ {what}; {self.log} says:\n{self._complaint()}")

    def _complaint(self) -> str:
        """Give the log's first error and what follows, or else its end."""
        lines = self.log.read_text(errors="replace").splitlines()
        errors = (number for number, line in enumerate(lines) if "[error]" in line)
        first = next(errors, max(0, len(lines) - _SHOWN_LINES))
        return "\n".join(f"  {line}" for line in lines[first : first + _SHOWN_LINES])

    async def _end(self, how: signal.Signals) -> None:
        """End what runs, the server before its port mapper, and wait for it."""
        server, self._server = self._server, None
        epmd, self._epmd = self._epmd, None
        self.pid = None
        try:
            if server:
                _record(self.var).unlink(missing_ok=True)
                await _end_process(server, how)
        finally:
            if epmd:
                epmd.kill()
                epmd.wait()
            elif server:
                self._remove_container()

    def _remove_container(self) -> None:
        """Remove the container, if there is one; the volume with its data has a name, and stays."""
        with suppress(subprocess.SubprocessError):  # there is none, as there should be
            _docker("rm", "--force", "--volumes", self._container, timeout_s=_STOP_S)

    def _password(self) -> str:
        """Give the password that the data was created with."""
        kept = self.home / "password"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            _write_private(kept, secrets.token_urlsafe(24))
        return kept.read_text()


async def _end_process(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Signal a process and what it started, and wait for its end; past the bound, kill it."""
    began = time.monotonic()
    try:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        while time.monotonic() - began < _STOP_S:
            if process.poll() is not None:
                return
            await asyncio.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _require_image() -> None:
    """Have a Docker engine and the image, or raise CannotRunError that names the ways."""
    if not docker_engine():
        raise CannotRunError(
            "no RabbitMQ found: install it (apt install rabbitmq-server), or start Docker, "
            "or set CHOREO_AMQP_URL to a broker that runs"
        )
    try:
        if not _docker("images", "--quiet", IMAGE, timeout_s=30):
            _docker("pull", "--quiet", IMAGE, timeout_s=900)
    except subprocess.CalledProcessError as error:
        raise CannotRunError(f"docker has no image {IMAGE}: {error.stderr.strip()}") from None
    except subprocess.TimeoutExpired:
        raise CannotRunError(f"docker did not get the image {IMAGE} in 15 minutes") from None


def _docker(*words: str, timeout_s: float) -> str:
    """Run a docker command and give what it prints."""
    done = subprocess.run(  # noqa: S603 - the words are this module's
        ["docker", *words],  # noqa: S607 - the user's own docker
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=True,
    )
    return done.stdout.strip()


def _container(var: Path) -> str:
    """What its container and the volume with its data are called."""
    return f"choreo-{sha256(bytes(var.resolve() / _HOME)).hexdigest()[:12]}"


def _record(var: Path) -> Path:
    """Where a running node is recorded, for others to join."""
    return var / "broker.json"


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(path)
