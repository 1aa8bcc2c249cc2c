"""`scripts/register` follows registrations to their ends; a rejection is one."""

from __future__ import annotations

from pathlib import Path

import cast
import pytest
from script import Script, declare
from system import System


@pytest.fixture
def register(amqp_url: str, tmp_path: Path) -> Script:
    return Script("register", amqp_url, tmp_path)


@pytest.mark.long
async def test_follows_registrations_to_their_ends(
    amqp_url: str, tmp_path: Path, register: Script
) -> None:
    database_url = f"sqlite:///{tmp_path}/{{service}}.db"
    async with System(amqp_url, database_url, tmp_path, cast.ACCOUNTS) as system:
        await system.start()

        done = await register(
            "--name", "Grace Hopper", "--email", "grace@example.com", "--member",
            "--prefer", "airline.seat=aisle", "--prefer", "hotel.floor=a.b=c",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        title, *tree, end = done.stdout.splitlines()
        assert "  accounts.register  customer-" in title
        assert sorted(line.strip("│├└─ ").split()[0] for line in tree) == [
            "accounts.registered",
            "crm.profile_opened",
            "notifications.email_sent",
        ]
        assert end.startswith("registered after ")

        [account] = (await register.told("--email", "nobody"))["accounts"]
        assert account["outcome"] == "rejected"
        assert "nobody" in account["reason"]
        done = await register("--email", "grace@example.com")
        assert done.returncode == 0
        assert done.stdout.splitlines()[-1].startswith("rejected after ")

        told = await register.told("--count", "5", "--prefer", "airline.seat=window")
        assert told["outcomes"]["registered"]["accounts"] == 5
        told = [
            one["body"]
            for account in told["accounts"]
            for one in account["events"]
            if one["type"] == "accounts.registered.v1"
        ]
        assert len({one["email"] for one in told}) == 5
        assert {str(one["preferences"]) for one in told} == {
            "[{'provider': 'airline', 'name': 'seat', 'value': 'window'}]"
        }


async def test_says_who_does_not_answer(amqp_url: str, register: Script) -> None:
    await declare(amqp_url)
    done = await register("--timeout", "0.5")
    assert done.returncode == 1
    assert done.stdout.splitlines()[1:] == [
        "no end within 0.5 s",
        "  service accounts: register has not answered accounts.register",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prefer", "aisle"), "--prefer: 'aisle' is no PROVIDER.NAME=VALUE, as airline.seat="),
        (("--prefer", f"airline.{'x' * 65}="), "--prefer: String should have at most 64"),
        (("--name", "x" * 201), "--name: String should have at most 200 characters"),
        (("--email", "x" * 255), "--email: String should have at most 254 characters"),
    ],
)
async def test_bad_input_is_refused_before_anything_is_sent(
    register: Script, words: tuple[str, ...], said: str
) -> None:
    assert (await register.refuses(*words)).startswith(f"register: {said}")
