"""Services that die or are stopped under load, and messages that kill them."""

from __future__ import annotations

import pytest
from audit import audit
from cast import ORDERS
from stage import until
from starts import mixed
from system import SystemMaker, system_fixture  # noqa: F401 - a fixture

FLOWS = 200


@pytest.mark.long_on_postgres
@pytest.mark.parametrize(
    "victims",
    [*(pytest.param((name,), marks=pytest.mark.long) for name in ORDERS), tuple(ORDERS)],
    ids=[*ORDERS, "all"],
)
async def test_killed_under_load(system: SystemMaker, victims: tuple[str, ...]) -> None:
    async with system() as running:
        await running.start()
        await running.under_way(mixed, FLOWS)
        seen = len(running.logs)
        running.kill(*victims)
        await running.consuming(victims, since=seen)
        await running.ended()
        audit(running)
        killed = [said.name for said in running.logs if "ended by signal 9" in said.text]
        assert sorted(killed) == sorted(victims)


@pytest.mark.long_on_postgres
async def test_stopped_under_load(system: SystemMaker) -> None:
    # In good order it stops if it has the time to finish what it has in hand.
    async with system(CHOREO_GRACE_S=100) as running:
        await running.start()
        await running.under_way(mixed, FLOWS)
        seen = len(running.logs)
        running.terminate(*ORDERS)
        await until(
            lambda: {said.name for said in running.said("stopped", seen)} == set(ORDERS),
            "all have stopped", 120,
        )  # fmt: skip
        await running.consuming(ORDERS, since=seen)
        ended = [(one.name, one.text) for one in running.logs[seen:] if "ended with" in one.text]
        assert {name for name, _ in ended} == set(ORDERS)
        assert all("exit code 0" in text for _, text in ended)
        await running.ended()
        audit(running)
