"""Every process for minutes under faults that a seed draws; `scripts/soak` runs it.

The choices (which fault, on whom, after how long, with how many flows) come from the seed alone.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from audit import audit
from cast import ALL
from servers import Broker
from starts import mixed_flows
from system import System

#: Heartbeats are so far apart; who is frozen for longer loses its connections.
HEARTBEAT_S = 5
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


def choices(seed: int) -> Callable[[], Choice]:
    """Draws one round after the other; equal seeds draw equal rounds."""
    drawn = random.Random(seed)

    def draw() -> Choice:
        fault = drawn.choice(list(FAULTS))
        many = drawn.choice((1, 1, 2, len(ALL)))
        return Choice(
            flows=drawn.randint(*ROUND_FLOWS),
            fault=fault,
            victims=tuple(drawn.sample(ALL, many)),
            after_s=drawn.uniform(0.0, 2.0),
        )

    return draw


async def nothing(_: System, __: Broker, ___: Choice) -> None:
    """Leave it in peace."""


async def kill(running: System, _: Broker, choice: Choice) -> None:
    """kill -9 of services; the supervisor starts them again."""
    running.kill(*(one for one in choice.victims if running.pid(one) is not None))


async def terminate(running: System, _: Broker, choice: Choice) -> None:
    """SIGTERM of services; the supervisor starts them again."""
    running.terminate(*(one for one in choice.victims if running.pid(one) is not None))


async def freeze(running: System, _: Broker, choice: Choice) -> None:
    """SIGSTOP of one service for longer than the broker waits for its heartbeats."""
    name = choice.victims[0]
    if running.pid(name) is not None:
        running.signal(name, signal.SIGSTOP)
        await asyncio.sleep(HEARTBEAT_S * 2.5)
        running.signal(name, signal.SIGCONT)


async def restart_broker(_: System, broker: Broker, __: Choice) -> None:
    """Stop the broker in good order, and start it again."""
    await broker.stop()
    await broker.start()


async def kill_broker(_: System, broker: Broker, __: Choice) -> None:
    """kill -9 of the broker."""
    await broker.kill()
    await broker.start()


async def repeat(running: System, _: Broker, __: Choice) -> None:
    """Publish what was heard of late once more, with its own ids."""
    await running.publish(*running.copies()[-300:])


FAULTS: dict[str, Callable[[System, Broker, Choice], Awaitable[None]]] = {
    one.__name__: one
    for one in (nothing, kill, terminate, freeze, restart_broker, kill_broker, repeat)
}


async def test_soak(
    broker_control: Broker,
    database_url: str,
    create_databases: Callable[..., None],
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    minutes, seed = (float(pytestconfig.getoption(one)) for one in ("--minutes", "--seed"))
    create_databases(*ALL)
    done: Counter[str] = Counter()
    async with System(
        broker_control.url, database_url, tmp_path, ALL, CHOREO_HEARTBEAT_S=HEARTBEAT_S
    ) as running:
        await running.start()
        end, draw = time.monotonic() + 60 * minutes, choices(int(seed))
        rounds = 0
        while time.monotonic() < end:
            rounds += 1
            choice = draw()
            print(f"round {rounds}: {choice}", flush=True)
            await running.place_in_turn(*mixed_flows(choice.flows, prefix=f"{rounds}-"))
            await asyncio.sleep(choice.after_s)
            await FAULTS[choice.fault](running, broker_control, choice)
            done[choice.fault] += 1
        await running.ended(SETTLED_S)
        audit(running)
        messages = len(running.heard)
    print(
        f"{rounds} rounds, {len(running.placed)} flows, {messages} messages, "
        f"faults: {dict(done)}; lost 0, doubled 0"
    )
