"""A rehearsal of flows that take hours, days or weeks: time in which nothing happens is skipped."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from random import Random
from types import ModuleType

import pytest
import rehearsed

from choreo import Command, Connection, Context, Event, Flow, Retry, Service, failure
from choreo.rehearse import Outside, Story, faults, stand_in, start
from choreo.rehearse.loop import Loop
from choreo.rehearse.project import project
from choreo.rehearse.schedule import Decision
from choreo.rehearse.stage import Outcome, Stage
from choreo.settings import load


class MakeOffer(Command, topic="auction.make", subject="offer"):
    offer: str


class Made(Event, topic="auction.made", subject="offer"):
    offer: str


class Sold(Event, topic="auction.sold", subject="offer"):
    offer: str


class Expired(Event, topic="auction.expired", subject="offer"):
    offer: str


class Held(Event, topic="auction.held", subject="offer"):
    offer: str


class Freed(Event, topic="auction.freed", subject="offer"):
    offer: str


class Buyer:
    """Whoever may buy; it is asked outside."""

    async def ask(self, *, key: str) -> None:
        """Raises ConnectionError where it is not there."""


#: One story is told, and nothing goes wrong.
PLAINLY = [Decision("story", "sell", 1, 1)]
DAY = timedelta(days=1)
offer = Flow("offer", starts=MakeOffer, ends={"sold": Sold, "expired": Expired})


@start("offer")
def sell(random: Random) -> Story:
    yield MakeOffer(offer=f"offer-{random.getrandbits(32)}")


def auction(within: timedelta, *, is_sold: bool = False) -> Service:
    """An offer that is sold at once, or never, and expires."""
    service = Service("auction")

    @service.on(final="an offer is only made")
    def make(wanted: MakeOffer) -> Made:
        return Made(offer=wanted.offer)

    @service.deadline(Made, within=within, until=Sold | Expired)
    def expire(made: Made) -> Expired | None:
        return Expired(offer=made.offer)

    if is_sold:

        @service.on(final="what is sold is sold")
        def close(held: Held, db: Connection) -> Sold:
            return Sold(offer=held.offer)

    return service


def seats() -> Service:
    service = Service("seats")

    @service.on
    def hold(made: Made) -> Held:
        return Held(offer=made.offer)

    @hold.undo
    def free(cause: Expired, held: Held) -> Freed:
        return Freed(offer=held.offer)

    return service


def buyers(after: timedelta) -> Service:
    """A buyer who is asked again a while later."""
    service = Service("buyers")

    @service.adapter
    async def reach() -> AsyncGenerator[Buyer]:
        yield Buyer()

    @service.on(final="who buys pays")
    async def ask(made: Made, buyer: Buyer, context: Context) -> Sold:
        try:
            await buyer.ask(key=context.key)
        except ConnectionError as error:
            raise Retry(after=after) from error
        return Sold(offer=made.offer)

    return service


def stage(*services: Service, **declared: object) -> Stage:
    module = ModuleType(__name__)
    vars(module).update(sell=sell, **declared)
    return Stage(project(services, [offer], module), load())


def wrong(outcomes: Sequence[Outcome]) -> list[str]:
    return [str(one) for outcome in outcomes for one in outcome.wrong]


@pytest.mark.parametrize("within", [timedelta(minutes=20), DAY, 365 * DAY])
def test_a_deadline_may_be_far_away(within: timedelta) -> None:
    far = stage(auction(within), seats())
    found = [far.play(seed) for seed in range(1, 30)]
    assert wrong(found) == []
    assert all(one.lasted_s >= within.total_seconds() and one.ends for one in found)


def test_a_retry_may_be_far_away() -> None:
    @stand_in(Buyer)
    class Late:
        """It is there when it is asked for the third time."""

        def __init__(self, outside: Outside) -> None:
            self.asked = Counter[str]()

        async def ask(self, *, key: str) -> None:
            self.asked[key] += 1
            if self.asked[key] < 3:
                raise ConnectionError("nobody is there")

    found = [
        stage(auction(365 * DAY), buyers(timedelta(hours=5)), Late=Late).play(seed, PLAINLY)
        for seed in range(1, 4)
    ]
    assert wrong(found) == []
    assert all(36_000 < one.lasted_s < 37_000 for one in found)


def test_time_that_is_skipped_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services look every few seconds at what is due: a year would take them hours."""
    times, advance = list[float](), Loop.advance

    def counted(self: Loop, *at_least: float) -> bool:
        times.append(self.time())
        return advance(self, *at_least)

    monkeypatch.setattr(Loop, "advance", counted)
    assert stage(auction(365 * DAY), seats()).play(1, PLAINLY).ends
    assert len(times) < 50


def test_a_deadline_is_raced_however_far_away_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is ever late, it is only met when nobody hears anything until then."""
    monkeypatch.setitem(faults.ASIDES, "late", 0.1)

    def raced(within: timedelta) -> int:
        """In how many schedules it was met, and something went wrong after it."""
        far = stage(auction(within, is_sold=True), seats())
        found = [far.play(seed) for seed in range(1, 61)]
        late = (one.events for one in found if "auction.expire" in one.handlers)
        return sum(events[-1][0] > within.total_seconds() for events in late)

    soon = raced(timedelta(minutes=2))
    assert soon >= 10
    assert raced(timedelta(minutes=5)) >= soon / 2
    assert raced(30 * DAY) >= soon / 2


def test_what_is_far_away_is_the_same_again() -> None:
    far = stage(auction(DAY), seats())
    for seed in range(1, 10):
        outcome = far.play(seed)
        assert far.play(seed).digest == outcome.digest
        assert far.play(seed, outcome.decisions).digest == outcome.digest


def test_who_tries_again_for_ever_is_a_finding_however_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All states that it comes through were there before."""

    @stand_in(Buyer)
    class Nobody:
        def __init__(self, outside: Outside) -> None:
            pass

        async def ask(self, *, key: str) -> None:
            raise ConnectionError("nobody is there")

    monkeypatch.setattr(failure, "_is_hopeless", lambda *_: False)
    endless = stage(auction(365 * DAY), buyers(timedelta(minutes=30)), Nobody=Nobody)
    outcome = endless.play(1, PLAINLY)
    error = wrong([outcome])[0]
    assert error.startswith("error: it does not settle: ")
    assert error.endswith("buyers has a call of ask due (Retry: the handler asked to be run again)")


def test_who_opens_a_socket_is_told_that_there_is_no_network() -> None:
    service = Service("buyers")

    @service.adapter
    async def reach() -> AsyncGenerator[Buyer]:
        yield Buyer()

    @service.on(final="who buys pays")
    async def ask(made: Made, buyer: Buyer) -> Sold:
        await asyncio.open_connection("example.org", 80)
        return Sold(offer=made.offer)

    @stand_in(Buyer)
    class Anybody:
        def __init__(self, outside: Outside) -> None:
            pass

        async def ask(self, *, key: str) -> None:
            pass

    outcome = stage(auction(DAY), service, Anybody=Anybody).play(1, PLAINLY)
    assert any(
        "a rehearsal has no network: call it through an adapter, and declare a @stand_in" in one
        for one in wrong([outcome])
    )


def test_what_faults_made_a_letter_is_sent_back_before_a_year_is_skipped() -> None:
    """A conductor waits for a year, and what it waits for is a dead letter."""
    assert rehearsed.stage_of_this_project().play(929).wrong == ()
