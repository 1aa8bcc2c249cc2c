"""Tests that no run is left out, that one is told as it is, and how many there may be."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from types import new_class
from typing import Any

import pytest
from broken.words import Done, Expired, Failed, Go, Told, Work, put_together, unsaid
from test_check_play import Booked, DoneAll, FailedAll, GoAll, NotBooked, called

from choreo import Event, Service
from choreo.check import Choreography, Rule, check
from choreo.check import explore as exploring
from choreo.check.explore import explore
from choreo.check.model import Model

_WITHIN = timedelta(minutes=1)


def test_a_deadline_that_is_armed_twice_is_up_twice() -> None:
    shop, helper = Service("shop"), Service("helper")

    @shop.on(final="it is only begun")
    def take(go: Go) -> tuple[Work, Work]:
        unsaid()

    @helper.on(final="it says nothing")
    def work(asked: Work) -> None:
        unsaid()

    @shop.deadline(Work, within=_WITHIN, until=Done)
    def expire(asked: Work) -> Expired:
        unsaid()

    ends: dict[str, type[Event]] = {"expired": Expired}
    [found, *_] = [
        one
        for one in check(put_together(called(), shop, helper, ends=ends)).findings
        if one.flow is not None
    ]
    assert found.rule is Rule.TWO_ENDS
    assert [one.to for one in found.trace[-2:]] == ["shop.expire", "shop.expire"]


def test_of_several_the_one_may_be_this_and_the_other_that() -> None:
    """One is booked and ends it, the other is not and ends it, too; two of a kind do so once."""
    shop, helper = Service("shop"), Service("helper")

    @helper.on(final="it is only asked")
    def ask(go: Go) -> tuple[Booked | NotBooked, ...]:
        unsaid()

    @shop.on(final="a flow ends once")
    def end(booked: Booked) -> DoneAll | None:
        unsaid()

    @helper.on(final="a flow ends once")
    def fail(refused: NotBooked) -> FailedAll | None:
        unsaid()

    ends = {"done": DoneAll, "failed": FailedAll}
    found = check(put_together(called(), shop, helper, ends=ends)).findings
    [two] = [one for one in found if one.rule is Rule.TWO_DECIDERS]
    said = [kind for one in two.trace for kind in one.outcome]
    assert said[:2] == ["played.booked.v1", "played.not_booked.v1"]
    assert [one.about for one in two.trace[-2:]] in ([1, 2], [2, 1])


def test_a_run_without_an_end_is_told_to_where_it_rests() -> None:
    """Nobody acts on what is said last, so that it is a branch; it is told all the same."""
    shop = Service("shop")

    @shop.on(final="it is only begun")
    def take(go: Go) -> Told:
        unsaid()

    @shop.on(final="it is never asked for")
    def end(asked: Work) -> Done:
        unsaid()

    found = check(put_together(called(), shop, ends={"done": Done})).findings
    [no_end] = [one for one in found if one.rule is Rule.NO_END]
    assert [(one.do, one.to) for one in no_end.trace] == [("start", ""), ("deliver", "shop.take")]


@pytest.mark.parametrize(("starts", "about"), [(Go, 0), (GoAll, -1)])
def test_what_starts_a_run_is_about_what_it_says(starts: Any, about: int) -> None:
    shop = Service("shop")

    def take(go: Any) -> Any:
        unsaid()

    take.__annotations__ = {"go": starts, "return": DoneAll | Told}
    shop.on(final="it is only begun")(take)
    choreography = put_together(called(), shop, starts=starts, ends={"done": DoneAll})
    [found] = check(choreography).findings
    assert {one.about for one in found.trace} == {about}


def _event(name: str) -> Any:
    fields = {"__annotations__": {"job": str}, "__module__": __name__}
    topic = f"chained.{name.lower()}"
    return new_class(
        name, (Event,), {"topic": topic, "subject": "job"}, lambda of: of.update(fields)
    )


_LINKS = [_event(f"Link{number}") for number in range(21)]
_BROKEN = [_event(f"Broken{number}") for number in range(20)]


def _chain(length: int) -> Choreography:
    """Services that act one after the other; each may refuse, and is undone if one does."""
    shop, others = Service("shop"), list[Service]()
    links, broken = _LINKS[: length + 1], _BROKEN[:length]

    def take(go: Go) -> Any:
        unsaid()

    take.__annotations__["return"] = links[0]
    shop.on(final="it is only begun")(take)
    for number, (link, after) in enumerate(pairwise(links)):
        others.append(Service(f"link{number}"))

        async def act(link: Any) -> Any:
            unsaid()

        def undo(cause: Failed, done: Any) -> None:
            unsaid()

        act.__annotations__ |= {"link": link, "return": after | broken[number]}
        undo.__annotations__["done"] = after
        others[-1].on(act).undo(undo)

    def end(link: Any) -> Done | None:
        unsaid()

    def fail(refused: Any) -> Failed | None:
        unsaid()

    def expire(link: Any) -> Failed | None:
        unsaid()

    for fn, kinds in ((end, links[-1:]), (fail, broken), (expire, links[:1])):
        [hears, _] = fn.__annotations__
        fn.__annotations__[hears] = kinds[0]
        for kind in kinds[1:]:
            fn.__annotations__[hears] |= kind
    shop.on(final="a flow ends once")(end)
    shop.on(final="a flow ends once")(fail)
    shop.deadline(links[0], within=_WITHIN, until=Done | Failed)(expire)
    ends = {"done": Done, "failed": Failed}
    return put_together(called(), shop, *others, ends=ends, fails=["failed"])


def test_a_chain_of_twenty_services_is_soon_followed() -> None:
    """Whatever is undone further on does not meet what is done here: not each set of undos."""
    report = check(_chain(20))
    assert not report.findings
    [seen] = report.explored
    assert seen.is_whole
    assert seen.states < 5000


def test_how_many_states_are_followed_is_said_of_the_whole_flow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is followed once for each call that may be lost: none of that alone is too much."""
    choreography = _chain(5)
    [flow] = choreography.flows
    each = explore(Model(choreography, flow)).states
    [whole] = check(choreography).explored
    assert whole.states >= 2 * each
    monkeypatch.setattr(exploring, "MOST", whole.states - 1)
    monkeypatch.setattr(exploring, "_TELL_EVERY", 10)
    told = list[int]()
    [seen] = check(choreography, tell=lambda _, states: told.append(states)).explored
    assert not seen.is_whole
    assert seen.states == whole.states
    assert told[-1] > each
    assert told == sorted(told)
