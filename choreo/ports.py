"""Ports: free ones for servers of our own, and who listens on one."""

from __future__ import annotations

import itertools
import os
import socket
from contextlib import ExitStack, suppress

#: Below those that the system gives to clients.
_PORTS = range(20_000, 32_000)
#: What is found free is bound only later: until then it is not found again here, and processes that
#: look at the same time begin far from each other.
_places = itertools.count(os.getpid() * 101)


def accepts(port: int) -> bool:
    """Whether anybody listens on this local port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def speaks_amqp(host: str, port: int) -> bool:
    """Whether a broker greets there; a proxy in front of it that merely accepts does not."""
    connection_start = bytes([0, 10, 0, 10])
    with suppress(OSError), socket.create_connection((host, port), timeout=1) as broker:
        broker.sendall(b"AMQP\x00\x00\x09\x01")
        return broker.recv(11)[7:] == connection_start
    return False


def free_ports(*names: str) -> dict[str, int]:
    """Choose a free local port for each name, below those that the system gives to clients.

    A client that reconnects while the node is down could otherwise be given the node's own port.
    """
    ports: dict[str, int] = {}
    with ExitStack() as held:
        while len(ports) < len(names):
            port = _PORTS[next(_places) % len(_PORTS)]
            with suppress(OSError):
                probe = held.enter_context(socket.socket())
                probe.bind(("127.0.0.1", port))
                ports[names[len(ports)]] = port
    return ports
