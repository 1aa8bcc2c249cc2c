"""What must be true of accounts, and of the services that hear of everything: crm and audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from choreo.audit import Evidence, Finding
from contracts.accounts import AccountRegistered
from services.accounts import directory
from services.audit import verify
from services.audit.chain import records
from services.crm import customers


def accounts(evidence: Evidence) -> Iterator[Finding]:
    """There is an account for each registration that was announced."""
    if "accounts" not in evidence.kept:
        return
    known = {row["customer_id"]: row["email"]
             for row in evidence.rows("accounts", directory.accounts)}  # fmt: skip
    for message, one in evidence.of(AccountRegistered):
        if known.get(one.customer_id) != one.email:
            yield Finding(
                "account",
                f"{one.customer_id} is registered with {one.email}, and accounts knows "
                f"{known.get(one.customer_id)}",
                flow=message.envelope.flow,
                message=message.id,
                handler="accounts.register",
            )


def heard_once(evidence: Evidence) -> Iterator[Finding]:
    """Crm and the audit service noted each event that they hear once; no link was changed."""
    for service, table in (("crm", customers.processed), ("audit", records)):
        if service not in evidence.kept:
            continue
        times = Counter(row["message_id"] for row in evidence.rows(service, table))
        heard = {kind.__address__.wire_type for kind in evidence.kept[service].service.routes()}
        for flow in evidence.ended.values():
            for one in flow.announced:
                if one.envelope.type in heard and times[one.id] != 1:
                    yield Finding(
                        "noted",
                        f"{service} noted this {one.envelope.type} {times[one.id]} times",
                        flow=flow.id,
                        message=one.id,
                        handler=service,
                    )
    if "audit" in evidence.kept:
        verdict = evidence.reading("audit", verify.check)
        if verdict.broken_at is not None:
            yield Finding("chain", str(verdict), handler="audit.record",
                          look="python -m services.audit.verify")  # fmt: skip
