"""The rehearsal: the same everywhere, hostile enough, and able to find what is wrong."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import rehearsed
import sqlalchemy as sa
from test_docs import ROOT, copy, files_in

from choreo import CannotRunError, DefinitionError, failpoint
from choreo.audit import messages
from choreo.rehearse import Outside, Story, World, database, invariant, stand_in, start
from choreo.rehearse.campaign import Campaign, Failure, given
from choreo.rehearse.quick import Filled, QuickConnection
from choreo.rehearse.stage import Stage
from choreo.rehearse.testing import Rehearse, rehearsal  # noqa: F401 - a fixture
from choreo.settings import load

#: What so many schedules must come through at least; it should only ever be raised.
RUNS, STATES, END_STATES = 170, 6000, 70


@pytest.fixture(scope="module")
def stage() -> Stage:
    """The stage of this project."""
    return rehearsed.stage_of_this_project()


def dinner(mistake: str = "", **more: Any) -> Stage:
    services = rehearsed.services(mistake)
    # What a process has in its modules is lost where these declare a service.
    vars(rehearsed)["waiter"] = services[0]
    return rehearsed.stage(services, **more)


def failure(stage: Stage, runs: int = 300) -> Failure | None:
    campaign = Campaign(stage)
    for _ in campaign.run(range(1, runs)):
        pass
    return campaign.failure


# The same everywhere.


def test_what_a_seed_decided_goes_the_same_way_when_it_is_given(stage: Stage) -> None:
    for seed in range(1, 9):
        outcome = stage.play(seed)
        again = stage.play(seed, outcome.decisions)
        assert again.decisions == outcome.decisions
        assert again.digest == outcome.digest


def test_decisions_survive_json(stage: Stage) -> None:
    outcome = stage.play(3)
    said = json.loads(json.dumps(Failure(outcome, outcome).as_json()))
    assert given(said["decisions"]) == list(outcome.decisions)


class UsualConnection(QuickConnection):
    """Everything goes SQLAlchemy's way, but for the disk that may fail."""

    exec_driver_sql = sa.Connection.exec_driver_sql

    def _own(self, statement: object, parameters: object) -> None:
        return None


def test_running_statements_at_the_drivers_speed_changes_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "QuickConnection", UsualConnection)
    monkeypatch.setattr(Filled, "is_empty", lambda *_: False)
    usual = Stage(stage.project, load())
    for seed in range(1, 16):
        assert usual.play(seed).digest == stage.play(seed).digest


# Hostile enough.


def test_schedules_come_through_many_states(stage: Stage) -> None:
    campaign = Campaign(stage)
    for _ in campaign.run(range(1, RUNS + 1)):
        pass
    assert campaign.failure is None
    found = campaign.summary
    assert found.schedules == RUNS
    assert found.rough * 2 >= RUNS
    assert len(found.states) >= STATES
    assert len(found.end_states) >= END_STATES
    assert all(found.faults[kind] for kind in ("crash", "duplicate", "hold", "late", "outage"))
    never = found.never(stage)
    assert never["ends"] == []
    assert set(never["failpoints"]) <= {"parked"}


def test_a_process_dies_at_every_boundary() -> None:
    stage, died = dinner(), Counter[str]()
    for seed in range(1, 700):
        outcome = stage.play(seed)
        died.update(one.about.partition(" at ")[2] for one in outcome.decisions
                    if one.kind == "crash")  # fmt: skip
        assert not outcome.wrong
    assert (
        failpoint.POINTS.keys() - failpoint.CONDUCTED - {"parked", "deadline", "undoing"}
        <= died.keys()
    )


def test_an_undo_is_not_reached_where_there_is_nothing_to_undo(stage: Stage) -> None:
    """Services to which nothing of the flow can come need not run."""
    reached = stage.reach(flow for flow in stage.project.flows if flow.name == "order")
    assert {"payments.capture", "payments.refund", "order_process.cancel_done"} <= reached
    assert not any(one.startswith(("providers.", "reservations.")) for one in reached)


# What it finds.


@pytest.mark.parametrize(
    ("mistake", "kind"),
    [
        ("not undone", "plates"),
        ("half undone", "bottles"),
        ("two ends", "end"),
        ("global", "dead letter"),
        ("clock", "replay"),
    ],
)
def test_a_mistake_is_found_and_made_small(mistake: str, kind: str) -> None:
    found = failure(dinner(mistake))
    assert found is not None
    assert kind in {one.kind for one in found.smallest.wrong}
    if kind != "replay":
        assert len(found.smallest.decisions) < 10
        assert len(found.smallest.decisions) <= len(found.outcome.decisions)


def test_the_smallest_schedule_goes_wrong_again() -> None:
    stage = dinner("not undone")
    found = failure(stage)
    assert found is not None
    again = stage.play(found.outcome.seed, found.smallest.decisions)
    assert again.wrong == found.smallest.wrong
    assert again.digest == found.smallest.digest


def test_a_well_made_choreography_is_green(rehearsal: Rehearse) -> None:  # noqa: F811
    found = rehearsal(
        rehearsed.module(), services=rehearsed.services(), flows=[rehearsed.dinner], runs=150
    )
    assert found.ends["dinner", "served"]
    assert found.ends["dinner", "sorry"]


def test_the_audit_knows_a_deadline_that_a_command_of_ones_own_has_armed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It took what such a deadline says for a phantom: no inbox and no journal has the command."""
    stage = dinner()
    late = [seed for seed in range(1, 60) if "waiter.give_up" in stage.play(seed).handlers]
    assert late
    monkeypatch.setattr(messages, "_armed_by_own", lambda *_: set())
    assert {one.kind for one in stage.play(late[0]).wrong} == {"phantom"}


def test_the_fixture_shows_what_went_wrong(rehearsal: Rehearse) -> None:  # noqa: F811
    wrong = rehearsed.services("half undone")
    with pytest.raises(pytest.fail.Exception) as told:
        rehearsal(rehearsed.module(), services=wrong, flows=[rehearsed.dinner])
    text = str(told.value)
    assert "bottles: 9 bottles are left" in text
    assert "waiter.sorry" in text
    assert "seed" in text


def test_an_invariant_that_fails_is_a_finding_and_not_a_traceback() -> None:
    @invariant
    def careless(world: Any) -> Iterator[str]:
        yield str(world.rows("nobody", rehearsed.shelf))

    found = failure(dinner(careless=careless))
    assert found is not None
    [wrong] = found.smallest.wrong
    assert "no service 'nobody': there is waiter, kitchen, cellar" in str(wrong)


def test_a_key_that_is_used_for_something_else_is_a_finding() -> None:
    @stand_in(rehearsed.Stove)
    class Fire(rehearsed.Fire):
        async def cook(self, *, key: str, dish: str) -> str:
            return await super().cook(key="always the same", dish=dish)

    stage = dinner(Fire=Fire)
    told = [str(one) for seed in range(1, 60) for one in stage.play(seed).wrong]
    assert any("the key always the same was used for" in one for one in told)


# What a project must give.


def test_a_story_must_yield() -> None:
    with pytest.raises(DefinitionError, match="it has no 'yield'"):

        @start("dinner")
        def silent(random: Random) -> Any:
            return rehearsed.Order(table="1", dish="soup")

    with pytest.raises(DefinitionError, match="names the flows"):
        start()


def test_an_invariant_must_yield() -> None:
    with pytest.raises(DefinitionError, match="an invariant yields what is wrong"):

        @invariant
        def silent(world: Any) -> list[str]:
            return []


def test_a_stand_in_must_have_what_services_call() -> None:
    with pytest.raises(DefinitionError, match="has no throw"):

        @stand_in(rehearsed.Stove)
        class Cold:
            async def cook(self, *, key: str, dish: str) -> str:
                return dish


def test_an_invariant_that_fails_says_where() -> None:
    @invariant
    def shares(world: World) -> Iterator[str]:
        yield f"{1 / 0} a head"

    [wrong] = dinner(shares=shares).play(1).wrong
    assert str(wrong).startswith("shares: it cannot be judged: ZeroDivisionError: division by zero")
    assert str(wrong).partition(" (")[2].startswith("tests/unit/test_rehearse.py:")


def test_only_conductors_come_to_their_failpoints() -> None:
    campaign = Campaign(dinner())
    list(campaign.run([1]))
    assert not failpoint.CONDUCTED & set(campaign.summary.never(campaign.stage)["failpoints"])


def test_a_story_must_name_a_flow() -> None:
    @start("diner")
    def eat(random: Random) -> Story:
        yield rehearsed.Order(table="1", dish="soup")

    with pytest.raises(CannotRunError, match="no flow 'diner': did you mean 'dinner'"):
        dinner(eat=eat)


def test_every_adapter_needs_a_stand_in() -> None:
    class Cold:
        def __init__(self, outside: Outside) -> None: ...

    with pytest.raises(CannotRunError, match=r"kitchen calls rehearsed\.Stove, and nothing"):
        dinner(Fire=Cold)


def test_unknown_flows_are_refused() -> None:
    with pytest.raises(CannotRunError, match="no flow 'supper'"):
        dinner().project.only(["supper"])


# The command.


def test_the_command_plays_and_sums_up() -> None:
    done = rehearsed.run("--runs", "30", "--flow", "order", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["failure"] is None
    assert said["summary"]["schedules"] == 30
    assert said["summary"]["ends"]["order: fulfilled"]
    shown = rehearsed.run("--runs", "3")
    assert shown.returncode == 0
    assert "3 schedules" in shown.stdout
    assert "never reached, handlers" in shown.stdout


def test_the_command_shows_a_failure_and_replays_it(tmp_path: Path) -> None:
    """A project of its own, whose module of rehearsals has an invariant that cannot hold."""
    (tmp_path / "wishes.py").write_text(
        "from rehearsals.outside import *\nfrom rehearsals.stories import *\n"
        "from rehearsals.stories import place\nfrom rehearsals import outside, stories\n"
        "from choreo.rehearse import invariant\n"
        "for one in (*vars(outside).values(), *vars(stories).values()):\n"
        "    if hasattr(one, '__choreo_story__') or hasattr(one, '__choreo_stands_for__'):\n"
        "        one.__module__ = __name__\n"
        "        globals()[one.__name__] = one\n"
        "@invariant\ndef nobody_pays(world):\n"
        "    if world.outside(Bank).charges.effects:\n        yield 'somebody paid'\n"
    )
    env: dict[str, Any] = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "CHOREO_REHEARSALS": "wishes"}
    done = rehearsed.run("--flow", "order", **env)
    assert done.returncode == 1, done.stderr
    assert "nobody_pays: somebody paid" in done.stdout
    assert "payments.captured" in done.stdout
    seed = done.stdout.split("again: choreo rehearse --seed ")[1].split()[0]
    again = rehearsed.run("--flow", "order", "--seed", seed, "--json", **env)
    assert again.returncode == 1
    file = tmp_path / "failure.json"
    file.write_text(again.stdout)
    replayed = rehearsed.run("--flow", "order", "--schedule", str(file), **env)
    assert replayed.returncode == 1
    assert "nobody_pays: somebody paid" in replayed.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--flow", "ordre"), "no flow 'ordre': did you mean 'order'?"),
        (("--schedule", "nowhere.json"), "nowhere.json is no schedule"),
    ],
)
def test_what_cannot_be_played_is_refused(arguments: tuple[str, ...], said: str) -> None:
    done = rehearsed.run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_the_page_can_be_followed(tmp_path: Path) -> None:
    copy(tmp_path, "contracts", "services", "rehearsals", "sandboxes")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for page in ("write-a-service", "rehearse"):
        for name, text in files_in(ROOT / f"docs/{page}.md").items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
    path = f"{tmp_path}:{ROOT}"
    done = rehearsed.run("--runs", "60", "--flow", "order", cwd=str(tmp_path), PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    service = tmp_path / "services/wrapping/__init__.py"
    service.write_text(
        service.read_text().replace("    paper.unwrap(db, gift.order_id, gift.sheets)\n", "")
    )
    done = rehearsed.run("--runs", "60", "--flow", "order", cwd=str(tmp_path), PYTHONPATH=path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "is cancelled, and still wrapped" in done.stdout
