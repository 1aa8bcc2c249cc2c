"""The servers that the integration tests run on: containers, or else processes of this machine."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from choreo import node, ports

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

POSTGRES_IMAGE = "postgres:17"
_USER = "choreo"
_PASSWORD = "test"
_START_S = 180.0
# Nobody wants the tests' data back, and some tests run many services with several connections.
_POSTGRES_SETTINGS = ["fsync=off", "max_connections=300"]
_numbers = itertools.count(1)

#: The oldest, one between and the newest of what is supported: in which image; None: installed.
VERSIONS = {"3.10": None, "4.0": "rabbitmq:4.0-management", "4.3": "rabbitmq:4-management"}

# The fixtures end the containers themselves; the helper that would do it needs another image.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")


@dataclass(frozen=True)
class Choice:
    """What the integration tests run on. Without a kind they cannot, and the text says why."""

    kind: Literal["docker", "private"] | None
    text: str
    #: RabbitMQ's, where they are containers.
    image: str = node.IMAGE


def choose() -> Choice:
    """Containers where there is an engine; `CHOREO_TEST_SERVERS` insists on one of the kinds."""
    wanted = os.environ.get("CHOREO_TEST_SERVERS", "")
    if wanted not in ("", "docker", "private"):
        return Choice(None, f"CHOREO_TEST_SERVERS must be docker or private, not {wanted!r}")
    if wanted != "private" and (engine := node.docker_engine()):
        return Choice("docker", f"testcontainers ({node.IMAGE}, {POSTGRES_IMAGE}), Docker {engine}")
    if wanted == "docker":
        return Choice(None, "CHOREO_TEST_SERVERS is docker, but no Docker engine answers")
    rabbitmq, postgres = node.rabbitmq_server(), _postgres_program("postgres")
    if rabbitmq and postgres:
        return Choice("private", f"private processes ({_versions(rabbitmq, postgres)})")
    return Choice(
        None,
        "the integration tests need RabbitMQ and PostgreSQL: start Docker, or install both "
        "(apt install rabbitmq-server postgresql)",
    )


def versions() -> list[str]:
    """The brokers that the tests of the connection run on, by `CHOREO_TEST_BROKERS`.

    "default" is what all the other tests run on.
    """
    named = os.environ.get("CHOREO_TEST_BROKERS", "default")
    found = [name.strip() for name in named.split(",")]
    if unknown := set(found) - {"default", *VERSIONS}:
        known = ", ".join(["default", *VERSIONS])
        raise ValueError(f"CHOREO_TEST_BROKERS names {', '.join(unknown)}, and knows {known}")
    return found


def choose_version(version: str) -> Choice:
    """A broker of this version; without a kind this machine has none, and the text says why."""
    if image := VERSIONS[version]:
        choice, found = Choice("docker", image, image), _version_in(image)
    else:
        rabbitmq = node.rabbitmq_server()
        choice = Choice("private", "the installed rabbitmq-server")
        found = _version_of(rabbitmq) if rabbitmq else "not there"
    if f"{found}.".startswith(f"{version}."):
        return choice
    return Choice(None, f"no RabbitMQ {version} to test with: {choice.text} is {found}")


def _version_in(image: str) -> str:
    """The RabbitMQ in an image; or why that cannot be told."""
    command = ["docker", "run", "--rm", "--entrypoint", "rabbitmqctl", image, "version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"out of reach ({error})"
    except subprocess.CalledProcessError as error:
        return f"out of reach ({error.stderr.strip()})"
    return done.stdout.strip()


class Broker(Protocol):
    """A RabbitMQ that keeps its port and its data when it is ended and started again."""

    @property
    def url(self) -> str: ...
    @property
    def management_url(self) -> str: ...
    async def start(self) -> str: ...
    async def stop(self) -> None: ...
    async def kill(self) -> None: ...
    async def ctl(self, *words: str) -> str:
        """Run `rabbitmqctl` on it; gives what that says."""
        ...


@asynccontextmanager
async def running_broker(choice: Choice, *, management: bool) -> AsyncIterator[Broker]:
    """Run a broker while the block lasts; what it stored goes with it.

    With `management` a test can have a virtual host in it; without, it stops within a second.
    """
    if choice.kind == "docker":
        with _rabbitmq_container(choice.image) as container:
            broker = ContainerBroker(container)
            await broker.start()
            yield broker
        return
    with tempfile.TemporaryDirectory(prefix="choreo-rabbitmq-") as folder:
        private = PrivateBroker(Path(folder), management=management)
        await private.start()
        try:
            yield private
        finally:
            await private.kill()


class PrivateBroker(node.Node):
    """A private node that the tests command, too."""

    async def ctl(self, *words: str) -> str:
        program = shutil.which("rabbitmqctl", path=os.pathsep.join(node._PLACES)) or "rabbitmqctl"
        process = await asyncio.create_subprocess_exec(
            program, *words, env=self._configure(), stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await process.communicate())[0].decode()
        return _said(words, said, process.returncode)


def _said(words: tuple[str, ...], said: str, code: int | None) -> str:
    if code:
        raise RuntimeError(f"rabbitmqctl {' '.join(words)} ended with {code}:\n{said}")
    return said


class ContainerBroker:
    """RabbitMQ in a container, controlled like a private node."""

    def __init__(self, container: DockerContainer) -> None:
        self._container = container
        self._host = container.get_container_host_ip()
        self._amqp = container.get_exposed_port(5672)
        self._management = container.get_exposed_port(15672)

    @property
    def url(self) -> str:
        return f"amqp://{_USER}:{_PASSWORD}@{self._host}:{self._amqp}/"

    @property
    def management_url(self) -> str:
        return f"http://{_USER}:{_PASSWORD}@{self._host}:{self._management}/api"

    async def start(self) -> str:
        await asyncio.to_thread(self._start)
        return self.url

    def _start(self) -> None:
        self._container.get_wrapped_container().start()
        until = time.monotonic() + _START_S
        while not ports.speaks_amqp(self._host, self._amqp):
            if time.monotonic() > until:
                raise RuntimeError(
                    f"RabbitMQ did not start; its log:\n{self._container.get_logs()}"
                )
            time.sleep(0.05)

    async def stop(self) -> None:
        await asyncio.to_thread(self._container.get_wrapped_container().stop)

    async def kill(self) -> None:
        await asyncio.to_thread(self._container.get_wrapped_container().kill)

    async def ctl(self, *words: str) -> str:
        run = self._container.get_wrapped_container().exec_run
        code, said = await asyncio.to_thread(run, ["rabbitmqctl", *words])
        return _said(words, said.decode(), code)


@contextmanager
def _rabbitmq_container(image: str) -> Iterator[DockerContainer]:
    from testcontainers.core.container import DockerContainer

    fixed = ports.free_ports("amqp", "management")  # to outlast a restart
    container = DockerContainer(image)
    container.with_envs(RABBITMQ_DEFAULT_USER=_USER, RABBITMQ_DEFAULT_PASS=_PASSWORD)
    container.with_bind_ports(5672, fixed["amqp"]).with_bind_ports(15672, fixed["management"])
    with container:
        yield container


@contextmanager
def vhost(broker: Broker) -> Iterator[str]:
    """Give the URL of a virtual host of its own on a broker, deleted afterwards."""
    name = f"t{next(_numbers)}"
    _manage(broker, "PUT", f"vhosts/{name}")
    try:
        yield f"{broker.url}{name}"
    finally:
        _manage(broker, "DELETE", f"vhosts/{name}")


def _manage(broker: Broker, method: str, path: str) -> None:
    """Call the management API."""
    at = urlsplit(broker.management_url)
    login = base64.b64encode(f"{at.username}:{at.password}".encode()).decode()
    request = urllib.request.Request(
        f"http://{at.hostname}:{at.port}{at.path}/{path}",
        method=method,
        headers={"Authorization": f"Basic {login}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120):
        pass


@contextmanager
def running_postgres(choice: Choice) -> Iterator[str]:
    """Run a PostgreSQL while the block lasts; gives the URL of its `postgres` database."""
    with _postgres_container() if choice.kind == "docker" else _private_postgres() as url:
        yield url


@contextmanager
def _postgres_container() -> Iterator[str]:
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(POSTGRES_IMAGE).with_exposed_ports(5432)
    container.with_envs(POSTGRES_USER=_USER, POSTGRES_PASSWORD=_PASSWORD, POSTGRES_DB="postgres")
    with container.with_command(["postgres", *_options([])]):
        host, port = container.get_container_host_ip(), container.get_exposed_port(5432)
        url = f"postgresql://{_USER}:{_PASSWORD}@{host}:{port}/postgres"
        _until_postgres_answers(url, lambda: str(container.get_logs()))
        yield url


@contextmanager
def _private_postgres() -> Iterator[str]:
    user = _postgres_user()
    port = ports.free_ports("postgres")["postgres"]
    url = f"postgresql://{_USER}:{_PASSWORD}@127.0.0.1:{port}/postgres"
    with tempfile.TemporaryDirectory(prefix="choreo-postgres-") as folder:
        home = Path(folder)
        (home / "password").write_text(_PASSWORD)
        shutil.chown(home, user)
        login = ["--username", _USER, "--pwfile", "password", "--auth", "scram-sha-256"]
        subprocess.run(
            [_postgres_program("initdb") or "initdb", "--no-sync", "-D", "data", *login],
            cwd=home,
            user=user,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        settings = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories="]
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(
                [_postgres_program("postgres") or "postgres", "-D", "data", *_options(settings)],
                cwd=home,
                user=user,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=node.end_with_parent,  # noqa: PLW1509 - one system call
            )
        try:
            _until_postgres_answers(url, (home / "log").read_text)
            yield url
        finally:
            server.send_signal(signal.SIGINT)  # ends the sessions, too
            server.wait(_START_S)


def _options(settings: list[str]) -> list[str]:
    return [word for setting in [*_POSTGRES_SETTINGS, *settings] for word in ("-c", setting)]


def _until_postgres_answers(url: str, log: Callable[[], str]) -> None:
    until = time.monotonic() + _START_S
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL did not start; its log:\n{log()}") from None
            time.sleep(0.05)
        else:
            return


def _postgres_user() -> str | int:
    """PostgreSQL refuses to run as root: then as the user whom its package has made."""
    if os.getuid() != 0:
        return os.getuid()
    with suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    return "nobody"


def _postgres_program(name: str) -> str | None:
    """The newest on this machine; Debian keeps them off the PATH."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda f: float(f.parent.name), reverse=True
    )
    return shutil.which(name, path=os.pathsep.join([*map(str, folders), *os.get_exec_path()]))


def _versions(rabbitmq: str, postgres: str) -> str:
    said = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=True)
    number = re.search(r"[\d.]+", said.stdout)
    return f"RabbitMQ {_version_of(rabbitmq)}, PostgreSQL {number[0] if number else '?'}"


def _version_of(rabbitmq: str) -> str:
    folder = re.search(r"rabbitmq_server-([\d.]+)", str(Path(rabbitmq).resolve()))
    return folder[1] if folder else "?"


class Databases:
    """Databases for one test on a PostgreSQL server, one per service, dropped at its end."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._prefix = f"t{next(_numbers)}_"
        self._names: list[str] = []
        address = server_url.removeprefix("postgresql").removesuffix("/postgres")
        self.url = f"postgresql+psycopg{address}/{self._prefix}{{service}}"

    def create(self, *services: str) -> None:
        """Create an empty database for each of these services."""
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            for service in services:
                name = self._prefix + service
                # Where nothing is synced to disk, a tenth of the time of the default way.
                statement = sql.SQL("CREATE DATABASE {} STRATEGY file_copy")
                connection.execute(statement.format(sql.Identifier(name)))
                self._names.append(name)

    def drop(self) -> None:
        """Drop them all, whoever is still connected."""
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            for name in self._names:
                statement = sql.SQL("DROP DATABASE {} WITH (FORCE)")
                connection.execute(statement.format(sql.Identifier(name)))
