"""RabbitMQ's management API: what AMQP cannot tell, such as bindings, alarms and other queues."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections import deque
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from choreo.errors import ChoreoError
from choreo.rabbitmq.link import addresses
from choreo.settings import Settings

Json = dict[str, Any]
TIMEOUT_S = 10
_QUEUE = "name,type,durable,arguments,messages,consumers,effective_policy_definition"
#: How an AMQP scheme is spoken to here, and where the plugin listens by itself.
_DEFAULTS = {"amqp": ("http", 15672), "amqps": ("https", 15671)}


class UnreachableError(ChoreoError):
    """The management API does not tell; the text says why."""


class Management:
    """The management API of the broker that an AMQP URL leads to, for its virtual host.

    With the URLs of a cluster's nodes, of the first that answers.

    Raises UnreachableError if it does not answer, or not this user; ValueError if
    CHOREO_MANAGEMENT_URL is no URL of HTTP.
    """

    def __init__(self, settings: Settings, amqp_url: str) -> None:
        nodes = [urlsplit(str(one)) for one in addresses(amqp_url)]
        amqp = nodes[0]
        given = urlsplit(settings.management_url or _default(amqp))
        if given.scheme not in ("http", "https"):
            raise ValueError("CHOREO_MANAGEMENT_URL is no URL of HTTP (http://host:15672)")
        path = given.path.rstrip("/").removesuffix("/api")
        self._base = f"{given.scheme}://{given.netloc.rpartition('@')[2]}{path}/api"
        #: Where else it may answer: each node of a cluster has it.
        self._others = deque(
            [] if settings.management_url else [f"{_default(one)}/api" for one in nodes[1:]]
        )
        login = given if given.username else amqp
        user, password = (unquote(one or "guest") for one in (login.username, login.password))
        self._login = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._vhost = quote(unquote(amqp.path[1:]) or "/", safe="")

    def __str__(self) -> str:
        return self._base

    def cluster(self) -> str:
        """The name of the cluster: whose API this is."""
        found = self._ask("overview")
        return str(found.get("cluster_name", "")) if isinstance(found, dict) else ""

    def nodes(self) -> list[Json]:
        """The nodes with their alarms; the user needs the tag `monitoring`."""
        return self._list("nodes")

    def bindings(self) -> list[Json]:
        """Every binding of the virtual host."""
        return self._list(f"bindings/{self._vhost}")

    def queues(self) -> list[Json]:
        """Every queue of the virtual host; its figures may be some seconds old, or missing."""
        return self._list(f"queues/{self._vhost}?columns={_QUEUE}")

    def topic_permissions(self) -> list[Json]:
        """Who may publish which routing keys; the user needs the tag `administrator`."""
        return self._list(f"vhosts/{self._vhost}/topic-permissions")

    def unbind(self, queue: str, exchange: str, properties_key: str) -> None:
        """Take a binding away."""
        parts = (quote(one, safe="") for one in (exchange, queue, properties_key))
        self._ask("bindings/{}/e/{}/q/{}/{}".format(self._vhost, *parts), method="DELETE")

    def delete_queue(self, queue: str) -> None:
        """Delete a queue with what is in it."""
        self._ask(f"queues/{self._vhost}/{quote(queue, safe='')}", method="DELETE")

    def _list(self, path: str) -> list[Json]:
        found = self._ask(path)
        if not isinstance(found, list):
            raise UnreachableError(f"{self} answers something else than RabbitMQ")
        return found

    def _ask(self, path: str, method: str = "GET") -> Any:
        refusals = []
        for _ in range(1 + len(self._others)):
            try:
                return self._ask_here(path, method)
            except UnreachableError as error:
                refusals.append(str(error))
                self._others.append(self._base)
                self._base = self._others.popleft()
        raise UnreachableError("; ".join(refusals))

    def _ask_here(self, path: str, method: str) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the scheme is looked at above
            f"{self._base}/{path}",
            method=method,
            headers={"Authorization": f"Basic {self._login}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
                body = answer.read()
            return json.loads(body) if method == "GET" else None
        except urllib.error.HTTPError as error:
            raise UnreachableError(f"{self} {_refusal(error.code)}") from error
        except ValueError as error:
            raise UnreachableError(f"{self} answers something else than RabbitMQ") from error
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            raise UnreachableError(f"{self} does not answer ({reason})") from error


def _default(amqp: SplitResult) -> str:
    """Where the plugin listens by itself, on the node that an AMQP URL leads to."""
    scheme, port = _DEFAULTS[amqp.scheme]
    # Brackets belong to the host of a URL where it is an IPv6 address.
    host = f"[{amqp.hostname}]" if ":" in (amqp.hostname or "") else amqp.hostname
    return f"{scheme}://{host}:{port}"


def _refusal(status: int) -> str:
    if status in (401, 403):
        return "refuses this user: give it the tag 'monitoring' (rabbitmqctl set_user_tags)"
    return f"answers with status {status}"
