"""What must be true of accounts, and of the services that hear of everything: crm and audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from system import System

from contracts.accounts import RegisterAccount
from services.accounts import directory
from services.audit import verify
from services.audit.chain import records
from services.crm import customers


def check(system: System) -> Iterator[str]:
    """Accounts are as they were announced, and nothing that was announced was missed."""
    if "accounts" in system.services:
        yield from _accounts(system)
    if "crm" in system.services:
        yield from _crm(system)
    if "audit" in system.services:
        yield from _records(system)


def _accounts(system: System) -> Iterator[str]:
    """There is an account for each registration that was announced, one for each mail address."""
    rows = system.rows("accounts", directory.accounts)
    announced = [
        (command.customer_id, command.email)
        for flow, command in system.placed.items()
        if isinstance(command, RegisterAccount) and system.ends.get(flow) == ["registered"]
    ]
    found = [(row["customer_id"], row["email"]) for row in rows]
    if sorted(found) != sorted(announced):
        yield f"accounts has other accounts than it announced: {set(found) ^ set(announced)}"
    boxes = Counter(email.lower() for _, email in found)
    if doubled := [one for one, many in boxes.items() if many > 1]:
        yield f"several accounts have the mail addresses {doubled}"


def _crm(system: System) -> Iterator[str]:
    """Crm processed each event that it hears exactly once."""
    yield from _each_once(
        system, "crm", [row["message_id"] for row in system.rows("crm", customers.processed)]
    )


def _records(system: System) -> Iterator[str]:
    """The audit service recorded each event exactly once, and its chain is unbroken."""
    rows = system.rows("audit", records)
    yield from _each_once(system, "audit", [row["message_id"] for row in rows])
    verdict = system.reading("audit", verify.check)
    if verdict.broken_at is not None:
        yield f"audit: {verdict}"


def _each_once(system: System, service: str, noted: list[str]) -> Iterator[str]:
    """What a service noted is what it heard, each once."""
    routes = system.routes(service)
    times = Counter(noted)
    times.subtract(one.id for one in system.events() if one.type in routes)
    if wrong := {identifier: many for identifier, many in times.items() if many}:
        yield f"{service} noted events too often, or (below 0) not at all: {wrong}"
