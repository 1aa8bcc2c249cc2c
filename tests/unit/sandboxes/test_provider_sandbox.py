"""A provider of travel: every kind of offer, and that its places are free or booked, never both."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sandbox_process import Sandbox, eventually, running

from sandboxes import airline as flights
from sandboxes.ledger import Effect, Ledger

# The tables of effects and answers as they were before there were offers.
OLDER_TABLES = """
CREATE TABLE effects (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL,
    order_id TEXT NOT NULL, reference TEXT NOT NULL, amount INTEGER
);
INSERT INTO effects VALUES (1, '2026-03-01', 'charge', 'old', 'o-1', 'pay_1', 450);
"""


@pytest.fixture(scope="module")
def airline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running("airline", tmp_path_factory.mktemp("airline")) as sandbox:
        yield sandbox


def leg(trip_id: str, offer: str) -> dict[str, Any]:
    return {
        "trip_id": trip_id,
        "leg_id": f"{trip_id}.1",
        "offer": offer,
        "start": "2030-05-01",
        "end": "2030-05-08",
    }


async def book(airline: Sandbox, trip_id: str, offer: str) -> tuple[int, dict[str, Any]]:
    return await airline.post("/bookings", trip_id, leg(trip_id, offer))


async def booked(airline: Sandbox, trip_id: str, offer: str = "ROME-1") -> str:
    status, said = await book(airline, trip_id, offer)
    assert (status, said["price"]) == (201, flights.OFFERS[offer].price)
    return str(said["booking_id"])


async def free(airline: Sandbox, offer: str) -> int:
    """How many places are free; with those that are booked they must be all."""
    async with aiohttp.ClientSession() as http, http.get(f"{airline.url}/offers") as answer:
        [one] = [row for row in await answer.json() if row["offer"] == offer]
    assert (one["price"], one["places"]) == (
        flights.OFFERS[offer].price,
        flights.OFFERS[offer].places,
    )
    kinds = [row["kind"] for row in await airline.ledger(offer=offer)]
    assert one["free"] + kinds.count("booking") - kinds.count("cancellation") == one["places"]
    return int(one["free"])


async def test_a_place_is_booked_once_for_a_key(airline: Sandbox) -> None:
    before = await free(airline, "ROME-1")
    booking_id = await booked(airline, "normal")
    assert await booked(airline, "normal") == booking_id
    [row] = await airline.ledger(order_id="normal")
    assert (row["kind"], row["key"], row["reference"]) == ("booking", "normal", booking_id)
    assert (row["offer"], row["amount"]) == ("ROME-1", 18_900)
    assert await free(airline, "ROME-1") == before - 1


@pytest.mark.parametrize(
    ("offer", "error", "reason"),
    [
        ("ROME-NEVER", "sold_out", "ROME-NEVER is sold out"),
        ("PARIS-1", "unknown_offer", "there is no offer 'PARIS-1'; there are ROME-1, ROME-LAST"),
    ],
)
async def test_what_there_is_not_is_refused(
    airline: Sandbox, offer: str, error: str, reason: str
) -> None:
    for _ in range(2):
        status, said = await book(airline, f"refused-{offer}", offer)
        assert (status, said["error"]) == (422, error)
        assert said["reason"].startswith(reason)
    assert await airline.ledger(order_id=f"refused-{offer}") == []


async def test_the_last_places_are_sold_once_and_a_cancelled_one_again(tmp_path: Path) -> None:
    with running("airline", tmp_path) as airline:
        tries = await asyncio.gather(*(book(airline, f"t-{n}", "ROME-LAST") for n in range(10)))
        won = [said["booking_id"] for status, said in tries if status == 201]
        assert len(won) == 3
        assert [said["error"] for status, said in tries if status == 422] == ["sold_out"] * 7
        assert await free(airline, "ROME-LAST") == 0
        for key in ("c-1", "c-1", "c-2"):
            assert await airline.post(f"/bookings/{won[0]}/cancel", key) == (
                200,
                {"booking_id": won[0], "offer": "ROME-LAST"},
            )
        assert len(await airline.ledger(kind="cancellation")) == 1
        assert await free(airline, "ROME-LAST") == 1
        await booked(airline, "again", "ROME-LAST")
        assert (await book(airline, "too-late", "ROME-LAST"))[0] == 422


async def test_a_killed_one_knows_how_many_places_are_free(tmp_path: Path) -> None:
    with running("airline", tmp_path) as airline:
        given_back = await booked(airline, "t-1", "ROME-LAST")
        await booked(airline, "t-2", "ROME-LAST")
        await airline.post(f"/bookings/{given_back}/cancel", "cancel")
        airline.stop(signal.SIGKILL)
    (tmp_path / "airline.url").unlink()  # what was killed could not withdraw
    with running("airline", tmp_path) as airline:
        assert await free(airline, "ROME-LAST") == 2


async def test_a_slow_offer_is_booked_before_the_wait(tmp_path: Path) -> None:
    with running("airline", tmp_path, SANDBOX_SLOW_S="600") as airline:
        first = asyncio.create_task(booked(airline, "slow", "ROME-SLOW"))
        await eventually(lambda: airline.ledger(order_id="slow"))
        again = await booked(airline, "slow", "ROME-SLOW")
        assert not first.done()
        [row] = await airline.ledger(order_id="slow")
        assert row["reference"] == again
        airline.stop(signal.SIGKILL)
        with pytest.raises(aiohttp.ClientConnectionError):
            await first


async def test_a_slow_offer_is_answered_alike_after_the_wait(airline: Sandbox) -> None:
    first, again = await asyncio.gather(*(booked(airline, "late", "ROME-SLOW") for _ in range(2)))
    assert first == again
    assert len(await airline.ledger(order_id="late")) == 1


async def test_a_lost_answer_is_a_booking_that_the_key_finds_again(airline: Sandbox) -> None:
    with pytest.raises(aiohttp.ClientConnectionError):
        await booked(airline, "lost", "ROME-LOST")
    [row] = await airline.ledger(order_id="lost")
    assert await booked(airline, "lost", "ROME-LOST") == row["reference"]
    assert await airline.ledger(order_id="lost") == [row]


async def test_an_unknown_booking_is_404(airline: Sandbox) -> None:
    status, said = await airline.post("/bookings/book_none/cancel", "unknown")
    assert (status, said["reason"]) == (404, "there is no booking 'book_none'")


async def test_a_key_belongs_to_one_request(airline: Sandbox) -> None:
    booking_id = await booked(airline, "doubled")
    status, said = await book(airline, "doubled", "ROME-SLOW")
    assert (status, said["error"]) == (422, "key_reused")
    status, said = await airline.post(f"/bookings/{booking_id}/cancel", "doubled")
    assert (status, said["error"]) == (422, "key_reused")
    assert len(await airline.ledger(key="doubled")) == 1


async def test_a_bad_day_is_told_by_its_field(airline: Sandbox) -> None:
    body = {**leg("bad", "ROME-1"), "start": "tomorrow"}
    status, said = await airline.post("/bookings", "bad", body)
    assert (status, said["error"]) == (400, "invalid")
    assert said["reason"].startswith("start: Input should be a valid date")


async def test_nothing_is_done_without_a_key(airline: Sandbox) -> None:
    booking_id = await booked(airline, "keyless")
    for asked in ("/bookings", f"/bookings/{booking_id}/cancel"):
        status, said = await airline.post(asked, None, leg("keyless", "ROME-1"))
        assert (status, said["error"]) == (400, "no_key")
    assert len(await airline.ledger(order_id="keyless")) == 1


def test_a_ledger_from_before_there_were_offers_is_read_and_written(tmp_path: Path) -> None:
    older = sqlite3.connect(tmp_path / "gateway.db")
    older.executescript(OLDER_TABLES)
    older.close()
    ledger = Ledger(tmp_path / "gateway.db")
    assert ledger.find("charge", "pay_1") == Effect("charge", "old", "o-1", "pay_1", 450)
    ledger.record(Effect("booking", "new", "t-1", "book_1", 900, "ROME-1"))
    assert [row["offer"] for row in ledger.rows()] == [None, "ROME-1"]
    assert (ledger.count("booking", "ROME-1"), ledger.count("charge", "ROME-1")) == (1, 0)
    ledger.close()
