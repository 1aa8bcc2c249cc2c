"""Every check, in the order of the report: each is named for what holds when all is well."""

from __future__ import annotations

from collections.abc import Iterator

from choreo.doctor.broker import (
    broker_answers,
    broker_has_no_alarm,
    broker_has_no_known_fault,
    broker_is_of_a_supported_version,
)
from choreo.doctor.choreography import (
    agreement_is_what_the_signatures_say,
    bindings_are_what_the_signatures_say,
    commands_reach_their_owner_alone,
    every_event_can_be_heard,
    exchanges_are_declared,
    journal_keeps_what_is_set,
    no_policy_loses_messages,
    no_queue_is_left_over,
    queues_are_declared_and_consumed,
)
from choreo.doctor.databases import (
    databases_belong_to_their_services,
    no_dead_letters,
    no_run_is_stuck_in_its_undo,
    no_undo_waits_for_a_person,
    outboxes_are_published,
    what_is_due_happens,
)
from choreo.doctor.facts import Facts
from choreo.doctor.findings import Check, Finding

CHECKS: tuple[Check, ...] = (
    broker_answers,
    broker_is_of_a_supported_version,
    broker_has_no_known_fault,
    broker_has_no_alarm,
    exchanges_are_declared,
    journal_keeps_what_is_set,
    queues_are_declared_and_consumed,
    no_policy_loses_messages,
    bindings_are_what_the_signatures_say,
    commands_reach_their_owner_alone,
    no_queue_is_left_over,
    agreement_is_what_the_signatures_say,
    every_event_can_be_heard,
    databases_belong_to_their_services,
    no_dead_letters,
    outboxes_are_published,
    what_is_due_happens,
    no_undo_waits_for_a_person,
    no_run_is_stuck_in_its_undo,
)


def examine(facts: Facts) -> Iterator[tuple[str, Finding]]:
    """Make every check; gives what each found, with its name."""
    for check in CHECKS:
        name = getattr(check, "__name__", "").replace("_", " ")
        for finding in check(facts):
            yield name, finding
