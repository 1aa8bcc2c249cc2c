"""What the checks make of a broker and of databases that a test cannot easily have."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from choreo import Event, Service, topology
from choreo.doctor import CHECKS, Facts, State, examine, stale
from choreo.doctor.facts import Kept, Managed
from choreo.management import Management, UnreachableError
from choreo.rabbitmq.declare import QUEUE_ARGUMENTS
from choreo.rabbitmq.survey import QueueSeen, Seen
from choreo.settings import Settings
from choreo.topology import JOURNAL


class Rung(Event, topic="clinic.rung"):
    pass


service = Service("ward")


@service.on(final="a bell cannot be unrung")
def answer(_: Rung) -> None:
    """Come."""


SETTINGS = Settings(amqp_url="amqp://me:secret@broker.example/v1")
WANTED = topology.of([service])
CONTRACTS: dict[str, Any] = {"clinic.rung.v1": {"kind": "event", "heard_by": ["ward"]}}


def binding(queue: str, exchange: str, key: str, **arguments: Any) -> dict[str, Any]:
    return {
        "source": exchange, "destination": queue, "destination_type": "queue", "routing_key": key,
        "arguments": arguments, "properties_key": key,
    }  # fmt: skip


def queue(name: str, **given: Any) -> dict[str, Any]:
    return {"name": name, "arguments": QUEUE_ARGUMENTS, "messages": 0, "consumers": 0, **given}


@pytest.fixture(name="facts")
def facts_fixture() -> Facts:
    """A system that is well."""
    return Facts(
        settings=SETTINGS,
        services=[service],
        wanted=WANTED,
        agreement=CONTRACTS,
        signatures=CONTRACTS,
        broker=Seen(
            "4.2.9", "rabbit@one", {JOURNAL: QueueSeen(0, 0), "ward": QueueSeen(3, 1)},
            dict.fromkeys(WANTED.event_exchanges),
        ),
        management=Managed(
            api=Management(SETTINGS, "amqp://broker.example/"),
            bindings=[
                binding("ward", "clinic", "clinic.rung.v1"), binding(JOURNAL, "clinic", "#"),
                binding(JOURNAL, "choreo", "#"), binding("ward", "", "ward"),
            ],
            queues=[queue("ward")],
            nodes=[{"name": "rabbit@one", "running": True}],
            topic_permissions=[],
        ),
        databases={"ward": Kept(owner="ward")},
    )  # fmt: skip


def found(facts: Facts, state: State = State.WRONG) -> list[str]:
    return [f"{name}: {one.what}" for name, one in examine(facts) if one.state is state]


def managed(facts: Facts, **given: Any) -> Facts:
    assert isinstance(facts.management, Managed)
    return replace(facts, management=replace(facts.management, **given))


def of_version(facts: Facts, version: str) -> Facts:
    assert isinstance(facts.broker, Seen)
    return replace(facts, broker=replace(facts.broker, version=version))


def test_all_is_well(facts: Facts) -> None:
    assert {one.state for _, one in examine(facts)} == {State.OK}


def test_every_check_says_what_it_is_for() -> None:
    assert all(check.__doc__ for check in CHECKS)
    assert len({getattr(check, "__name__", "") for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize(
    ("version", "wrong"),
    [
        ("3.9.29", "broker is of a supported version: 3.9.29 is older than 3.10"),
        ("3.12.5", "broker has no known fault: it may not fit streams, and the journal is one"),
        ("3.13.4", "broker has no known fault: its makers ask to skip it"),
        ("4.3.0", "broker has no known fault: a queue's leader can commit what its followers"),
        ("4.0.1+2", "broker has no known fault: rare faults in how quorum queues are replicated"),
    ],
)
def test_bad_versions(facts: Facts, version: str, wrong: str) -> None:
    cluster = [{"name": "rabbit@one"}, {"name": "rabbit@two"}]
    said = found(managed(of_version(facts, version), nodes=cluster))
    assert any(one.startswith(wrong) for one in said)


@pytest.mark.parametrize("version", ["3.10.8", "3.13.7", "4.0.1", "4.3.5", "4.1.0-rc.1"])
def test_good_versions_on_one_node(facts: Facts, version: str) -> None:
    assert found(of_version(facts, version)) == []


def test_what_cannot_be_known_is_not_checked(facts: Facts) -> None:
    newer = found(of_version(facts, "5.0.0"), State.UNKNOWN)
    assert newer == [
        "broker is of a supported version: 5.0.0 is newer than what choreo was tried with"
    ]
    old = managed(of_version(facts, "4.0.1"), nodes=None, topic_permissions=None)
    assert found(old) == []
    assert len(found(old, State.UNKNOWN)) == 3  # cluster, permissions, alarms


def test_topic_permissions_hold_from_4_0_3_on(facts: Facts) -> None:
    permitted = managed(facts, topic_permissions=[{"user": "ward"}])
    assert found(permitted) == []
    assert found(of_version(permitted, "3.13.7")) == [
        "broker has no known fault: a message passes topic permissions by with a CC or BCC header"
    ]


@pytest.mark.parametrize(
    "trouble",
    [{"running": False}, {"mem_alarm": True}, {"disk_free_alarm": True}, {"partitions": ["two"]}],
)
def test_alarms(facts: Facts, trouble: dict[str, Any]) -> None:
    [said] = found(managed(facts, nodes=[{"name": "rabbit@one", "running": True, **trouble}]))
    assert said.startswith("broker has no alarm: ")


def test_a_policy_that_drops_messages(facts: Facts) -> None:
    policed = queue("ward", effective_policy_definition={"message-ttl": 1, "ha-mode": "all"})
    assert found(managed(facts, queues=[policed])) == [
        "no policy loses messages: a policy sets message-ttl"
    ]


@pytest.mark.parametrize(
    ("one", "is_stale"),
    [
        (binding("ward", "clinic", "clinic.closed.v1"), True),
        (binding("ward", "gone.commands", "gone.do_it.v2"), True),
        (binding("ward", "clinic", "clinic.*.v1"), False),
        (binding("ward", "theirs", "clinic.closed.v1"), False),
        (binding("ward", "clinic", "clinic.closed.v1", mark=1), False),
        (binding("theirs", "clinic", "clinic.closed.v1"), False),
        (binding("ward", "", "ward"), False),
    ],
)
def test_only_what_choreo_made_is_stale(facts: Facts, one: Any, is_stale: bool) -> None:
    assert isinstance(facts.management, Managed)
    with_it = managed(facts, bindings=[*facts.management.bindings, one])
    assert bool(stale(with_it)) is is_stale
    assert bool(found(with_it)) is is_stale


@pytest.mark.parametrize(
    ("given", "is_stale"),
    [
        ({}, True),
        ({"messages": 1}, False),
        ({"consumers": 1}, False),
        ({"messages": None}, False),
        ({"arguments": {"x-queue-type": "quorum"}}, False),
        ({"name": "agreed"}, False),
        ({"name": "deaf"}, False),
        ({"name": "ears"}, False),
    ],
)
def test_only_an_idle_queue_that_nothing_knows_is_stale(
    facts: Facts, given: dict[str, Any], is_stale: bool
) -> None:
    assert isinstance(facts.management, Managed)
    heard = [binding(name, "clinic", "clinic.rung.v1") for name in ("old", "agreed", "ears")]
    elsewhere = binding("ears", "elsewhere", "elsewhere.rung.v1")
    agreement = {"clinic.rung.v1": {"kind": "event", "heard_by": ["ward", "agreed"]}}
    with_it = managed(
        replace(facts, agreement=agreement),
        bindings=[*facts.management.bindings, *heard, elsewhere],
        queues=[queue("ward"), queue("old") | given],
    )
    assert bool(stale(with_it)) is is_stale


@pytest.mark.parametrize(
    ("kept", "wrong"),
    [
        (Kept(owner="ward", outgoing={"a.b.v1": 1}, outgoing_age_s=59), []),
        (
            Kept(owner="ward", outgoing={"a.b.v1": 2}, outgoing_age_s=7200),
            ["outboxes are published: 2 wait, the oldest for 2 h: a.b.v1"],
        ),
        (Kept(owner="ward", overdue=1, overdue_age_s=5), []),
        (
            Kept(owner="ward", overdue=1, overdue_age_s=90),
            ["what is due happens: 1 overdue, the first for 90 s"],
        ),
        (Kept(owner="ward", undoing=[("trip", "f", 5)]), []),
        ("it is away", ["databases belong to their services: it is away"]),
        (None, []),
        (
            Kept(owner="other", letters=7),
            ["databases belong to their services: it belongs to other"],
        ),
    ],
)
def test_databases(facts: Facts, kept: Kept | str | None, wrong: list[str]) -> None:
    assert found(replace(facts, databases={"ward": kept})) == wrong


def test_an_unheard_event_says_how_many_wait(facts: Facts) -> None:
    assert isinstance(facts.broker, Seen)
    unheard = replace(
        facts,
        broker=replace(facts.broker, queues={JOURNAL: QueueSeen(0, 0)}),
        databases={"ward": Kept(owner="ward", outgoing={"clinic.rung.v1": 5})},
    )
    assert "every event can be heard: ward cannot hear it; it waits in the outbox (5 now)" in found(
        unheard
    )


@contextmanager
def serving(status: int, body: str) -> Iterator[tuple[str, list[str]]]:
    """A server that gives one answer, and what it was asked."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers['Authorization']}")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("suffix", ["", "/", "/api", "/api/"])
def test_the_management_api_is_asked_as_the_broker_is(suffix: str) -> None:
    with serving(200, json.dumps([{"name": "ward"}])) as (url, asked):
        settings = Settings(management_url=url + suffix)
        api = Management(settings, "amqp://me:s%2Fcret@broker.example/%2Fmine")
        assert api.bindings() == [{"name": "ward"}]
    assert asked == ["/api/bindings/%2Fmine Basic bWU6cy9jcmV0"]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, "", "refuses this user: give it the tag 'monitoring'"),
        (503, "", "answers with status 503"),
        (200, "<html>", "answers something else than RabbitMQ"),
        (200, "{}", "answers something else than RabbitMQ"),
    ],
)
def test_a_management_api_that_does_not_tell(status: int, body: str, said: str) -> None:
    with serving(status, body) as (url, _):
        api = Management(Settings(management_url=url), "amqp://me:secret@broker.example")
        with pytest.raises(UnreachableError, match=said) as raised:
            api.queues()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("amqp", "expected"),
    [
        ("amqp://h", "http://h:15672/api"),
        ("amqps://h:5671/v", "https://h:15671/api"),
        ("amqp://[::1]:5672/", "http://[::1]:15672/api"),
    ],
)
def test_where_the_management_api_is_by_itself(amqp: str, expected: str) -> None:
    assert str(Management(Settings(), amqp)) == expected


def test_only_http_is_a_management_url(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="CHOREO_MANAGEMENT_URL"):
        Management(Settings(management_url=f"file://{tmp_path}"), "amqp://h")
