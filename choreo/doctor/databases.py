"""The services' databases: whether anything in them should be done, and is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from choreo.doctor.facts import Facts, Kept
from choreo.doctor.findings import Finding, ok, unknown, wrong

#: What waits for less is on its way.
OUTBOX_LATE_S = 60.0
DUE_LATE_S = 60.0
UNDO_LATE_S = 600.0


def databases_belong_to_their_services(facts: Facts) -> Iterator[Finding]:
    """Each service's database answers, and is its own."""
    for service, kept in facts.databases.items():
        if kept is None:
            yield unknown("it has never run on this database", f"'choreo run {service}'", service)
        elif isinstance(kept, str):
            yield wrong(kept, "make it answer, or correct CHOREO_DATABASE_URL", service)
        elif kept.owner != service:
            yield wrong(
                f"it belongs to {kept.owner}",
                "give each service its own ('{service}' in CHOREO_DATABASE_URL)",
                service,
            )
        else:
            yield ok("its own", service)


def no_dead_letters(facts: Facts) -> Iterator[Finding]:
    """No message waits for a person."""

    def look(service: str, kept: Kept) -> Iterator[Finding]:
        if kept.letters:
            yield wrong(
                f"{kept.letters}, the last: {kept.reason}",
                f"'choreo dead list --service {service}'; mend the cause, then 'choreo dead retry'",
                service,
            )

    return _each(facts, look)


def outboxes_are_published(facts: Facts) -> Iterator[Finding]:
    """What is committed reaches the broker soon."""

    def look(service: str, kept: Kept) -> Iterator[Finding]:
        waiting = sum(kept.outgoing.values())
        if waiting and kept.outgoing_age_s > OUTBOX_LATE_S:
            yield wrong(
                f"{waiting} wait, the oldest for {_age(kept.outgoing_age_s)}: "
                f"{', '.join(sorted(kept.outgoing))}",
                "is the service running, does the broker take messages, can they be heard? Its "
                "log says what it waits for",
                service,
            )
        elif waiting:
            yield ok(f"{waiting} on their way", service)

    return _each(facts, look)


def what_is_due_happens(facts: Facts) -> Iterator[Finding]:
    """Retries, deadlines, undos and outside calls come when they are due."""

    def look(service: str, kept: Kept) -> Iterator[Finding]:
        if kept.overdue and kept.overdue_age_s > DUE_LATE_S:
            yield wrong(
                f"{kept.overdue} overdue, the first for {_age(kept.overdue_age_s)}",
                "start the service; if it runs, its log says what holds it up (deadlines wait "
                "until its queue is heard)",
                service,
            )

    return _each(facts, look)


def no_undo_waits_for_a_person(facts: Facts) -> Iterator[Finding]:
    """Nothing is still to be taken back that a dead letter holds up."""

    def look(service: str, kept: Kept) -> Iterator[Finding]:
        for handler, flow in kept.owed:
            yield wrong(
                f"{handler} is owed in flow {flow}",
                f"'choreo dead list --service {service}': send back its letter, or its step's",
                service,
            )

    return _each(facts, look)


def no_run_is_stuck_in_its_undo(facts: Facts) -> Iterator[Finding]:
    """No conductor has waited long for something to be taken back."""

    def look(service: str, kept: Kept) -> Iterator[Finding]:
        for conductor, flow, age_s in kept.undoing:
            if age_s > UNDO_LATE_S:
                yield wrong(
                    f"{conductor} is being undone, and nothing has moved for {_age(age_s)}: "
                    f"flow {flow}",
                    "'choreo runs' says which answer it waits for; look at that service",
                    service,
                )

    return _each(facts, look)


def _each(facts: Facts, look: Callable[[str, Kept], Iterator[Finding]]) -> Iterator[Finding]:
    """What is found in each database that is its service's own; one line if that is nothing."""
    own = {
        service: kept
        for service, kept in facts.databases.items()
        if isinstance(kept, Kept) and kept.owner == service
    }
    found = [one for service, kept in own.items() for one in look(service, kept)]
    yield from found
    if not own:
        yield unknown("no database to look at", "see 'databases belong to their services'")
    elif not found:
        yield ok("none" if len(own) == len(facts.databases) else f"none in {', '.join(own)}")


def _age(age_s: float) -> str:
    """A time span as a person says it."""
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if age_s >= 2 * length_s:
            return f"{age_s / length_s:.0f} {unit}"
    return f"{age_s:.0f} s"
