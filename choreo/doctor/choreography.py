"""Queues, bindings and the agreement: whether all is there that the signatures say."""

from __future__ import annotations

from collections.abc import Iterator

from choreo.doctor.broker import enable
from choreo.doctor.facts import Facts, Kept
from choreo.doctor.findings import Finding, ok, unknown, wrong
from choreo.doctor.stale import Stale, bound, leftovers, stale, wanted_bindings
from choreo.rabbitmq.survey import Seen
from choreo.topology import JOURNAL, Binding

_UNSEEN = unknown("the broker does not answer", "make the broker answer first")
_DECLARE = "run 'choreo declare'"
_PRUNE = "look at it with 'choreo doctor --prune', then add --yes"
#: Keys of a policy with which a quorum queue drops messages that nobody has handled.
_LOSING = ("message-ttl", "expires", "max-length", "max-length-bytes", "delivery-limit")


def exchanges_are_declared(facts: Facts) -> Iterator[Finding]:
    """Every exchange of the contracts is there, as a durable topic exchange."""
    if isinstance(facts.broker, str):
        yield _UNSEEN
        return
    troubles = {name: said for name, said in facts.broker.exchanges.items() if said}
    for name, said in troubles.items():
        yield wrong(said, f"{_DECLARE}; one of another kind must be deleted first", about=name)
    if not troubles:
        yield ok(f"{len(facts.broker.exchanges)} exchanges")


def journal_keeps_what_is_set(facts: Facts) -> Iterator[Finding]:
    """The journal has the age and the size that these settings say, as for every service."""
    if isinstance(facts.broker, str):
        yield _UNSEEN
    elif (journal := facts.broker.queues.get(JOURNAL)) is None:
        yield wrong("it is not there", _DECLARE, about=JOURNAL)
    elif journal.other_form:
        yield wrong(
            journal.other_form,
            "give every service the same CHOREO_JOURNAL_*; to change them delete the journal "
            "(what it keeps is lost) and run 'choreo declare'",
            about=JOURNAL,
        )
    else:
        settings = facts.settings
        kept = f"{settings.journal_max_age}, {settings.journal_max_bytes} bytes"
        yield ok(f"a stream; {kept}", about=JOURNAL)


def queues_are_declared_and_consumed(facts: Facts) -> Iterator[Finding]:
    """Every service has its queue, of the right kind, and takes from it."""
    if isinstance(facts.broker, str):
        yield _UNSEEN
        return
    for name in facts.wanted.queues:
        yield _queue(facts.broker, name)


def _queue(broker: Seen, name: str) -> Finding:
    queue = broker.queues.get(name)
    if queue is None:
        return wrong("it is not there", _DECLARE, about=name)
    if queue.other_form:
        return wrong(
            queue.other_form,
            "stop its service, let the queue run empty or move what is in it, delete it, and "
            "run 'choreo declare'",
            about=name,
        )
    figures = f"{queue.consumers} consuming, {queue.waiting} waiting"
    if queue.consumers == 0:
        return wrong(figures, f"start it: 'choreo run {name}', or 'choreo up'", about=name)
    return ok(f"quorum, {figures}", about=name)


def no_policy_loses_messages(facts: Facts) -> Iterator[Finding]:
    """No policy of the broker lets a service's queue drop what nobody has handled."""
    if isinstance(facts.management, str):
        yield enable(facts)
        return
    found = False
    for queue in facts.management.queues:
        policy = queue.get("effective_policy_definition") or {}
        losing = [key for key in _LOSING if queue["name"] in facts.names and key in policy]
        if losing:
            found = True
            yield wrong(
                f"a policy sets {', '.join(losing)}",
                "keep that policy off the services' queues (rabbitmqctl list_policies)",
                about=queue["name"],
            )
    if not found:
        yield ok("none")


def bindings_are_what_the_signatures_say(facts: Facts) -> Iterator[Finding]:
    """No service misses a binding, and none hears what it does not handle any more."""
    if isinstance(facts.management, str):
        yield enable(facts)
        return
    live = bound(facts.management)
    missing = wanted_bindings(facts) - live
    for one in sorted(missing, key=repr):
        yield wrong(f"{_shown(one)} is missing", _DECLARE, about=one.queue)
    old = [one for one in stale(facts) if one.routing_key]
    for left in old:
        yield wrong(f"{left} is stale: it is not handled any more", _PRUNE, about=left.queue)
    if not missing and not old:
        own = [one for one in live if one.queue in facts.names]
        yield ok(f"{len(wanted_bindings(facts))} as they should be{_others(facts, own)}")


def _others(facts: Facts, own: list[Binding]) -> str:
    """What somebody else has bound to a service's queue: it is not ours to judge."""
    others = sorted(_shown(one) for one in set(own) - wanted_bindings(facts))
    return f"; not choreo's, and left alone: {', '.join(others)}" if others else ""


def commands_reach_their_owner_alone(facts: Facts) -> Iterator[Finding]:
    """Nobody else's queue gets the commands of a service."""
    if isinstance(facts.management, str):
        yield enable(facts)
        return
    strangers = [
        one
        for one in bound(facts.management)
        if one.exchange in facts.wanted.command_exchanges and one.queue not in facts.names
    ]
    for one in strangers:
        yield wrong(
            f"{_shown(one)}: it gets commands that are not its own",
            "take the binding away: who wants to know of it hears the event that answers",
            about=one.queue,
        )
    if not strangers:
        yield ok(f"{len(facts.wanted.command_exchanges)} exchanges of commands")


def no_queue_is_left_over(facts: Facts) -> Iterator[Finding]:
    """No queue of a service that is gone still hears the events of this project."""
    if isinstance(facts.management, str):
        yield enable(facts)
        return
    proven = {one.queue for one in stale(facts) if not one.routing_key}
    found = [queue for queue in leftovers(facts) if not queue.get("consumers")]
    for queue in found:
        name, messages = queue["name"], queue.get("messages")
        if name in proven:
            yield wrong("no service is called so, nothing is in it", _PRUNE, about=name)
        else:
            yield wrong(
                f"no service is called so, {messages if messages is not None else '?'} messages "
                "are in it, and nobody takes them",
                "start what reads it, or delete it with what is in it (rabbitmqctl delete_queue)",
                about=name,
            )
    if not found:
        yield ok("none")


def agreement_is_what_the_signatures_say(facts: Facts) -> Iterator[Finding]:
    """The file that the services go by is fresh."""
    write = f"choreo map --json > {facts.settings.contracts.replace('.', '/')}/choreography.json"
    if facts.agreement is None:
        yield unknown("there is no agreement", f"write it: {write}")
        return
    agreement, signatures = facts.agreement, facts.signatures
    differing = sorted(
        kind
        for kind in agreement.keys() | signatures.keys()
        if agreement.get(kind) != signatures.get(kind)
    )
    if differing:
        yield wrong(f"it is stale in {', '.join(differing)}", f"write it anew: {write}")
    else:
        yield ok(f"{len(agreement)} contracts")


def every_event_can_be_heard(facts: Facts) -> Iterator[Finding]:
    """Every queue is there that hears an event by agreement."""
    if isinstance(facts.broker, str):
        yield _UNSEEN
        return
    if facts.agreement is None:
        yield unknown("there is no agreement", "write it with 'choreo map --json'")
        return
    heard = {
        kind: set(one["heard_by"])
        for kind, one in facts.agreement.items()
        if one["kind"] == "event" and one["heard_by"]
    }
    found = False
    for kind, queues in heard.items():
        missing = sorted(queues - facts.broker.queues.keys())
        if not missing:
            continue
        found = True
        fate = "the journal keeps it for them"
        if len(missing) == len(queues):
            fate = f"it waits in the outbox ({_waiting(facts, kind)} now)"
        yield wrong(
            f"{', '.join(missing)} cannot hear it; {fate}",
            "run 'choreo declare', or take them out of the agreement",
            about=kind,
        )
    if not found:
        yield ok(f"{len(heard)} events with their subscribers")


def _waiting(facts: Facts, kind: str) -> int:
    kept = [one for one in facts.databases.values() if isinstance(one, Kept)]
    return sum(one.outgoing.get(kind, 0) for one in kept)


def _shown(one: Binding) -> str:
    return str(Stale(one.queue, one.exchange, one.routing_key))
