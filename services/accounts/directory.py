"""The directory: one row for each account; no customer id and no mail address is in it twice."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    insert,
    select,
)

from contracts.accounts import RegisterAccount
from contracts.customers import Email

tables = MetaData()

accounts = Table(
    "accounts",
    tables,
    Column("customer_id", String(64), primary_key=True),
    Column("mailbox", Text, nullable=False, unique=True),  # the mail address in lower case
    Column("name", String(200), nullable=False),
    Column("email", String(254), nullable=False),
    Column("address", String(500), nullable=False),
    Column("member", Boolean, nullable=False),
    Column("preferences", JSON, nullable=False),
)

_with_id = select(accounts.c.customer_id).where(accounts.c.customer_id == bindparam("id"))
_with_mailbox = select(accounts.c.customer_id).where(accounts.c.mailbox == bindparam("box"))
_enter = insert(accounts)

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9-]+"
#: What every mail server takes: plain ASCII without quotes and comments.
_plain_address: TypeAdapter[str] = TypeAdapter(
    Annotated[Email, Field(pattern=rf"^{_ATOM}(\.{_ATOM})*@{_LABEL}(\.{_LABEL})+$")]
)
#: No database and no mail takes them all.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def faults(wanted: RegisterAccount) -> list[str]:
    """Say what is missing or unusable in what somebody entered."""
    found = []
    if not wanted.name.strip():
        found.append("no name")
    if not _takes_mail(wanted.email):
        found.append(f"no mail address: {wanted.email!r}")
    if not wanted.address.strip():
        found.append("no street address")
    texts = [wanted.name, *wanted.address.splitlines()]
    texts += [text for one in wanted.preferences for text in (one.provider, one.name, one.value)]
    if any(map(_CONTROL.search, texts)):
        found.append("control characters in name, address or preferences")
    return found


def conflicts(db: Connection, wanted: RegisterAccount) -> list[str]:
    """Say what of it somebody has already."""
    found = []
    if db.scalar(_with_id, {"id": wanted.customer_id}) is not None:
        found.append(f"the customer id {wanted.customer_id} is taken")
    if db.scalar(_with_mailbox, {"box": wanted.email.lower()}) is not None:
        found.append(f"the mail address {wanted.email} is registered already")
    return found


def enter(db: Connection, wanted: RegisterAccount) -> None:
    """Enter an account that has no faults and no conflicts."""
    db.execute(_enter, {**wanted.model_dump(mode="json"), "mailbox": wanted.email.lower()})


def _takes_mail(text: str) -> bool:
    try:
        _plain_address.validate_python(text)
    except ValidationError:
        return False
    return True
