"""Providers: quoted all at once, booked once for a key, given back; refused in words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import date
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from service_samples import ANN, context

from contracts.providers import (
    BookLeg,
    CancelLeg,
    LegBooked,
    LegCancelled,
    LegRefused,
    QuoteTrip,
    TripNotOffered,
    TripQuoted,
)
from contracts.travel import Leg, TripCancelled
from sandboxes import airline, car, hotel, provider
from sandboxes.ledger import Ledger
from services.providers import book, cancel, open_providers, quote
from services.providers.outside import (
    Booked,
    NotOfferedError,
    ProviderError,
    Providers,
    Settings,
)

FLIGHT, ROOM = ("airline", "ROME-1"), ("hotel", "ROOM-1")
BOOKED = LegBooked(
    leg_id="t-1.1",
    trip_id="t-1",
    provider="airline",
    offer="ROME-1",
    booking_id="book_1",
    price=18_900,
)
CAUSES = (
    CancelLeg(leg_id="t-1.1", trip_id="t-1"),
    TripCancelled(trip_id="t-1", customer=ANN, reason="no room"),
)


def a_leg(provider: str, offer: str) -> Leg:
    return Leg(provider=provider, offer=offer, start=date(2030, 5, 1), end=date(2030, 5, 8))


def trip(*legs: tuple[str, str]) -> QuoteTrip:
    return QuoteTrip(trip_id="t-1", legs=tuple(a_leg(*one) for one in legs))


def wanted(provider: str, offer: str) -> BookLeg:
    return BookLeg(leg_id="t-1.1", trip_id="t-1", leg=a_leg(provider, offer))


class Fake(Providers):
    """Answers what it is told to, and keeps what it was asked."""

    def __init__(self, refusal: str | None = None) -> None:
        self.refusal = refusal
        self.asked: list[tuple[object, ...]] = []

    async def prices(self, legs: Sequence[Leg]) -> tuple[int, ...]:
        self._note(*legs)
        return tuple(100 * number for number, _ in enumerate(legs, 1))

    async def book(self, *, key: str, trip_id: str, leg_id: str, leg: Leg) -> Booked:
        self._note(key, trip_id, leg_id, leg)
        return Booked(booking_id="book_1", price=18_900)

    async def cancel(self, *, key: str, provider: str, booking_id: str) -> None:
        self._note(key, provider, booking_id)

    def _note(self, *asked: object) -> None:
        self.asked.append(asked)
        if self.refusal:
            raise NotOfferedError(self.refusal)


async def test_every_leg_has_its_price() -> None:
    assert await quote(trip(FLIGHT, ROOM), Fake()) == TripQuoted(trip_id="t-1", prices=(100, 200))


async def test_what_is_not_offered_is_an_answer_and_no_error() -> None:
    assert await quote(trip(FLIGHT), Fake("leg 1: no wings")) == TripNotOffered(
        trip_id="t-1", reason="leg 1: no wings"
    )


async def test_a_leg_is_booked_under_the_key_of_the_call() -> None:
    fake = Fake()
    assert await book(wanted(*FLIGHT), context("key"), fake) == BOOKED
    assert fake.asked == [("key", "t-1", "t-1.1", a_leg(*FLIGHT))]


async def test_a_refused_leg_is_an_answer_and_no_error() -> None:
    assert await book(wanted(*FLIGHT), context("key"), Fake("sold out")) == LegRefused(
        leg_id="t-1.1", trip_id="t-1", provider="airline", reason="sold out"
    )


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_booking_is_given_back_whatever_the_cause(cause: CancelLeg | TripCancelled) -> None:
    fake = Fake()
    assert await cancel(cause, BOOKED, context("undo"), fake) == LegCancelled(
        leg_id="t-1.1", trip_id="t-1", provider="airline", booking_id="book_1"
    )
    assert fake.asked == [("undo", "airline", "book_1")]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """What the airline has booked."""
    return Ledger(tmp_path / "airline.db")


@pytest_asyncio.fixture
async def outside(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Providers]:
    """The three sandboxes, as the service finds them."""
    for name in ("PROVIDERS_NAMES", "PROVIDERS_URLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CHOREO_VAR", str(tmp_path))
    books = {
        "airline": (ledger, airline.OFFERS),
        "hotel": (Ledger(tmp_path / "hotel.db"), hotel.OFFERS),
        "car": (Ledger(tmp_path / "car.db"), car.OFFERS),
    }
    async with AsyncExitStack() as stack:
        for name, (kept, offers) in books.items():
            stack.callback(kept.close)
            server = TestServer(provider.application(kept, offers))
            await stack.enter_async_context(server)
            (tmp_path / f"{name}.url").write_text(f"http://{server.host}:{server.port}\n")
        yield await stack.enter_async_context(open_providers())


async def booked(outside: Providers, offer: str, key: str) -> LegBooked:
    answer = await book(wanted("airline", offer), context(key), outside)
    assert isinstance(answer, LegBooked)
    return answer


async def test_prices_are_those_of_the_providers_in_the_order_of_the_legs(
    outside: Providers, ledger: Ledger
) -> None:
    asked = trip(FLIGHT, ROOM, ("car", "CAR-LAST"), ("airline", "ROME-NEVER"))
    assert await quote(asked, outside) == TripQuoted(
        trip_id="t-1",
        prices=(
            airline.OFFERS["ROME-1"].price,
            hotel.OFFERS["ROOM-1"].price,
            car.OFFERS["CAR-LAST"].price,
            airline.OFFERS["ROME-NEVER"].price,
        ),
    )
    assert ledger.rows() == []


@pytest.mark.parametrize(
    ("leg", "reason"),
    [
        (("ferry", "CAPRI"), "there is no provider 'ferry'; there are airline, hotel, car"),
        (("../airline", "X"), "there is no provider '../airline'; there are airline, hotel, car"),
        (
            ("car", "TANK"),
            "car does not offer 'TANK'; it offers CAR-1, CAR-LAST, CAR-SLOW, CAR-LOST, CAR-NEVER",
        ),
    ],
)
async def test_what_there_is_not_is_told_with_its_leg_and_with_what_there_is(
    outside: Providers, leg: tuple[str, str], reason: str
) -> None:
    assert await quote(trip(FLIGHT, leg), outside) == TripNotOffered(
        trip_id="t-1", reason=f"leg 2: {reason}"
    )


async def test_each_provider_is_asked_once_and_all_at_the_same_time(
    outside: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    both = asyncio.Event()

    def slow(name: str) -> web.Application:
        async def show(_: web.Request) -> web.Response:
            asked.append(name)
            if len(asked) == 2:
                both.set()
            await both.wait()  # one after the other would never come to an end
            return web.json_response([{"offer": "ONE", "price": 1}, {"offer": "TWO", "price": 2}])

        app = web.Application()
        app.add_routes([web.get("/offers", show)])
        return app

    async with TestServer(slow("ferry")) as ferry, TestServer(slow("train")) as train:
        monkeypatch.setenv(
            "PROVIDERS_URLS",
            f'{{"ferry": "{ferry.make_url("/")}", "train": "{train.make_url("/")}"}}',
        )
        async with open_providers() as opened, asyncio.timeout(60):
            assert await quote(
                trip(("ferry", "TWO"), ("train", "ONE"), ("ferry", "ONE")), opened
            ) == TripQuoted(trip_id="t-1", prices=(2, 1, 1))
    assert sorted(asked) == ["ferry", "train"]


async def test_a_leg_is_booked_once_for_a_key_and_given_back_once(
    outside: Providers, ledger: Ledger
) -> None:
    first = await booked(outside, "ROME-1", "key")
    assert await booked(outside, "ROME-1", "key") == first
    [row] = ledger.rows()
    assert first == BOOKED.model_copy(update={"booking_id": row["reference"]})
    assert (row["key"], row["order_id"], row["offer"]) == ("key", "t-1", "ROME-1")
    for cause in CAUSES:
        answer = await cancel(cause, first, context("undo"), outside)
        assert answer.booking_id == first.booking_id
    assert [one["kind"] for one in ledger.rows()] == ["booking", "cancellation"]


@pytest.mark.parametrize(
    ("leg", "reason"),
    [
        (("airline", "ROME-NEVER"), "airline: ROME-NEVER is sold out"),
        (("airline", "MOON"), "airline: there is no offer 'MOON'; there are ROME-1, ROME-LAST,"),
        (("ferry", "CAPRI"), "there is no provider 'ferry'; there are airline, hotel, car"),
    ],
)
async def test_what_there_is_not_is_refused(
    outside: Providers, ledger: Ledger, leg: tuple[str, str], reason: str
) -> None:
    answer = await book(wanted(*leg), context("key"), outside)
    assert isinstance(answer, LegRefused)
    assert answer.provider == leg[0]
    assert answer.reason.startswith(reason)
    assert ledger.rows() == []


async def test_a_used_key_is_no_refusal(outside: Providers) -> None:
    await booked(outside, "ROME-1", "key")
    with pytest.raises(ProviderError, match=r"airline: 422 for a booking: .*another request"):
        await booked(outside, "ROME-LAST", "key")


async def test_a_lost_answer_is_an_exception_and_the_same_key_finds_the_booking(
    outside: Providers, ledger: Ledger
) -> None:
    with pytest.raises(aiohttp.ClientConnectionError):
        await booked(outside, "ROME-LOST", "key")
    answer = await booked(outside, "ROME-LOST", "key")
    assert [row["reference"] for row in ledger.rows()] == [answer.booking_id]


async def test_a_booking_that_the_provider_does_not_know_cannot_be_given_back(
    outside: Providers,
) -> None:
    with pytest.raises(
        ProviderError, match=r"airline: 404 for cancel book_1: .*there is no booking"
    ):
        await cancel(CAUSES[0], BOOKED, context("undo"), outside)


@pytest.mark.parametrize("said", ['{"status": "out of order"}', '[{"offer": "ONE"}]', "<html>"])
async def test_an_odd_answer_is_an_error_and_no_refusal(
    outside: Providers, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=said)

    app = web.Application()
    app.add_routes([web.get("/offers", answer)])
    async with TestServer(app) as ferry:
        monkeypatch.setenv("PROVIDERS_URLS", f'{{"ferry": "{ferry.make_url("/")}"}}')
        async with open_providers() as opened:
            with pytest.raises(ProviderError, match="ferry: 200 for its offers: "):
                await quote(trip(("ferry", "ONE")), opened)


async def test_a_provider_that_is_down_is_an_error_until_it_is_back(
    outside: Providers, ledger: Ledger, tmp_path: Path
) -> None:
    announced = tmp_path / "airline.url"
    url = announced.read_text()
    announced.write_text("http://127.0.0.1:1\n")
    with pytest.raises(aiohttp.ClientConnectionError):
        await quote(trip(FLIGHT), outside)
    announced.unlink()
    with pytest.raises(
        ProviderError, match=r"airline\.url is missing; run 'python -m sandboxes\.a"
    ):
        await booked(outside, "ROME-1", "key")
    announced.write_text(url)
    await booked(outside, "ROME-1", "key")
    assert len(ledger.rows()) == 1


async def test_a_fixed_url_comes_before_the_announced_one(
    outside: Providers, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = (tmp_path / "airline.url").read_text().strip()
    (tmp_path / "airline.url").write_text("http://127.0.0.1:1\n")
    monkeypatch.setenv("PROVIDERS_URLS", f'{{"airline": "{url}/"}}')
    async with open_providers() as fixed:
        await booked(fixed, "ROME-1", "key")
    assert len(ledger.rows()) == 1


async def test_one_setting_makes_a_further_provider_known(
    outside: Providers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVIDERS_NAMES", "airline, ferry,")
    assert Settings().names == ("airline", "ferry")
    (tmp_path / "airline.url").rename(tmp_path / "ferry.url")
    async with open_providers() as opened:
        assert await quote(trip(("ferry", "ROME-1")), opened) == TripQuoted(
            trip_id="t-1", prices=(18_900,)
        )
        assert await quote(trip(ROOM), opened) == TripNotOffered(
            trip_id="t-1", reason="leg 1: there is no provider 'hotel'; there are airline, ferry"
        )
