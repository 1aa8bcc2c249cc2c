"""A journal that cannot be read is said to be so, with what to do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import aiormq
import pytest

from choreo import CannotRunError
from choreo.rabbitmq.journal import Reader


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (aiormq.exceptions.ChannelNotFoundEntity("NOT_FOUND - no queue 'journal'"), "declare"),
        # As RabbitMQ 3.10 and 4.3 answer for some seconds after they have started.
        (aiormq.exceptions.ChannelNotFoundEntity("NOT_FOUND - home node is down"), "try again"),
        (aiormq.exceptions.ConnectionInternalError("INTERNAL_ERROR"), "INTERNAL_ERROR"),
    ],
)
async def test_it_says_why_it_cannot_be_read(error: Exception, said: str) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise error

    async def nothing(**_: object) -> None:
        pass

    channel: Any = SimpleNamespace(
        closing=SimpleNamespace(add_done_callback=lambda _: None),
        on_consumer_cancel_callbacks=set(),
        basic_qos=nothing,
        basic_consume=refuse,
    )
    with pytest.raises(CannotRunError, match=said):
        await Reader(channel).attach("first")
