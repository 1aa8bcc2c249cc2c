"""Which connection is given up for a publish that is not confirmed in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from choreo import log
from choreo.envelope import Envelope
from choreo.rabbitmq import RabbitMQ, broker
from choreo.seams import Outgoing
from choreo.settings import Settings


class Line:
    """A link whose broker never confirms a message that is called ill."""

    def __init__(self) -> None:
        self.main: Any = SimpleNamespace()
        self.suspected: list[str] = []

    async def channel(self) -> Any:
        return self.main

    @asynccontextmanager
    async def channel_apart(self) -> AsyncIterator[Any]:
        yield SimpleNamespace()

    def suspect(self, _: object, why: str) -> None:
        self.suspected.append(why)

    def reset(self, _: object, why: str) -> None:
        pass


@pytest.fixture(name="line")
def line_fixture(monkeypatch: pytest.MonkeyPatch) -> Line:
    async def write(_: object, messages: Sequence[Outgoing]) -> dict[str, Any]:
        return {one.envelope.id: None for one in messages}

    async def confirmed(_: object, confirms: dict[str, Any]) -> None:
        if "ill" in confirms:
            await asyncio.Event().wait()

    monkeypatch.setattr(broker, "write", write)
    monkeypatch.setattr(broker, "confirmed", confirmed)
    monkeypatch.setattr(broker, "refusals", lambda messages, _, reason: (
        {one.envelope.id: reason for one in messages} if reason else {}
    ))  # fmt: skip
    return Line()


def message(identifier: str) -> Outgoing:
    envelope = Envelope(identifier, "a.b.v1", "/x/y", "2026-01-01T00:00:00Z", identifier)
    return Outgoing("a", "a.b.v1", envelope, b"{}")


@pytest.mark.parametrize("others", [True, False])
async def test_a_node_is_given_up_unless_it_confirms_others(line: Line, others: bool) -> None:
    settings = Settings(publish_timeout_s=0.1)
    rabbit = RabbitMQ("amqp://one/", settings, "test", log.logger("test"))
    rabbit._publishing = line  # type: ignore[assignment]
    rabbit._failed.add("ill")  # so that it goes on a channel of its own
    publishing = asyncio.create_task(rabbit.publish([message("ill")]))
    await asyncio.sleep(0)
    if others:
        assert await rabbit.publish([message("well")]) == {}
    assert "ill" in await publishing
    assert bool(line.suspected) != others
