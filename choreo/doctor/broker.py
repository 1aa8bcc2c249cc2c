"""The broker itself: whether it is there, fit for choreo, and in good health."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from choreo.doctor.facts import Facts, Managed
from choreo.doctor.findings import Finding, ok, unknown, wrong

Version = tuple[int, int, int]

OLDEST, NEWEST = (3, 10), (4, 3)
#: Below, a message passes topic permissions by with a CC or BCC header (rabbitmq-server#12553).
_PERMISSIONS_HOLD: Version = (4, 0, 3)


@dataclass(frozen=True, slots=True)
class Fault:
    """What RabbitMQ's own release notes say of some releases."""

    first: Version
    mended: Version
    what: str
    #: Whether only a cluster of several nodes has it.
    clustered: bool = False


FAULTS = (
    Fault((3, 12, 5), (3, 12, 6), "it may not fit streams, and the journal is one"),
    Fault((3, 13, 3), (3, 13, 6), "its makers ask to skip it"),
    Fault((4, 0, 0), (4, 0, 8), "rare faults in how quorum queues are replicated", clustered=True),
    Fault(
        (4, 1, 0), (4, 1, 5), "messages can be lost on their way to a quorum queue when the "
        "network parts", clustered=True,
    ),
    Fault((4, 3, 0), (4, 3, 1), "a quorum queue can crash as it recovers from a sudden end"),
    Fault(
        (4, 3, 0), (4, 3, 3), "a queue's leader can commit what its followers do not have",
        clustered=True,
    ),
)  # fmt: skip


def enable(facts: Facts, why: str | None = None) -> Finding:
    """Not checked, as the management API does not tell."""
    said = why or (facts.management if isinstance(facts.management, str) else "")
    if isinstance(facts.broker, str):
        return unknown(said, "make the broker answer first")
    if facts.settings.amqp_url is None:
        return unknown(
            said, "the private broker of 'choreo up' has none: name one that has, CHOREO_AMQP_URL"
        )
    return unknown(
        said,
        "enable it (rabbitmq-plugins enable rabbitmq_management), and set CHOREO_MANAGEMENT_URL "
        "if it is not at the broker's host, port 15672",
    )


def broker_answers(facts: Facts) -> Iterator[Finding]:
    """It takes a connection with this login, and opens the virtual host."""
    if isinstance(facts.broker, str):
        yield wrong(facts.broker, "start the broker, or correct CHOREO_AMQP_URL")
    else:
        yield ok(f"RabbitMQ {facts.broker.version}, {facts.broker.cluster}")


def broker_is_of_a_supported_version(facts: Facts) -> Iterator[Finding]:
    """RabbitMQ 3.10 to 4.3."""
    version = _version(facts)
    if version is None:
        yield unknown("its version is not known", "make the broker answer first")
    elif version[:2] < OLDEST:
        yield wrong(f"{_text(version)} is older than 3.10", "upgrade RabbitMQ to 4.x")
    elif version[:2] > NEWEST:
        yield unknown(
            f"{_text(version)} is newer than what choreo was tried with",
            "use RabbitMQ 3.10 to 4.3, or a newer choreo",
        )
    else:
        yield ok(_text(version))


def broker_has_no_known_fault(facts: Facts) -> Iterator[Finding]:
    """Nothing that its makers have mended, and that would touch this system."""
    version = _version(facts)
    if version is None:
        yield unknown("its version is not known", "make the broker answer first")
        return
    managed = facts.management if isinstance(facts.management, Managed) else None
    nodes = None if managed is None or managed.nodes is None else len(managed.nodes)
    found = [one for one in FAULTS if one.first <= version < one.mended]
    for fault in found:
        if not fault.clustered or (nodes or 0) > 1:
            yield wrong(fault.what, f"upgrade RabbitMQ to {_text(fault.mended)} or newer")
    if nodes is None and any(one.clustered for one in found):
        yield enable(facts, "whether it is a cluster is not known, and that has known faults")
    yield from _permissions(facts, version, managed)


def _permissions(facts: Facts, version: Version, managed: Managed | None) -> Iterator[Finding]:
    if version >= _PERMISSIONS_HOLD:
        yield ok("topic permissions cannot be passed by")
    elif managed is None or managed.topic_permissions is None:
        yield enable(
            facts,
            "whether it has topic permissions is not known (only an administrator sees them); "
            "below 4.0.3 they can be passed by",
        )
    elif managed.topic_permissions:
        yield wrong(
            "a message passes topic permissions by with a CC or BCC header",
            "upgrade RabbitMQ to 4.0.3 or newer, or do not rely on topic permissions",
        )
    else:
        yield ok("no topic permissions, which can be passed by below 4.0.3")


def broker_has_no_alarm(facts: Facts) -> Iterator[Finding]:
    """Every node runs, has memory and disk, and sees the others."""
    if isinstance(facts.management, str):
        yield enable(facts)
        return
    if facts.management.nodes is None:
        yield unknown(
            "the nodes are not shown to this user",
            "give it the tag 'monitoring' (rabbitmqctl set_user_tags)",
        )
        return
    troubles = [
        (node, what, do)
        for node in facts.management.nodes
        for key, bad, what, do in _ALARMS
        if bool(node.get(key, not bad)) is bad
    ]
    for node, what, do in troubles:
        yield wrong(what, do, about=str(node["name"]))
    if not troubles:
        yield ok(f"{_count(len(facts.management.nodes), 'node')}, no alarm")


#: A key of a node, whether true or false is bad, what that means, and what to do.
_ALARMS = (
    ("running", False, "the node does not run", "start it; its log says why it ended"),
    ("mem_alarm", True, "memory is short: nobody can publish",
     "give it memory, or raise vm_memory_high_watermark"),
    ("disk_free_alarm", True, "the disk is almost full: nobody can publish", "make room on it"),
    ("partitions", True, "it does not see the other nodes", "mend the network between the nodes"),
)  # fmt: skip


def _version(facts: Facts) -> Version | None:
    said = "" if isinstance(facts.broker, str) else facts.broker.version
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def _text(version: Version) -> str:
    return ".".join(map(str, version))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
