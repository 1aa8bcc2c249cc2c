"""kill -9 at every pair of boundaries of a delivery; `scripts/soak --pairs` runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from audit import audit
from cast import CONDUCTED_ORDERS
from system import SystemMaker, system_fixture  # noqa: F401 - a fixture
from test_crash_points import ONLY, failpoints, kill_at

from choreo.failpoint import POINTS

#: Every service dies twice in a row at such a pair: at the one, and at the other once it is back.
EVERYWHERE = [point for point in POINTS if point not in ONLY]


@pytest.mark.parametrize("first", EVERYWHERE)
async def test_killed_at_pairs(system: SystemMaker, tmp_path: Path, first: str) -> None:
    pairs = [(first, second) for second in EVERYWHERE]
    services = CONDUCTED_ORDERS[:6]
    plan: dict[str, list[str]] = {name: [] for name in services}
    for number, pair in enumerate(pairs):
        plan[services[number % len(services)]] += pair
    folder = failpoints(tmp_path, plan)
    async with system(CONDUCTED_ORDERS, CHOREO_FAILPOINTS=folder, ORDERS_DEADLINE_S=2) as running:
        letters = await kill_at(running, folder)
        await running.ended()
        audit(running, letters=letters)
