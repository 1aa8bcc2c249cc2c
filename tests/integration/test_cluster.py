"""A cluster of three nodes loses one after the other, by death and by a cut; nobody notices."""

from __future__ import annotations

import asyncio
from itertools import chain, islice
from pathlib import Path
from random import Random

import pytest
import servers
from audit import audit
from cast import CONDUCTED_ORDERS
from cluster import Cluster
from processes import run
from proxy import proxied
from stage import until
from starts import mixed
from system import System
from theatre import Booked, Theatre

from choreo import log, rabbitmq, topology
from choreo.identity import Ids
from choreo.node import rabbitmq_server
from choreo.outgoing import first
from choreo.ports import speaks_amqp
from choreo.rabbitmq import RabbitMQ
from choreo.rabbitmq.survey import survey
from choreo.seams import Outgoing, SystemClock
from choreo.settings import Settings
from choreo.topology import JOURNAL

PATIENCE_S = 120.0
#: So many flows are begun together.
GROUP = 5
MOST = 500
#: The other settings are those of production; this one makes the rest seem slow.
HASTE = {"CHOREO_PUBLISH_TIMEOUT_S": 3}


class Clustered(System):
    """The order flow on a cluster: services know all its nodes, and the test is led to any."""

    def __init__(self, cluster: Cluster, var: Path) -> None:
        super().__init__(
            cluster.balanced_url,
            f"sqlite:///{var}/{{service}}.db",
            var,
            CONDUCTED_ORDERS,
            CHOREO_AMQP_URL=cluster.urls,
            **HASTE,
        )
        self.settings = self.settings.model_copy(update={"publish_timeout_s": 3.0})
        #: What is still to be begun, conducted and choreographed in turn.
        self._flows = chain.from_iterable(
            zip(mixed(MOST), mixed(MOST, prefix="conducted-", conducted=True), strict=True)
        )
        #: How many messages had to be published more than once.
        self.repeated = 0

    async def publish(self, *messages: Outgoing) -> None:
        """Publish until all is confirmed."""
        while messages:
            refused = await self._broker.publish(messages)
            messages = tuple(one for one in messages if one.envelope.id in refused)
            self.repeated += len(messages)
            if messages:
                await asyncio.sleep(0.1)

    async def load(self) -> None:
        """Begin flows until cancelled."""
        while group := tuple(islice(self._flows, GROUP)):
            await self.place(*group)
            await asyncio.sleep(1.0)

    async def more(self, flows: int = 20) -> None:
        """Wait until so many flows have ended that are begun from now on."""
        known = set(self.placed)
        await until(lambda: len(self.ends.keys() - known) >= flows, f"{flows} more end", PATIENCE_S)


async def leader_of(queue: str, cluster: Cluster) -> str:
    """The node that leads a queue; says so, and who is connected to it."""
    leader = (await cluster.queues(next(iter(cluster.members))))[queue].leader
    print(f"{leader} leads {queue}; its clients: {sorted(await cluster.clients(leader))}")
    return leader


async def kill_leader_of(queue: str, running: Clustered, cluster: Cluster) -> None:
    """Flows go on without it, and when it is there again."""
    member = cluster.members[await leader_of(queue, cluster)]
    await member.kill()
    await running.more()
    code, said = await run(
        [*running.argv("choreo"), "replay", "--to", "rewards", "--since", "all"], running.env
    )
    assert code == 0, said
    await member.start()
    await running.more()


async def cut_off_leader_of(queue: str, running: Clustered, cluster: Cluster) -> None:
    """Clients reach it still; the others take its queues over."""
    name = await leader_of(queue, cluster)
    member = cluster.members[name]
    assert {one for one in await cluster.clients(name) if not one.startswith("system")}
    cluster.cut_off(name)
    assert speaks_amqp("127.0.0.1", member.amqp_port)
    other = next(one for one in cluster.members if one != name)
    if cluster.partitions == "ignore":
        # Who consumes there hears nothing and is told nothing; what is published is confirmed.
        wanted = len(running.placed) + 5 * GROUP
        await until(lambda: len(running.placed) > wanted, "publishing goes on", PATIENCE_S)
        assert (await cluster.queues(other))[queue].leader != name
        cluster.heal(name)
        # RabbitMQ asks for it; without it a reader of the journal was seen to hear nothing new.
        await member.stop()
        await member.start()
    else:
        await running.more()
        assert (await cluster.queues(other))[queue].leader != name
        await until(
            lambda: not speaks_amqp("127.0.0.1", member.amqp_port), "it gives up", PATIENCE_S
        )
        cluster.heal(name)
        await until(lambda: speaks_amqp("127.0.0.1", member.amqp_port), "it is back", PATIENCE_S)
    await running.more()


@pytest.mark.long
async def test_who_looks_at_the_broker_takes_any_node_too(amqp_url: str) -> None:
    """Whichever comes first, where nobody is or where the broker is."""
    url, wanted = f"amqp://127.0.0.1:1/,{amqp_url}", topology.of([Theatre().service])
    for _ in range(5):
        async with rabbitmq.connected(url, Settings(), "test", log.logger("test")) as broker:
            await broker.declare(wanted)
        assert (await survey(url, Settings(), wanted)).queues["theatre"].consumers == 0
        async with rabbitmq.past(url) as past:
            assert past.last == -1


async def test_who_does_not_confirm_twice_is_left_twice(amqp_url: str) -> None:
    """What is tried again goes on a channel of its own, and gives up the whole connection, too."""
    async with proxied(amqp_url) as line:
        line.drops_confirms = True
        rabbit = RabbitMQ(line.url, Settings(publish_timeout_s=5), "test", log.logger("test"))
        await rabbit.open()
        try:
            await rabbit.declare(topology.of([Theatre().service]))
            ids = Ids(SystemClock(), Random())
            booked = first(Booked(trip="1", seat="1"), ids, 0.0, "/system/test")
            for _ in range(3):
                await rabbit._publishing.channel()
                given_up = rabbit._publishing._connection
                assert await rabbit.publish([booked])
                await until(
                    lambda one=given_up: rabbit._publishing._connection not in (None, one),  # type: ignore[misc]
                    "the connection is given up",
                )
        finally:
            await rabbit.close()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", servers.versions())
@pytest.mark.parametrize("partitions", ["pause_minority", "ignore"])
async def test_every_node_dies_or_is_cut_off_in_turn(
    version: str, partitions: str, tmp_path: Path
) -> None:
    choice = servers.choose() if version == "default" else servers.choose_version(version)
    if choice.kind is None:
        pytest.skip(choice.text)
    is_newest = version == "4.3" or (version == "default" and rabbitmq_server() is None)
    if is_newest and partitions == "pause_minority":
        pytest.skip("a node of RabbitMQ 4.3 that is cut off does not give up, whatever is set")
    image = None if version == "default" else servers.VERSIONS[version]
    cluster = Cluster(tmp_path / "cluster", partitions, image)
    async with cluster.running(), Clustered(cluster, tmp_path) as running:
        await running.start()
        async with asyncio.TaskGroup() as tasks:
            load = tasks.create_task(running.load())
            await running.more()
            for queue, found in (await cluster.queues("one@localhost")).items():
                assert len(found.replicas) == 3, f"{queue}: {found}"
            await kill_leader_of("inventory", running, cluster)
            await cut_off_leader_of("orders", running, cluster)
            await kill_leader_of(JOURNAL, running, cluster)
            load.cancel()
        await running.ended(PATIENCE_S)
        audit(running)
        lost = running.said("connection lost, opening it again")
        print(
            f"{len(running.placed)} flows, {len(running.heard)} messages; connections lost: "
            f"{len(lost)}; published again: {running.repeated}; lost 0, doubled 0"
        )
