"""Tests the replay of traces: what the check says may happen, and the services do or do not."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
import rehearsed
from rich.console import Console
from typer.testing import CliRunner

from choreo import CannotRunError, Context, Event, Service
from choreo.check import Choreography, Happening, check
from choreo.cli import app
from choreo.rehearse import Outside, Story, stand_in, start
from choreo.rehearse.project import project
from choreo.rehearse.trace import Replay, Trace, Tracing, read, shown
from choreo.settings import load

ORDER, ORDERED, COOK = "kitchen.order.v1", "kitchen.ordered.v1", "kitchen.cook.v1"
COOKED, BURNT = "kitchen.cooked.v1", "kitchen.burnt.v1"
SERVED, SORRY = "waiter.served.v1", "waiter.sorry.v1"
BEGUN = (
    Happening("start", ORDER, 0),
    Happening("deliver", ORDER, 0, "waiter.take", "step", (ORDERED, COOK)),
)
COOKED_WELL = Happening("deliver", COOK, 0, "kitchen.cook", "step", (COOKED,))
TOO_LATE = Happening("deadline", COOK, 0, "waiter.give_up", "deadline", (SORRY,))
SEEDS = range(1, 21)


class Tasted(Event, topic="kitchen.tasted", subject="table"):
    table: str


class Nagged(Event, topic="nag.nagged", subject="table"):
    table: str


def tracing(mistake: str = "", *services: Service, **more: Any) -> Tracing:
    every = [*rehearsed.services(mistake), *services]
    return Tracing(project(every, [rehearsed.dinner], rehearsed.module(**more)), load())


def trace(*steps: Happening, rule: str = "two-ends") -> Trace:
    return Trace(rule, "dinner", "it is so", (*BEGUN, *steps))


def served(*said: str) -> Happening:
    return Happening("deliver", COOKED, 0, "waiter.serve", "step", said)


def found(mistake: str, rule: str) -> Trace:
    """What the check finds."""
    services = rehearsed.services(mistake)
    kinds = [one for service in services for one in service.routes()]
    report = check(Choreography(services, [rehearsed.dinner], kinds))
    [finding] = [one for one in report.findings if one.rule == rule]
    [one] = read(json.loads(json.dumps(asdict(finding))))
    return one


def _shown(replay: Replay) -> str:
    text = io.StringIO()
    shown(Console(file=text, width=200), replay)
    return text.getvalue()


def test_what_really_happens_is_shown_with_what_it_leads_to() -> None:
    replay = tracing("two ends").replay(trace(COOKED_WELL, TOO_LATE, served(SERVED)), SEEDS)
    assert replay.happens
    assert replay.came == 5
    assert {one.kind for one in replay.wrong} >= {"end"}
    [tree] = replay.trees
    assert {one.envelope.type for one in tree.walk()} >= {COOKED, SERVED, SORRY}


def test_where_the_code_goes_another_way_that_is_said() -> None:
    replay = tracing().replay(trace(COOKED_WELL, TOO_LATE, served(SERVED)), SEEDS)
    assert not replay.happens
    assert replay.came == 4
    assert replay.stories == len(SEEDS)
    assert list(replay.instead) == ["waiter.serve answered nothing, not waiter.served"]
    assert f"at step 5: {sum(replay.instead.values())} of 20 stories" in _shown(replay)


def test_stories_are_told_until_one_goes_as_the_trace_says() -> None:
    """Only a soufflé burns."""
    steps = (
        Happening("deliver", COOK, 0, "kitchen.cook", "step", (BURNT,)),
        Happening("deliver", BURNT, 0, "waiter.excuse", "step", (SORRY,)),
    )
    replay = tracing().replay(trace(*steps), SEEDS)
    assert replay.happens
    assert not replay.wrong
    again = tracing().replay(trace(*steps), [replay.seed])
    assert again.happens
    assert [tree.as_json() for tree in again.trees] == [tree.as_json() for tree in replay.trees]


def test_a_call_is_never_answered() -> None:
    lost = found("no deadline", "no-deadline")
    replay = tracing("no deadline").replay(lost, SEEDS)
    assert replay.happens
    assert {one.kind for one in replay.wrong} >= {"end", "dead letter"}


def test_a_call_that_is_never_answered_hangs_or_fails_as_its_adapter_does() -> None:
    class GasError(Exception):
        pass

    @stand_in(rehearsed.Stove, fails=(GasError, rehearsed.BurntError))
    class Fire(rehearsed.Fire):
        """The kitchen takes one of its errors for an answer."""

    stage = tracing("no deadline", Fire=Fire)
    lost = found("no deadline", "no-deadline")
    replays = [stage.replay(lost, [seed]) for seed in SEEDS]
    given_up = " ".join(one.what for replay in replays for one in replay.wrong)
    assert "last with GasError: Stove does not answer (rehearsed)" in given_up
    assert "last with CallTimeoutError: no answer within 10 s" in given_up
    instead = {why for replay in replays for why in replay.instead}
    assert instead == {"kitchen.cook answered kitchen.burnt, not nothing"}
    assert stage.replay(lost, SEEDS).happens


def test_services_have_their_memory_back_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    services = rehearsed.services("global")
    monkeypatch.setitem(vars(rehearsed), "waiter", services[0])
    stage = Tracing(project(services, [rehearsed.dinner], rehearsed.module()), load())
    burnt = Happening("deliver", COOK, 0, "kitchen.cook", "step", (BURNT,))
    assert stage.replay(trace(burnt), SEEDS).happens
    assert not rehearsed.remembered


def test_a_flow_that_ends_all_the_same_does_not_wait_for_ever() -> None:
    replay = tracing().replay(found("no deadline", "no-deadline"), SEEDS)
    assert not replay.happens
    assert list(replay.instead) == ["the flow came to its end all the same: sorry"]


def test_one_call_of_a_delivery_is_lost_and_another_answered() -> None:
    """Both are made at once, also where the trace has the answer first."""
    services = rehearsed.services("no deadline")
    [kitchen] = [one for one in services if one.name == "kitchen"]

    @kitchen.on(final="what is eaten is eaten")
    async def taste(wanted: rehearsed.Cook, context: Context, stove: rehearsed.Stove) -> Tasted:
        await stove.cook(key=f"{context.key}.taste", dish="soup")
        return Tasted(table=wanted.table)

    stage = Tracing(project(services, [rehearsed.dinner], rehearsed.module()), load())
    lost = Happening("lost", COOK, 0, "kitchen.cook", "step")
    tasted = Happening("deliver", COOK, 0, "kitchen.taste", "step", ("kitchen.tasted.v1",))
    replay = stage.replay(trace(tasted, lost, rule="no-deadline"), SEEDS)
    assert replay.happens
    assert "end" in {one.kind for one in replay.wrong}
    assert stage.replay(trace(COOKED_WELL, replace(lost, to="kitchen.taste")), SEEDS).happens


def test_what_gives_up_says_why() -> None:
    @stand_in(rehearsed.Stove)
    class Fire(rehearsed.Fire):
        async def cook(self, *, key: str, dish: str) -> str:
            raise ValueError("there is no gas")

    for said in (COOKED_WELL, replace(COOKED_WELL, outcome=())):
        [why] = tracing(Fire=Fire).replay(trace(said), range(1, 3)).instead
        assert why.startswith("kitchen.cook answered nothing (failed 4 times")
        wanted = "kitchen.cooked" if said.outcome else "nothing"
        assert why.endswith(f"there is no gas), not {wanted}")


def test_what_is_cancelled_before_it_begins_has_not_answered() -> None:
    """The excuse overtakes the order: nothing is uncorked, and so nothing is corked."""
    sorry = Happening("deliver", SORRY, 0, "cellar.cork", "undo", (), "nothing to undo")
    note = "cancelled before it began"
    never = Happening("deliver", ORDERED, 0, "cellar.uncork", "step", (), note)
    assert tracing().replay(trace(TOO_LATE, sorry, never), SEEDS).happens
    [why] = tracing().replay(trace(TOO_LATE, sorry, replace(never, note="")), SEEDS).instead
    assert why == f"cellar.uncork answered nothing ({note}), not nothing"


def test_one_delivery_is_for_every_handler_of_a_service() -> None:
    """The kitchen's word ends the deadline as well, which the trace has as another step."""
    until = Happening("deliver", COOKED, 0, "waiter.give_up", "until")
    replay = tracing().replay(trace(COOKED_WELL, served(SERVED), until), SEEDS)
    assert replay.happens
    replay = tracing().replay(trace(COOKED_WELL, until, served(SORRY)), SEEDS)
    [why] = replay.instead
    assert "no replay can follow it at step 5" in _shown(replay)
    assert why == (
        "waiter.serve answered waiter.served, not waiter.sorry; "
        "it got the message with other handlers of its service, which the trace has apart"
    )
    replay = tracing().replay(trace(COOKED_WELL, served(SERVED), TOO_LATE), SEEDS)
    assert list(replay.instead) == ["no deadline of waiter.give_up is armed"]


def test_deadlines_are_up_in_their_order() -> None:
    nag = Service("nag")

    @nag.deadline(
        rehearsed.Ordered, within=timedelta(seconds=30), until=rehearsed.Served | rehearsed.Sorry
    )
    def nags(ordered: rehearsed.Ordered) -> Nagged:
        return Nagged(table=ordered.table)

    heard = Happening("deliver", ORDERED, 0, "nag.nags", "arm")
    replay = tracing("", nag).replay(trace(heard, COOKED_WELL, TOO_LATE), SEEDS)
    assert list(replay.instead) == ["the time of nag.nags is up before that"]
    up = Happening("deadline", ORDERED, 0, "nag.nags", "deadline", ("nag.nagged.v1",))
    assert tracing("", nag).replay(trace(heard, COOKED_WELL, up, TOO_LATE), SEEDS).happens
    assert tracing("", nag).replay(trace(heard, COOKED_WELL, TOO_LATE, up), SEEDS).happens


def test_what_is_far_away_is_not_waited_for() -> None:
    late = Service("late")

    @late.deadline(
        rehearsed.Ordered, within=timedelta(days=9), until=rehearsed.Served | rehearsed.Sorry
    )
    def nags(ordered: rehearsed.Ordered) -> Nagged:
        return Nagged(table=ordered.table)

    heard = Happening("deliver", ORDERED, 0, "late.nags", "arm")
    up = Happening("deadline", ORDERED, 0, "late.nags", "deadline", ("nag.nagged.v1",))
    replay = tracing("", late).replay(trace(heard, up), [1, 2])
    assert _shown(replay).splitlines()[1] == (
        "  no replay can follow it: at step 4 the time of late.nags is up in 9 days; "
        "no replay lasts so long (in all of 2 stories tried)"
    )


def test_other_flows_of_the_story_go_on_plainly() -> None:
    @start("dinner")
    def both(random: Random) -> Story:
        yield tuple(rehearsed.Order(table=one, dish="soup") for one in ("first", "second"))

    stage = tracing("two ends", eat=both)
    replay = stage.replay(trace(COOKED_WELL, TOO_LATE, served(SERVED)), [1])
    assert replay.happens
    ends = sorted(len({SERVED, SORRY} & {one.envelope.type for one in tree.walk()})
                  for tree in replay.trees)  # fmt: skip
    assert ends == [1, 2]


def test_a_stand_in_decides_by_the_seed() -> None:
    @stand_in(rehearsed.Stove)
    class Fire(rehearsed.Fire):
        def __init__(self, outside: Outside) -> None:
            super().__init__(outside)

        async def cook(self, *, key: str, dish: str) -> str:
            if self.outside.perhaps("burnt", 0.2):
                raise rehearsed.BurntError
            return await super().cook(key=key, dish="soup")

    burnt = Happening("deliver", COOK, 0, "kitchen.cook", "step", (BURNT,))
    assert tracing(Fire=Fire).replay(trace(burnt), range(1, 100)).happens
    assert tracing(Fire=Fire).replay(trace(COOKED_WELL), range(1, 100)).happens


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ((Happening("start", COOK, 0),), "starts with kitchen.cook.v1, and dinner with kitchen.or"),
        ((*BEGUN, Happening("deliver", COOK, 0, "cook.cook")), "names cook.cook, and there is no"),
    ],
)
def test_a_trace_of_other_services_is_refused(steps: tuple[Happening, ...], why: str) -> None:
    with pytest.raises(CannotRunError, match=why):
        tracing().replay(Trace("pivot", "dinner", "", steps), SEEDS)


def test_without_a_story_there_is_no_replay() -> None:
    with pytest.raises(CannotRunError, match="no flow 'supper'"):
        tracing().replay(Trace("pivot", "supper", "", BEGUN), SEEDS)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "found.json"


def _run(*args: str, given: str | None = None) -> Any:
    return CliRunner().invoke(app, ["rehearse", *args], input=given)


def _refusals() -> Iterator[tuple[str, str]]:
    yield "nothing", "is no trace"
    yield "[]", "is no trace"
    yield '{"failure": null}', "is no trace"
    yield '{"findings": []}', r"nothing to replay \(nothing was found\)"
    unheard: dict[str, Any] = {"rule": "unheard", "flow": None, "what": "", "trace": []}
    yield json.dumps({"findings": [unheard]}), "the signatures alone show what is wrong"
    odd = {"do": "dance", "type": ORDER, "about": 0}
    yield json.dumps({**unheard, "trace": [odd]}), "no step of a trace is called 'dance'"


@pytest.mark.parametrize(("text", "why"), list(_refusals()))
def test_what_is_no_trace_is_refused(text: str, why: str, file: Path) -> None:
    file.write_text(text)
    result = _run("--trace", str(file))
    assert isinstance(result.exception, CannotRunError)
    with pytest.raises(CannotRunError, match=why):
        raise result.exception


def test_a_trace_says_what_a_schedule_would() -> None:
    result = _run("--trace", "-", "--minutes", "1", given="{}")
    assert str(result.exception) == "--trace goes with --seed, --runs and --flow alone"


def test_one_that_cannot_happen() -> None:
    """An order that has ended is not fulfilled: its service looks."""
    steps: list[dict[str, Any]] = [
        {"do": "start", "type": "orders.place.v1"},
        {"to": "orders.place", "type": "orders.place.v1", "outcome": ["orders.placed.v1"]},
        {"to": "inventory.reserve", "type": "orders.placed.v1",
         "outcome": ["inventory.stock_reserved.v1"]},
        {"to": "payments.capture", "type": "inventory.stock_reserved.v1",
         "outcome": ["payments.captured.v1"]},
        {"to": "shipping.book", "type": "payments.captured.v1", "outcome": ["shipping.booked.v1"]},
        {"do": "deadline", "to": "orders.expire", "type": "orders.placed.v1",
         "outcome": ["orders.cancelled.v1"]},
        {"to": "orders.fulfil", "type": "shipping.booked.v1", "outcome": ["orders.fulfilled.v1"]},
    ]  # fmt: skip
    usual = {"do": "deliver", "about": 0, "role": "step"}
    finding = {"rule": "two-ends", "flow": "order", "what": "it ends twice",
               "trace": [{**usual, **one} for one in steps]}  # fmt: skip
    result = _run("--trace", "-", "--runs", "60", given=json.dumps(finding))
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("not confirmed  two-ends  order: it ends twice")
    assert "the code goes another way at step 7" in result.stdout
    assert "orders.fulfil answered nothing, not orders.fulfilled" in result.stdout


def test_one_that_happens() -> None:
    steps = [
        {"do": "start", "type": "orders.place.v1", "about": 0},
        {"do": "deliver", "type": "orders.place.v1", "about": 0, "to": "orders.place",
         "role": "step", "outcome": ["orders.rejected.v1"]},
    ]  # fmt: skip
    finding = {"rule": "no-end", "flow": "order", "what": "it ends", "trace": steps}
    result = _run("--trace", "-", given=json.dumps({**finding, "rule": "pivot"}))
    assert result.exit_code == 1, result.output
    assert result.stdout.startswith("replayed: it really happens  pivot  order: it ends")
    assert "orders.rejected" in result.stdout
    assert "calls wrong what it leads to" in result.stdout
    result = _run("--trace", "-", "--runs", "50", given=json.dumps(finding))
    assert result.exit_code == 0, result.output
    assert "in the end" in result.stdout
