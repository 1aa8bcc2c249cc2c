"""`scripts/book-trip` reserves a trip, confirms it, and follows both to their ends."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cast
import pytest
from script import Script, declare
from system import System

from contracts.rewards import TripPointsGranted


@pytest.fixture
def book_trip(amqp_url: str, tmp_path: Path) -> Script:
    return Script("book-trip", amqp_url, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(900)  # it runs the script a dozen times
async def test_follows_trips_to_their_ends(
    amqp_url: str, tmp_path: Path, book_trip: Script
) -> None:
    database_url = f"sqlite:///{tmp_path}/{{service}}.db"
    async with System(amqp_url, database_url, tmp_path, cast.TRAVEL) as system:
        await system.start()

        done = await book_trip("--member")
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        assert "  travel.reserve  trip-" in lines[0]
        [reserved] = [at for at, line in enumerate(lines) if line.startswith("reserved after ")]
        assert "  travel.confirm" in lines[reserved + 1]
        names = Counter(line.strip("│├└─ ").split()[0] for line in lines[reserved + 2 : -1])
        assert names["providers.leg_booked"] == 3
        assert names["notifications.email_sent"] == 1
        assert lines[-1].startswith("confirmed after ")
        # Who may be silent is not waited for.
        await system.hears(lambda one: one.type == TripPointsGranted.__address__.wire_type)
        assert names["rewards.trip_granted"] <= 1

        for way in ((), ("--choreographed",)):
            sold_out = ("--leg", "hotel:ROOM-1", "--leg", "car:CAR-NEVER:2040-01-01:2040-01-02")
            for words, outcome, cancelled in (
                ((), "confirmed", 0),
                (("--card", "4000-0002"), "cancelled", 3),
                (sold_out, "cancelled", 1),
            ):
                reservation, trip = (await book_trip.told(*way, *words))["flows"]
                assert (reservation["outcome"], trip["outcome"]) == ("reserved", outcome)
                assert reservation["missing"] == trip["missing"] == []
                types = Counter(one["type"] for one in trip["events"])
                assert types["providers.leg_cancelled.v1"] == cancelled
                assert types["travel.reservation_confirmed.v1"] == len(way)

        for leg, reason in (
            ("ship:CABIN-1", "ship"),
            ("hotel:CASTLE", "CASTLE"),
            ("hotel:ROOM-1:2040-01-02:2040-01-01", "2040-01-01"),
            ("hotel:ROOM-1:2020-01-01:2020-01-02", "past"),
        ):
            [reservation] = (await book_trip.told("--leg", leg))["flows"]
            assert reservation["outcome"] == "rejected"
            assert reason in reservation["reason"]

        told = await book_trip.told("--count", "5", "--leg", "hotel:ROOM-LAST")
        assert told["outcomes"]["reserved"]["flows"] == 5
        assert told["outcomes"]["confirmed"]["flows"] == 3
        assert told["outcomes"]["cancelled"]["flows"] == 2


async def test_says_who_does_not_answer(amqp_url: str, book_trip: Script) -> None:
    await declare(amqp_url)
    done = await book_trip("--timeout", "0.5")
    assert done.returncode == 1
    assert done.stdout.splitlines()[1:] == [
        "no end within 0.5 s",
        "  service reservations: reserve has not answered travel.reserve",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--leg", "hotel"), "--leg: 'hotel' is no PROVIDER:OFFER[:FROM:TO], as airline:ROME-1:"),
        (("--leg", "hotel:ROOM-1:2040-01-01"), "--leg: 'hotel:ROOM-1:2040-01-01' is no PROVIDER"),
        (("--leg", "hotel:"), "--leg: String should have at least 1 character"),
        (("--leg", "hotel:ROOM-1:now:then"), "--leg: Input should be a valid date"),
        (("--card", ""), "--card: String should have at least 1 character"),
    ],
)
async def test_bad_input_is_refused_before_anything_is_sent(
    book_trip: Script, words: tuple[str, ...], said: str
) -> None:
    assert (await book_trip.refuses(*words)).startswith(f"book-trip: {said}")
