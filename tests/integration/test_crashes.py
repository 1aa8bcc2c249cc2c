"""Services that die or are stopped under load, and messages that kill them."""

from __future__ import annotations

import time

import pytest
from audit import audit
from system import (
    PATIENCE_S,
    SERVICES,
    SystemMaker,
    mixed,
    system_fixture,  # noqa: F401 - a fixture
)

ORDERS = 200


@pytest.mark.parametrize(
    "victims", [*((name,) for name in SERVICES), tuple(SERVICES)], ids=[*SERVICES, "all"]
)
async def test_killed_under_load(system: SystemMaker, victims: tuple[str, ...]) -> None:
    async with system() as running:
        await running.start()
        await running.under_way(mixed(ORDERS))
        seen = len(running.logs)
        running.kill(*victims)
        await running.consuming(victims, since=seen)
        await running.ended()
        audit(running)
        killed = [said.name for said in running.logs if "ended by signal 9" in said.text]
        assert sorted(killed) == sorted(victims)


async def test_stopped_under_load(system: SystemMaker) -> None:
    async with system() as running:
        await running.start()
        await running.under_way(mixed(ORDERS))
        seen, began = len(running.logs), time.monotonic()
        running.terminate(*SERVICES)
        await running.consuming(SERVICES, since=seen)
        assert time.monotonic() - began < PATIENCE_S
        ended = [(one.name, one.text) for one in running.logs[seen:] if "ended with" in one.text]
        assert {name for name, _ in ended} == set(SERVICES)
        assert all("exit code 0" in text for _, text in ended)
        assert {said.name for said in running.said("stopped", seen)} == set(SERVICES)
        await running.ended()
        audit(running)
