"""The connection is lost in every way that a network and a broker know, and heals by itself.

Each fault meets the service under load; then everything published before, meanwhile and after is
handled once and announced once. CHOREO_TEST_BROKERS names the versions of RabbitMQ to run on.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import pytest
import servers
from proxy import Proxy, Way, proxied
from servers import Broker
from theatre import Theatre
from trial import Trial

from choreo import CannotRunError, log, topology
from choreo.rabbitmq import RabbitMQ, broker
from choreo.settings import Settings


@pytest.fixture(name="url")
def url_fixture(lone_broker: Broker) -> Iterator[str]:
    """A virtual host of the broker that may be hurt."""
    with servers.vhost(lone_broker) as url:
        yield url


@pytest.fixture(name="line")
async def line_fixture(url: str) -> AsyncIterator[Proxy]:
    async with proxied(url) as proxy:
        yield proxy


@pytest.fixture(name="trial")
async def trial_fixture(
    request: pytest.FixtureRequest, url: str, line: Proxy, tmp_path: Path
) -> AsyncIterator[Trial]:
    """The service on the line, under load; a test may give it settings."""
    async with Trial(url, line.url, tmp_path, **getattr(request, "param", {})) as trial:
        trial.load()
        await trial.more()
        yield trial


#: A publish is given up soon.
HASTY: dict[str, Any] = {"publish_timeout_s": 1.0}
#: A broker that says nothing is given up soon, too: after about six seconds.
ALERT: dict[str, Any] = {**HASTY, "heartbeat_s": 1}


async def ready_again(trial: Trial, seen: int) -> None:
    """Since then it was not ready, and now it is."""
    await trial.until(lambda: trial.readiness[seen:][-2:] == [False, True], "ready again")


def lost(trial: Trial) -> dict[str, set[str]]:
    """The connections that were lost, and why, each time."""
    found = defaultdict(set)
    for line in trial.logs:
        if line["event"] == "connection lost, opening it again":
            found[line["connection"].removeprefix("theatre ")].add(line["reason"])
    return found


def lost_for(trial: Trial, reason: str) -> set[str]:
    """The connections that were lost for this reason."""
    return {name for name, why in lost(trial).items() if any(re.search(reason, one) for one in why)}


BOTH = {"consuming", "publishing"}


async def test_the_broker_is_stopped_and_killed(trial: Trial, lone_broker: Broker) -> None:
    for end in (lone_broker.stop, lone_broker.kill):
        seen = len(trial.readiness)
        await end()
        await trial.until(lambda: not trial.ready.exists(), "not ready")
        await lone_broker.start()
        await ready_again(trial, seen)
        await trial.more()
    await trial.reckoning()


CLOSE = """
    [rabbit_networking:close_connection(Pid, "by the test")
        || [{pid, Pid}, {client_properties, Given}]
               <- rabbit_networking:connection_info_all([pid, client_properties]),
           {_, _, <<"theatre ", _/binary>>} <- [lists:keyfind(<<"connection_name">>, 1, Given)]].
"""


async def test_the_broker_closes_the_connections(trial: Trial, lone_broker: Broker) -> None:
    seen = len(trial.readiness)
    assert (await lone_broker.ctl("eval", CLOSE)).split() == ["[ok,ok]"]
    await ready_again(trial, seen)
    await trial.more()
    await trial.until(lambda: lost_for(trial, "by the test") == BOTH, "both are closed")
    await trial.reckoning()


async def test_the_broker_closes_the_channels(trial: Trial, line: Proxy) -> None:
    seen = len(trial.readiness)
    line.spoil_channels()
    await ready_again(trial, seen)
    await trial.more()
    await trial.until(lambda: lost_for(trial, "unknown delivery tag") == BOTH, "both are closed")
    await trial.reckoning()


async def test_the_queue_is_deleted_under_the_consumer(trial: Trial) -> None:
    """What waits in a queue goes with it, and what comes while there is none: so nothing does."""
    await trial.pause()
    await trial.until(lambda: len(trial.held()) == len(trial.booked), "all are held")
    await trial.settled()
    seen = len(trial.readiness)
    async with await aio_pika.connect(trial.url) as connection:
        await (await connection.channel()).queue_delete("theatre")
    await ready_again(trial, seen)
    trial.load()
    await trial.more()
    await trial.reckoning()


@asynccontextmanager
async def told(broker: Broker, first: Sequence[str], last: Sequence[str]) -> AsyncIterator[None]:
    """Have the broker told something by its operator, and something else at the end."""
    try:
        await broker.ctl(*first)
        yield
    finally:
        await broker.ctl(*last)


def set_limits(timeout_ms: int, look_ms: int) -> Sequence[str]:
    """How long a consumer may hold a message; up to 4.2 channels look for that on a period."""
    limits = f"[{{consumer_timeout, {timeout_ms}}}, {{channel_tick_interval, {look_ms}}}]"
    return "eval", f"[application:set_env(rabbit, Name, Ms) || {{Name, Ms}} <- {limits}]."


async def test_it_holds_messages_for_longer_than_the_broker_allows(
    url: str, line: Proxy, lone_broker: Broker, tmp_path: Path
) -> None:
    """Then up to 4.2 the broker closes the channel, and from 4.3 on it cancels the consumer."""
    async with (
        told(lone_broker, set_limits(2_000, 500), set_limits(1_800_000, 60_000)),
        # As few as are handled within that time: what comes again is taken one by one.
        Trial(url, line.url, tmp_path, prefetch=10) as trial,
    ):
        trial.load()
        await trial.more()
        seen = len(trial.readiness)
        with trial.locked_database():
            await ready_again(trial, seen)
        await trial.more()
        reason = "consumer_timeout|acknowledgement .* timed out"
        assert lost_for(trial, reason) == {"consuming"}, lost(trial)
        await trial.reckoning()


ALARMS = {
    "memory": ("set_vm_memory_high_watermark", "0.00001", "0.6"),
    "disk": ("set_disk_free_limit", "100000GB", "50MB"),
}


@pytest.mark.parametrize("alarm", ALARMS)
async def test_an_alarm_blocks_publishing_alone(
    alarm: str, url: str, line: Proxy, lone_broker: Broker, tmp_path: Path
) -> None:
    command, absurd, usual = ALARMS[alarm]
    async with Trial(url, line.url, tmp_path, prefetch=5, batch=5, **HASTY) as trial:
        async with AsyncExitStack() as alarmed:
            with trial.locked_database():
                trial.load()
                await trial.until(lambda: len(trial.booked) >= 50, "bookings wait in the queue")
                await alarmed.enter_async_context(
                    told(lone_broker, (command, absurd), (command, usual))
                )
            # No more than five are delivered that are not acked: so the acks come through.
            wanted = len(trial.booked)
            await trial.until(lambda: len(trial.held()) >= wanted, "all are handled")
            await trial.until(lambda: "publishing" in lost(trial), "a publish is given up")
            assert trial.rows("outbox")
            assert trial.ready.exists()
        await trial.more()
        assert set(lost(trial)) == {"publishing"}
        await trial.reckoning()


async def test_the_line_is_cut(trial: Trial, line: Proxy) -> None:
    for _ in range(3):
        seen = len(trial.readiness)
        line.cut()
        await ready_again(trial, seen)
        await trial.more()
    await trial.reckoning()


@pytest.mark.parametrize("trial", [ALERT], indirect=True, ids=["alert"])
@pytest.mark.parametrize("way", ["up", "down"])
async def test_the_line_is_half_open(trial: Trial, line: Proxy, way: Way) -> None:
    seen = len(trial.readiness)
    line.half_open(way)
    await ready_again(trial, seen)
    await trial.more()
    await trial.until(lambda: set(lost(trial)) == BOTH, "both are lost")
    # On a machine that stands still, other heartbeats may be missed as well.
    if way == "down":
        assert "consuming" in lost_for(trial, "fallen silent"), lost(trial)
    await trial.reckoning()


@pytest.mark.parametrize("trial", [HASTY], indirect=True, ids=["hasty"])
async def test_the_line_is_slow(trial: Trial, line: Proxy) -> None:
    """Then slower than a publish may take, and then fast again."""
    line.delay_s = 0.05
    await trial.more()
    assert "consuming" not in lost(trial)
    line.delay_s = 0.8
    await trial.until(lambda: "publishing" in lost(trial), "a publish is given up")
    line.delay_s = 0.0
    await trial.more()
    await trial.reckoning()


@pytest.mark.parametrize("trial", [HASTY], indirect=True, ids=["hasty"])
async def test_the_confirms_are_lost(trial: Trial, line: Proxy) -> None:
    line.drops_confirms = True
    await trial.until(lambda: line.dropped >= 3, "confirms are lost")
    await trial.until(lambda: "publishing" in lost(trial), "a publish is given up")
    assert trial.ready.exists()
    line.drops_confirms = False
    await trial.more()
    assert set(lost(trial)) == {"publishing"}
    await trial.reckoning()


async def test_whoever_asks_on_a_dead_line_is_told(
    line: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client cancels its own tasks then; whoever waits for them is not to be cancelled."""
    # It is the missing heartbeat that tells.
    monkeypatch.setattr(broker, "CONNECT_TIMEOUT_S", 60)
    rabbit = RabbitMQ(line.url, Settings(heartbeat_s=1), "asking", log.logger("asking"))
    try:
        await rabbit.open()
        line.half_open("down")
        asked = rabbit.missing(["theatre"]), rabbit.declare(topology.of([Theatre().service]))
        asking = [asyncio.ensure_future(one) for one in asked]
        await asyncio.wait(asking, timeout=90)
        assert line.swallowed
        assert not any(one.cancelled() for one in asking)
        missing, declare = [one.exception() for one in asking]
        assert isinstance(missing, ConnectionError)
        assert isinstance(declare, CannotRunError)
    finally:
        await rabbit.close()
