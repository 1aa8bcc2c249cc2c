"""compose.yaml as a person uses it: built, started, scaled, killed, stopped and removed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cast
import pytest
import servers
from stage import TABLES, until
from starts import Order, a_confirmation, a_registration, a_trip, an_order

from choreo import Command
from contracts.travel import Way
from sandboxes.gateway import APPROVED, DECLINED
from services.inventory.stock import ON_HAND

ROOT = Path(__file__).parents[2]
SERVICES = cast.ALL
SANDBOXES = cast.sandboxes(SERVICES)
INSTANCES = 3
PATIENCE_S = 90.0


class Compose:
    """The system in containers, under a name of its own and on ports that are free."""

    def __init__(self) -> None:
        self.name = f"choreo-test-{os.urandom(4).hex()}"

    def __call__(self, *words: str) -> str:
        """Run a compose command, which must succeed; gives what it printed."""
        done = self.attempt(*words)
        assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def attempt(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "compose", "--project-name", self.name, *words],
            cwd=ROOT,
            env=os.environ | {"BROKER_PORT": "0", "MANAGEMENT_PORT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def url(self) -> str:
        return f"amqp://choreo:choreo@{self('port', 'broker', '5672')}/"

    def inspect(self, *services: str) -> dict[str, dict[str, Any]]:
        """What the engine knows of the services' containers, by `service-number`."""
        ids = self("ps", "--all", "--quiet", *services).split()
        found = json.loads(_docker("inspect", *ids))
        return {one["Name"].removeprefix(f"/{self.name}-"): one for one in found}

    def send(self, command: Command, *way: str) -> str:
        """Send a command from a container that is entered or made; gives the id of its flow."""
        topic = command.__address__.topic
        flow = self(*way, "orders", "choreo", "send", topic, command.model_dump_json())
        assert len(flow) == 36, flow
        return flow

    def events(self, flow: str) -> set[str]:
        """What was announced in a flow, as audit has heard it."""
        query = f"SELECT DISTINCT type FROM records WHERE flow = '{flow}'"
        return set(self.rows("audit", query))

    def rows(self, service: str, query: str) -> list[str]:
        """Ask a service's database; columns are divided by `|`."""
        return self(
            "exec", "-T", "postgres", "psql", "-U", "choreo", "-Atc", query, service
        ).splitlines()

    def effects(self, sandbox: str, name: str) -> list[str]:
        """What a sandbox did for an order or a trip."""
        return [one["kind"] for one in self.ledger(sandbox) if one["order_id"] == name]

    def ledger(self, sandbox: str) -> list[dict[str, Any]]:
        program = (
            "import urllib.request as r;"
            "print(r.urlopen('http://127.0.0.1:8080/ledger').read().decode())"
        )
        found: list[dict[str, Any]] = json.loads(
            self("exec", "-T", sandbox, "python", "-c", program)
        )
        return found

    def leftovers(self) -> list[str]:
        """What the engine still has of this system, its image apart."""
        mine = ("--quiet", "--filter", f"label=com.docker.compose.project={self.name}")
        kinds = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
        return [one for kind in kinds for one in _docker(*kind, *mine).split()]


@pytest.fixture
def compose(choice: servers.Choice) -> Iterator[Compose]:
    """The running system, with three instances of one service."""
    if choice.kind != "docker":
        pytest.skip(f"compose.yaml needs a Docker engine, and the tests run on {choice.text}")
    compose = Compose()
    try:
        up = compose.attempt(
            "up", "--build", "--detach", "--wait", "--scale", f"inventory={INSTANCES}"
        )
        if up.returncode != 0:
            pytest.fail(f"compose up:\n{up.stdout}{up.stderr}{compose.attempt('logs').stdout}")
        yield compose
    finally:
        compose("down", "--volumes")
        if _docker("image", "ls", "--quiet", compose.name):  # unless its build has failed
            _docker("image", "rm", compose.name)


@pytest.mark.timeout(1800)  # the first build installs every package
async def test_as_a_person_uses_it(compose: Compose) -> None:
    """One test, as several could be spread over processes, and each would build it anew."""
    everything_is_healthy_and_reachable_from_this_machine_alone(compose)
    services_run_without_privileges_and_log_json(compose)
    for order, end, paid in (
        (an_order("good"), "fulfilled", ["charge"]),
        (an_order("declined", card=DECLINED), "cancelled", []),
        (an_order("conducted", conducted=True), "fulfilled", ["charge"]),
    ):
        await an_order_sent_from_a_container_comes_to_its_end(compose, order, end, paid)
    a_wrong_order_is_refused_in_the_container(compose)
    await orders_outlive_a_killed_instance(compose)
    await an_account_is_heard_of_everywhere(compose)
    ways: tuple[tuple[Way, str, str, list[str]], ...] = (
        ("conducted", APPROVED, "confirmed", ["booking"]),
        ("choreographed", DECLINED, "cancelled", ["booking", "cancellation"]),
    )
    for way, card, end, booked in ways:
        await a_trip_is_booked_and_paid_or_nothing_is(compose, way, card, end, booked)
    nothing_was_given_up(compose)
    it_stops_in_good_order_and_leaves_nothing(compose)


def everything_is_healthy_and_reachable_from_this_machine_alone(compose: Compose) -> None:
    found = compose.inspect()
    states = {name: one["State"] for name, one in found.items()}
    assert states.pop("declare-1")["ExitCode"] == 0
    assert {name: state["Health"]["Status"] for name, state in states.items()} == dict.fromkeys(
        [
            *(f"{name}-1" for name in ("broker", "postgres", *SANDBOXES, *SERVICES)),
            *(f"inventory-{number}" for number in range(2, INSTANCES + 1)),
        ],
        "healthy",
    )
    published = {
        (name, port["HostIp"])
        for name, one in found.items()
        for ports in one["NetworkSettings"]["Ports"].values()
        for port in ports or ()
    }
    assert published == {("broker-1", "127.0.0.1")}
    consumers = compose("exec", "-T", "broker", "rabbitmqctl", "-q", "list_consumers")
    counted = Counter(line.split("\t")[0] for line in consumers.splitlines())
    assert {name: counted[name] for name in SERVICES} == {
        name: INSTANCES if name == "inventory" else 1 for name in SERVICES
    }


def services_run_without_privileges_and_log_json(compose: Compose) -> None:
    assert compose("exec", "-T", "orders", "id", "-un") == "choreo"
    assert compose.attempt("exec", "-T", "orders", "touch", "/app/here").returncode != 0
    lines = compose("logs", "--no-log-prefix", "--no-color", "orders").splitlines()
    # On an old engine, compose moves a terminal's cursor even where there is none.
    entries = [json.loads(line[line.index("{") :]) for line in lines]
    assert [one["service"] for one in entries if one["event"] == "consuming"] == ["orders"]


async def an_order_sent_from_a_container_comes_to_its_end(
    compose: Compose, order: Order, end: str, paid: list[str]
) -> None:
    compose.send(order, "run", "--rm")
    state = f"SELECT state FROM orders WHERE order_id = '{order.order_id}'"
    await until(lambda: compose.rows("orders", state) == [end], f"it is {end}", PATIENCE_S)
    assert compose.effects("gateway", order.order_id) == paid


def a_wrong_order_is_refused_in_the_container(compose: Compose) -> None:
    sent = compose.attempt("exec", "-T", "orders", "choreo", "send", "orders.place", "{}")
    assert sent.returncode == 1
    assert "order_id: Field required" in sent.stderr


async def orders_outlive_a_killed_instance(compose: Compose) -> None:
    many = 100
    before = compose.rows("orders", "SELECT order_id FROM orders")
    placing = await asyncio.create_subprocess_exec(
        sys.executable, "scripts/place_order.py", "--count", f"{many}", "--member",
        "--timeout", "120", "--json",
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CHOREO_AMQP_URL": compose.url},
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        await until(
            lambda: len(compose.rows("orders", "SELECT order_id FROM orders")) > len(before),
            "orders arrive", PATIENCE_S,
        )  # fmt: skip
        # All but the container's first process, which then ends as well.
        compose.attempt("exec", "-T", "--index", "2", "inventory", "sh", "-c", "kill -9 -1")
    except BaseException:
        placing.kill()
        raise
    finally:
        told, _ = await placing.communicate()
    assert placing.returncode == 0, told
    assert json.loads(told)["outcomes"].keys() == {"fulfilled"}

    def started_again() -> bool:
        killed = compose.inspect("inventory")["inventory-2"]
        health = killed["State"]["Health"]["Status"]
        return (killed["RestartCount"] >= 1, health) == (True, "healthy")

    await until(started_again, "the killed instance runs again", PATIENCE_S)
    ended = len(compose.rows("orders", "SELECT state FROM orders WHERE state <> 'open'"))
    assert ended == len(before) + many
    await until(
        lambda: not compose.rows("inventory", "SELECT state FROM holds WHERE state <> 'shipped'"),
        "everything held is shipped", PATIENCE_S,
    )  # fmt: skip
    shelf = compose.rows(
        "inventory",
        "SELECT s.sku, s.on_hand + coalesce(sum(h.quantity), 0)"
        " FROM stock s LEFT JOIN holds h USING (sku) GROUP BY s.sku",
    )
    assert dict(line.split("|") for line in shelf) == {sku: str(n) for sku, n in ON_HAND.items()}
    effects = Counter((one["kind"], one["order_id"]) for one in compose.ledger("gateway"))
    fulfilled = compose.rows("orders", "SELECT order_id FROM orders WHERE state = 'fulfilled'")
    assert effects == {("charge", order_id): 1 for order_id in fulfilled}
    mails = ("exec", "-T", "notifications", "ls", "var/mail")
    await until(lambda: len(compose(*mails).split()) == ended, "a mail for each", PATIENCE_S)


async def an_account_is_heard_of_everywhere(compose: Compose) -> None:
    flow = compose.send(a_registration("compose"), "exec", "-T")
    announced = {
        "accounts.registered.v1", "crm.profile_opened.v1", "notifications.email_sent.v1",
    }  # fmt: skip
    await until(lambda: compose.events(flow) == announced, "all have reacted", PATIENCE_S)
    verified = compose("exec", "-T", "audit", "python", "-m", "services.audit.verify")
    assert verified.startswith("unbroken: ")


async def a_trip_is_booked_and_paid_or_nothing_is(
    compose: Compose, way: Way, card: str, end: str, booked: list[str]
) -> None:
    trip = a_trip(way, way=way)
    reserved = compose.send(trip, "exec", "-T")
    await until(
        lambda: "travel.reserved.v1" in compose.events(reserved), "it is reserved", PATIENCE_S
    )
    flow = compose.send(a_confirmation(trip, card=card), "exec", "-T")
    last = {f"travel.{end}.v1", "notifications.email_sent.v1"}
    await until(lambda: last <= compose.events(flow), f"it is {end}, and told so", PATIENCE_S)
    await until(
        lambda: all(compose.effects(one, trip.trip_id) == booked for one in cast.PROVIDERS),
        f"each provider has {booked}", PATIENCE_S,
    )  # fmt: skip
    assert compose.effects("gateway", trip.trip_id) == ["charge"] * (end == "confirmed")


def nothing_was_given_up(compose: Compose) -> None:
    ask = f"SELECT current_database(), reason FROM {TABLES['dead'].name}"
    each = [word for name in SERVICES for word in ("-c", rf"\connect {name}", "-c", ask)]
    assert compose("exec", "-T", "postgres", "psql", "-U", "choreo", "-Atq", *each) == ""


def it_stops_in_good_order_and_leaves_nothing(compose: Compose) -> None:
    compose("stop", *SERVICES, *SANDBOXES)
    ended = {name: one["State"]["ExitCode"] for name, one in compose.inspect().items()}
    stopped = {name: code for name, code in ended.items() if name[:-2] in (*SERVICES, *SANDBOXES)}
    assert len(stopped) == len(SERVICES) + len(SANDBOXES) + INSTANCES - 1
    assert set(stopped.values()) == {0}, stopped
    assert compose.leftovers()
    compose("down", "--volumes")
    assert compose.leftovers() == []


def _docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=True)
    return done.stdout
