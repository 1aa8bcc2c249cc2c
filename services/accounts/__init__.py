"""Accounts: give a customer an account, or say why not."""

from __future__ import annotations

from choreo import Connection, Service
from contracts.accounts import AccountRegistered, AccountRejected, RegisterAccount

from . import directory

service = Service("accounts", tables=directory.tables)


@service.on(final="an account stays")
def register(wanted: RegisterAccount, db: Connection) -> AccountRegistered | AccountRejected:
    """Open the account, unless something is missing or somebody has it."""
    reasons = directory.faults(wanted) or directory.conflicts(db, wanted)
    if reasons:
        return AccountRejected(customer_id=wanted.customer_id, reason="; ".join(reasons))
    directory.enter(db, wanted)
    return AccountRegistered(
        customer_id=wanted.customer_id,
        name=wanted.name,
        email=wanted.email,
        address=wanted.address,
        member=wanted.member,
        preferences=wanted.preferences,
    )
