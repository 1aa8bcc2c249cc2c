"""Every process for minutes under faults that a seed draws; `scripts/soak` runs it.

The choices (which faults, on whom, after how long, with how many flows) come from the seed alone.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from audit import audit, repeated
from cast import ALL
from faults import BESIDES, DEAF, FAULTS, HEARTBEAT_S, Place, small_disk
from processes import ROOT
from proxy import proxied
from servers import Broker
from starts import mixed_flows
from system import System

PAGE = ROOT / "docs/reliability.md"
ROUND_FLOWS = (20, 60)
SETTLED_S = 300.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What one round does."""

    flows: int
    fault: str
    victims: tuple[str, ...]
    #: So long after the flows are begun.
    after_s: float
    #: What happens in the middle of it, and to whom.
    beside: str
    others: tuple[str, ...]


def choices(seed: int) -> Callable[[], Choice]:
    """Draws one round after the other; equal seeds draw equal rounds."""
    drawn = random.Random(seed)

    def some() -> tuple[str, ...]:
        return tuple(drawn.sample(ALL, drawn.choice((1, 1, 2, len(ALL)))))

    def draw() -> Choice:
        return Choice(
            flows=drawn.randint(*ROUND_FLOWS),
            fault=drawn.choice(list(FAULTS)),
            victims=some(),
            after_s=drawn.uniform(0.0, 2.0),
            beside=drawn.choice(BESIDES),
            others=some(),
        )

    return draw


async def test_soak(
    broker_control: Broker,
    database_url: str,
    create_databases: Callable[..., None],
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    minutes, seed = (float(pytestconfig.getoption(one)) for one in ("--minutes", "--seed"))
    create_databases(*ALL)
    on_sqlite = database_url.startswith("sqlite")
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(tmp_path / "disk")) if on_sqlite else None
        if on_sqlite:
            database_url = f"sqlite:///{tmp_path}/disk/{{service}}.db"
        line = proxied(broker_control.url)
        async with line as proxy, System(
            broker_control.url, database_url, tmp_path, ALL,
            CHOREO_AMQP_URL=proxy.url, CHOREO_HEARTBEAT_S=HEARTBEAT_S, CHOREO_PUBLISH_TIMEOUT_S=2,
        ) as running:  # fmt: skip
            await running.start()
            at = Place(running, broker_control, proxy, disk)
            done = await soak(at, choices(int(seed)), time.monotonic() + 60 * minutes)
            await running.ended(SETTLED_S)
            audit(running)
            lost, doubled = len(running.placed.keys() - running.ends), len(list(repeated(running)))
            figures = len(running.placed), len(running.heard), done.total(), lost, doubled
    print(f"faults: {dict(+done)}; flows, messages, faults, lost, doubled: {figures}")
    write_down("SQLite" if on_sqlite else "PostgreSQL", f"{minutes:g}", f"{seed:g}", *figures)


async def soak(at: Place, draw: Callable[[], Choice], end: float) -> Counter[str]:
    """Begin flows and do faults until the end; gives how often each was done."""
    done: Counter[str] = Counter()
    rounds = 0
    while time.monotonic() < end:
        rounds += 1
        choice = draw()
        print(f"round {rounds}: {choice}", flush=True)
        await at.running.place_in_turn(*mixed_flows(choice.flows, prefix=f"{rounds}-"))
        await asyncio.sleep(choice.after_s)
        async with asyncio.TaskGroup() as both:
            both.create_task(FAULTS[choice.fault](at, choice.victims))
            if choice.fault not in DEAF or choice.beside != "repeat":
                both.create_task(FAULTS[choice.beside](at, choice.others))
                done[choice.beside] += choice.beside != "nothing"
        done[choice.fault] += choice.fault != "nothing"
    return done


def write_down(database: str, *figures: object) -> None:
    """Put what the last soak of this database has measured into the page."""
    text = PAGE.read_text(encoding="utf-8")
    row = f"| {' | '.join(map(str, (database, *figures)))} |"
    written, found = re.subn(rf"^\| {database} \| [\d.]+ \|.*$", row, text, flags=re.MULTILINE)
    assert found == 1, f"{PAGE.name} has no row of figures for {database}"
    PAGE.write_text(written, encoding="utf-8")
