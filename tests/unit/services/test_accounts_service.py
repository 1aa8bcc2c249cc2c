"""Accounts: one for each customer and mail address, and a reason for everyone else."""

from __future__ import annotations

from collections.abc import Iterator
from email.headerregistry import Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_samples import database
from sqlalchemy import select

from choreo import Connection
from choreo.contract import encode
from contracts.accounts import AccountRegistered, AccountRejected, Preference, RegisterAccount
from services.accounts import directory, register, service

WANTED = RegisterAccount(
    customer_id="ann",
    name="Ann Ames",
    email="Ann@example.org",
    address="1 High Street\nOldtown",
    member=True,
    preferences=(Preference(provider="airline", name="seat", value="window"),),
)


@pytest.fixture
def db() -> Iterator[Connection]:
    with database(service) as connection:
        yield connection


def changed(**values: Any) -> RegisterAccount:
    return RegisterAccount.model_validate(WANTED.model_dump() | values)


def reason(answer: AccountRegistered | AccountRejected) -> str:
    assert isinstance(answer, AccountRejected)
    return answer.reason


def entered(db: Connection) -> list[str]:
    return list(db.scalars(select(directory.accounts.c.customer_id)))


def test_an_account_is_entered_and_announced(db: Connection) -> None:
    assert register(WANTED, db) == AccountRegistered(**WANTED.model_dump())
    [row] = db.execute(select(directory.accounts)).mappings()
    assert {**row} == {**WANTED.model_dump(mode="json"), "mailbox": "ann@example.org"}


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"name": " "}, "no name"),
        ({"name": ""}, "no name"),
        ({"address": " \n "}, "no street address"),
        ({"email": ""}, "no mail address: ''"),
        ({"email": "ann"}, "no mail address: 'ann'"),
        ({"email": "ann@example"}, "no mail address: 'ann@example'"),
        ({"email": "ann@example.org\n"}, r"no mail address: 'ann@example.org\n'"),
        ({"email": "eve,ann@example.org"}, "no mail address: 'eve,ann@example.org'"),
        ({"email": "ann@a@example.org"}, "no mail address: 'ann@a@example.org'"),
        ({"name": "Ann\nBcc: eve"}, "control characters in name, address or preferences"),
        ({"address": "1 High\x00 Street"}, "control characters in name, address or preferences"),
        (
            {"preferences": [{"provider": "car", "name": "x", "value": "\x00"}]},
            "control characters in name, address or preferences",
        ),
        (
            {"name": "", "email": "ann", "address": ""},
            "no name; no mail address: 'ann'; no street address",
        ),
    ],
)
def test_what_is_missing_is_named(db: Connection, values: dict[str, Any], why: str) -> None:
    assert register(changed(**values), db) == AccountRejected(customer_id="ann", reason=why)
    assert entered(db) == []


def test_a_customer_id_is_taken_once(db: Connection) -> None:
    register(WANTED, db)
    other = changed(email="other@example.org", name="Other")
    assert reason(register(other, db)) == "the customer id ann is taken"
    assert entered(db) == ["ann"]


@pytest.mark.parametrize("email", ["Ann@example.org", "ANN@EXAMPLE.ORG", "ann@Example.org"])
def test_a_mail_address_is_registered_once(db: Connection, email: str) -> None:
    register(WANTED, db)
    assert reason(register(changed(customer_id="eve", email=email), db)) == (
        f"the mail address {email} is registered already"
    )
    assert entered(db) == ["ann"]


def test_a_rejection_takes_nothing(db: Connection) -> None:
    register(changed(name=""), db)
    assert isinstance(register(WANTED, db), AccountRegistered)


@given(email=st.emails() | st.text(max_size=40) | st.from_regex(r"[!-~]+@[!-~]+\.[a-z]+"))
def test_whoever_has_an_account_can_be_written_to(email: str) -> None:
    wanted = changed(email=email[:254])
    if not directory.faults(wanted):
        assert str(Address(addr_spec=wanted.email)) == wanted.email
        assert encode(AccountRegistered(**wanted.model_dump()))


@given(email=st.emails())
def test_usual_addresses_are_taken(email: str) -> None:
    assert directory.faults(changed(email=email)) == []
