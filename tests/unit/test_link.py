"""The URLs of a broker: one, or a cluster's, of which any will do; and no password is shown."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import aio_pika
import pytest
from yarl import URL

from choreo import CannotRunError, log
from choreo.management import Management, UnreachableError
from choreo.rabbitmq import link as links
from choreo.rabbitmq.link import Link, addresses, explain, first_of
from choreo.settings import Settings

ONE, TWO, THREE = (f"amqp://me:se,cret@{name}:5672/" for name in ("one", "two", "three"))
CLUSTER = f"{ONE},{TWO} , {THREE}"


def hosts(urls: list[URL]) -> list[str | None]:
    return [url.host for url in urls]


def test_one_url_is_itself() -> None:
    assert addresses(ONE) == [URL(ONE)]
    assert addresses(ONE)[0].password == "se,cret"


def test_a_list_is_tried_in_turn_from_a_random_one() -> None:
    seen = {tuple(hosts(addresses(CLUSTER))) for _ in range(200)}
    assert seen == {("one", "two", "three"), ("two", "three", "one"), ("three", "one", "two")}


def test_a_comma_too_many_is_no_virtual_host() -> None:
    assert addresses(f"{ONE}, ") == [URL(ONE)]


async def test_a_mistake_in_the_code_is_no_refusal() -> None:
    async def connect(_: URL) -> None:
        raise AttributeError("no attribute")

    with pytest.raises(AttributeError):
        await first_of(CLUSTER, connect)


@pytest.mark.parametrize("url", ["", "http://one/", f"{ONE},http://two/"])
def test_what_is_no_amqp_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="a URL of"):
        addresses(url)


async def test_the_first_node_that_can_be_used_is() -> None:
    async def connect(url: URL) -> str:
        if url.host != "two":
            raise ConnectionRefusedError("refused")
        return "connected"

    assert {await first_of(CLUSTER, connect) for _ in range(20)} == {"connected"}


async def test_when_none_can_be_used_each_says_why_without_its_password() -> None:
    async def connect(url: URL) -> None:
        raise ConnectionRefusedError(f"not {url.host}")

    with pytest.raises(CannotRunError) as refused:
        await first_of(CLUSTER, connect)
    said = str(refused.value)
    assert all(f"no RabbitMQ at amqp://me@{one}:5672/ (not {one})" in said
               for one in ("one", "two", "three"))  # fmt: skip
    assert "cret" not in said
    assert explain(refused.value, CLUSTER) == said


def test_no_password_of_a_list_is_shown() -> None:
    said = explain(TimeoutError(), CLUSTER)
    assert said.startswith("RabbitMQ at amqp://me@one:5672/, amqp://me@two:5672/, amqp://me@three")
    assert "cret" not in said


async def test_a_channel_of_a_connection_that_was_just_lost_is_no_bare_runtime_error() -> None:
    class Closed:
        is_closed = True

        async def ready(self) -> None:
            pass

        async def channel(self) -> None:
            raise RuntimeError("closed")  # as aiormq does

    async def nothing(_: Any) -> None:
        pass

    link = Link(ONE, Settings(), "test", log.logger("test"), nothing)
    link._channel = SimpleNamespace(connection=Closed())  # type: ignore[assignment]
    link._opened.set()
    with pytest.raises(ConnectionError):
        async with link.channel_apart():
            pass


async def test_a_connection_that_cannot_be_closed_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else it closes itself once more when it is collected, when no loop may run any more."""
    monkeypatch.setattr(links, "CLOSE_TIMEOUT_S", 0.1)

    async def nothing(_: Any) -> None:
        pass

    link = Link(ONE, Settings(), "test", log.logger("test"), nothing)
    connection = link._connection = aio_pika.Connection(URL(ONE))
    silent: Any = SimpleNamespace(close=lambda *_: asyncio.Event().wait())
    connection.transport = silent
    await link.close()
    assert connection.is_closed


def test_the_management_api_is_asked_of_the_next_node_where_one_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def ask(self: Management, path: str, method: str) -> list[dict[str, str]]:
        asked.append(str(self))
        if str(self) != "http://two:15672/api":
            raise UnreachableError(str(self))
        return [{"asked": path}]

    monkeypatch.setattr(Management, "_ask_here", ask)
    api = Management(Settings(), CLUSTER)
    assert api.bindings() == api.bindings() == [{"asked": "bindings/%2F"}]
    assert asked[-2:] == ["http://two:15672/api"] * 2
    assert len(asked) <= 4
