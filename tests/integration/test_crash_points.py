"""kill -9 at every boundary of a delivery; the results stand in docs/reliability.md."""

from __future__ import annotations

import fcntl
import re
import time
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path

import pytest
from audit import audit
from cast import CONDUCTED_ORDERS
from processes import PATIENCE_S, ROOT
from stage import until
from starts import mixed
from system import System, SystemMaker, system_fixture  # noqa: F401 - a fixture

from choreo.failpoint import POINTS
from choreo.outgoing import first
from contracts.orders import FulfilOrder

PAGE = ROOT / "docs/reliability.md"
ROW = "| `{}` | {} | {} | {} |"
#: Where only some services come by; at every other point each of these may die.
ONLY = {
    "call_begun": "payments", "called": "shipping", "undoing": "inventory", "undone": "payments",
    "deadline": "orders", "failed": "orders", "parked": "orders", "due": "orders",
    "conducting": "order_process", "conducted": "order_process",
}  # fmt: skip
EVERYBODY = ("orders", "inventory", "payments", "shipping", "rewards", "order_process")
MANY = 30


def victims(points: Iterable[str]) -> dict[str, list[str]]:
    """Which service dies at which points, one after the other; the work is spread."""
    found: dict[str, list[str]] = {}
    turns = cycle(EVERYBODY)
    for point in points:
        found.setdefault(ONLY.get(point) or next(turns), []).append(point)
    return found


def failpoints(tmp_path: Path, plan: dict[str, list[str]]) -> Path:
    """The folder that tells the services where to die."""
    folder = tmp_path / "failpoints"
    folder.mkdir()
    for service, points in plan.items():
        (folder / service).write_text("".join(f"{point}\n" for point in points))
    return folder


async def kill_at(running: System, folder: Path) -> int:
    """Let each service die at each of its points while orders come in; gives how many came."""
    await running.start()
    rounds, letters = 0, 0

    def left() -> list[str]:
        # Beside a file there may be the draft of what is to take its place.
        files = {one.name: one.read_text().split() for one in folder.iterdir() if not one.suffix}
        return [f"{name} at {point}" for name, points in files.items() for point in points]

    while left():
        assert rounds < 40, f"never reached: {left()}"
        rounds += 1
        before = len(left())
        await running.place(*mixed(MANY, prefix=f"{rounds}-", conducted=rounds % 2 == 0))
        # Nobody waits for this order: it ends as a dead letter.
        letters += 1
        stray = FulfilOrder(order_id=f"none-{rounds}", shipment_id="none")
        await running.publish(first(stray, running.ids, time.time(), "/system/test"))
        await until(
            lambda before=before, flows=set(running.placed): (
                len(left()) < before  # type: ignore[misc]
                or flows <= running.ends.keys()
            ),
            "a service dies, or all orders end",
            2 * PATIENCE_S,
        )
    return letters


@pytest.mark.timeout(900)
async def test_killed_at_every_point(
    system: SystemMaker, tmp_path: Path, database_url: str
) -> None:
    plan = victims(POINTS)
    folder = failpoints(tmp_path, plan)
    async with system(CONDUCTED_ORDERS, CHOREO_FAILPOINTS=folder, ORDERS_DEADLINE_S=2) as running:
        letters = await kill_at(running, folder)
        await running.ended()
        audit(running, letters=letters)
        # Who dies when all has ended already may be seen to somewhat later.
        deaths = sorted(service for service, points in plan.items() for _ in points)
        await until(lambda: killed(running) == deaths, f"the deaths are {deaths}")
    write_down(POINTS, "SQLite" if database_url.startswith("sqlite") else "PostgreSQL")


def killed(running: System) -> list[str]:
    """Whom a signal 9 has ended, as often as it was so."""
    return sorted(one.name for one in running.logs if "ended by signal 9" in one.text)


def write_down(points: Iterable[str], database: str) -> None:
    """Put the result into the page, whoever else does at the same time."""
    with PAGE.open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        text = file.read()
        column = ("SQLite", "PostgreSQL").index(database)
        for point in points:
            found = re.search(rf"^\| `{point}` \|.*\| (.*?) \| (.*?) \|$", text, re.MULTILINE)
            assert found, f"{PAGE.name} has no row for {point}"
            marks = list(found.groups())
            marks[column] = "holds"
            text = text.replace(found[0], ROW.format(point, POINTS[point], *marks))
        file.seek(0)
        file.truncate()
        file.write(text)
