"""Three nodes of RabbitMQ in one cluster on this machine, whose lines to each other can be cut.

Each node has a port mapper (epmd) of its own. The others are entered in it with the ports of lines
that the test holds: so all that a node says to another passes through here, and nothing else does.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import socket
import struct
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from servers import PrivateBroker
from stage import until

from choreo.node import IMAGE, _docker, rabbitmq_server
from choreo.ports import accepts

NAMES = ("one", "two", "three")
#: What a container is told of the environment.
_GIVEN = ("RABBITMQ_", "ERL_", "RUNNING_", "HOME")
#: The plain scripts come first: what Debian has in their place changes the user.
_PATH = (
    "/usr/lib/rabbitmq/bin:/opt/rabbitmq/sbin:/opt/erlang/bin:"
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)
#: A node that hears nothing of another for so long takes it for lost.
TICK_S = 8
_CONFIGURATION = """\
cluster_partition_handling = {partitions}
cluster_formation.peer_discovery_backend = classic_config
"""
#: Not by `list_queues`, for which every node calls back: this one alone can find who asks.
_QUEUES = """
    [begin
         Leader = case amqqueue:get_pid(Queue) of {_, Node} -> Node; Pid -> node(Pid) end,
         Replicas = case amqqueue:get_type_state(Queue) of
             #{nodes := Some} when is_map(Some) -> maps:keys(Some);
             #{nodes := All} -> All
         end,
         {element(4, amqqueue:get_name(Queue)), Leader, Replicas}
     end || Queue <- rabbit_amqqueue:list()].
"""
_CLIENTS = """
    [Name || Pid <- rabbit_networking:local_connections(),
             [{client_properties, Given}]
                 <- [rabbit_networking:connection_info(Pid, [client_properties])],
             {_, _, Name} <- [lists:keyfind(<<"connection_name">>, 1, Given)]].
"""
_NAME = re.compile(r'<<"(.+?)">>')
_QUEUE = re.compile(r"{<<\"(.+?)\">>,\s*'?([\w@]+)'?,\s*\[(.*?)\]}", re.DOTALL)
_ATOM = re.compile(r"[\w@]+")


class Queue(NamedTuple):
    """Where a queue, or the journal, lives."""

    leader: str
    replicas: tuple[str, ...]


class Line:
    """Passes connections on to one of some ports; cut, it takes all that comes and passes nothing.

    What was connected while it was cut has lost something, and is reset when it is healed.
    """

    def __init__(self, *targets: int) -> None:
        self._targets = targets
        self._is_cut = False
        self._open: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self.port = 0

    def cut(self) -> None:
        """From now on nothing gets through, not even that a connection has ended."""
        self._is_cut = True

    def heal(self) -> None:
        """From now on new connections are sound."""
        self._is_cut = False
        for ends in self._open.values():
            for end in ends:
                end.transport.abort()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Take connections while the block lasts."""
        server = await asyncio.start_server(self._accept, "127.0.0.1")
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for task in (tasks := list(self._open)):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        ends = self._open[task] = [writer]
        try:
            if (target := await self._connected()) is None:
                return
            ends.append(target[1])
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._carry(reader, target[1]))
                ways.create_task(self._carry(target[0], writer))
        finally:
            for end in ends:
                end.transport.abort()
            del self._open[task]

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for port in random.sample(self._targets, len(self._targets)):
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if not self._is_cut:
                    writer.write(data)
                    await writer.drain()
            if not self._is_cut:
                writer.write_eof()


class Member(PrivateBroker):
    """One node of the cluster."""

    def __init__(self, var: Path, name: str, partitions: str, image: str | None) -> None:
        super().__init__(var)
        self.name = f"{name}@localhost"
        self.home.mkdir(parents=True)
        for kept in ("password", ".erlang.cookie"):
            (self.home / kept).touch(mode=0o600)
            (self.home / kept).write_text("known-to-all-of-the-cluster")
        self._partitions = partitions
        self._image = image
        #: Where it finds each other node, by name.
        self.lines: dict[str, Line] = {}
        self._entries: list[socket.socket] = []

    @property
    def peer_port(self) -> int:
        """Where the others reach it."""
        return self._ports["peers"]

    @property
    def amqp_port(self) -> int:
        """Where clients reach it."""
        return self._ports["amqp"]

    def _configure(self) -> dict[str, str]:
        environment = super()._configure()
        with (self.home / "rabbitmq.conf").open("a") as configuration:
            configuration.write(_CONFIGURATION.format(partitions=self._partitions))
            for number, name in enumerate(NAMES, 1):
                line = f"cluster_formation.classic_config.nodes.{number} = {name}@localhost\n"
                configuration.write(line)
        arguments = "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"
        return environment | {
            "RABBITMQ_NODENAME": self.name,
            arguments: f"{environment[arguments]} -kernel net_ticktime {TICK_S}",
        }

    async def _run_installed(self, lock: int) -> None:
        if self._image is None:
            await super()._run_installed(lock)
        else:
            self._run_container(lock)

    def _run_container(self, lock: int) -> None:
        """Start a container that has the machine's network and this node's folder."""
        self._remove_container()
        environment = self._configure()
        given = [name for name in environment if name.startswith(_GIVEN)]
        command = ["docker", "run", "--rm", "--name", self._container, "--network", "host"]
        command += ["--user", "root", "--volume", f"{self.home}:{self.home}"]
        command += [word for name in given for word in ("--env", name)]
        command += [
            "--env",
            f"PATH={_PATH}",
            "--entrypoint",
            "rabbitmq-server",
            self._image or IMAGE,
        ]
        self._server = self._child(command, environment, lock)

    async def _ready(self) -> None:
        for entry in self._entries:
            entry.close()
        mapper = self._ports["epmd"]
        await until(lambda: accepts(mapper), f"{self.name} has its port mapper")
        self._entries = [_entered(name, line.port, mapper) for name, line in self.lines.items()]
        await super()._ready()

    async def ctl(self, *words: str) -> str:
        if self._image is None and rabbitmq_server():
            return await super().ctl(*words)
        return await asyncio.to_thread(
            _docker, "exec", self._container, "rabbitmqctl", *words, timeout_s=60
        )


def _entered(name: str, port: int, epmd_port: int) -> socket.socket:
    """Enter a node in a port mapper (ALIVE2_REQ), for as long as the connection lasts.

    As a visible node that speaks versions 5 and 6 of Erlang's distribution over TCP.
    https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html
    """
    short = name.partition("@")[0].encode()
    wanted = struct.pack(f">BHBBHHH{len(short)}sH", 120, port, 77, 0, 6, 5, len(short), short, 0)
    mapper = socket.create_connection(("127.0.0.1", epmd_port), timeout=5)
    mapper.sendall(struct.pack(">H", len(wanted)) + wanted)
    answer = mapper.recv(16)
    assert answer[0] in (118, 121), f"epmd does not take {name}: {answer!r}"
    assert answer[1] == 0, f"epmd does not take {name}: {answer!r}"
    return mapper


class Cluster:
    """Three nodes that hold together until they are killed or cut off."""

    def __init__(self, folder: Path, partitions: str, image: str | None) -> None:
        """`partitions`: RabbitMQ's `cluster_partition_handling`; without an image as installed."""
        self.partitions = partitions
        self._is_old = image is None and rabbitmq_server() is not None
        self.members = {
            member.name: member
            for member in (Member(folder / name, name, partitions, image) for name in NAMES)
        }
        #: The line from a node to another, by their names.
        self.lines = {
            (one.name, other.name): Line(other.peer_port)
            for one, other in itertools.permutations(self.members.values(), 2)
        }
        for (one, other), line in self.lines.items():
            self.members[one].lines[other] = line
        self._balancer = Line(*(one.amqp_port for one in self.members.values()))

    @property
    def urls(self) -> str:
        """The URLs of all nodes, as CHOREO_AMQP_URL takes them."""
        return ",".join(one.url for one in self.members.values())

    @property
    def balanced_url(self) -> str:
        """One URL that leads to any node that takes connections."""
        one = next(iter(self.members.values()))
        return one.url.replace(f":{one.amqp_port}/", f":{self._balancer.port}/")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Form the cluster; kill it with the block."""
        async with AsyncExitStack() as stack:
            for line in (*self.lines.values(), self._balancer):
                await stack.enter_async_context(line.listening())
            for one in self.members.values():
                stack.push_async_callback(one.kill)
            # Up to 3.x the others find the first one, and from 4.x on the first waits for them.
            together = list(self.members.values())
            if self._is_old:
                await together.pop(0).start()
            await asyncio.gather(*(one.start() for one in together))
            yield

    def cut_off(self, name: str) -> None:
        """Neither of the others hears this node any more, and it hears neither."""
        for line in self._lines_of(name):
            line.cut()

    def heal(self, name: str) -> None:
        """They can find each other again."""
        for line in self._lines_of(name):
            line.heal()

    def _lines_of(self, name: str) -> Iterable[Line]:
        return [line for ends, line in self.lines.items() if name in ends]

    async def queues(self, ask: str) -> Mapping[str, Queue]:
        """What a node knows of each queue."""
        return {
            name: Queue(leader, tuple(_ATOM.findall(replicas)))
            for name, leader, replicas in _QUEUE.findall(
                await self.members[ask].ctl("eval", _QUEUES)
            )
        }

    async def clients(self, name: str) -> set[str]:
        """Who is connected to a node, by the names of the connections."""
        return set(_NAME.findall(await self.members[name].ctl("eval", _CLIENTS)))
