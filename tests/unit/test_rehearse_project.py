"""What a project gives a rehearsal is taken as it is, and left as it was."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import rehearsed
import sqlalchemy as sa
from rich.console import Console
from test_docs import ROOT

from choreo import CannotRunError, DefinitionError, Flow, Service
from choreo.rehearse import World, invariant, show
from choreo.rehearse.campaign import Campaign, Failure
from choreo.rehearse.database import MemoryDatabase
from choreo.rehearse.instance import VirtualClock
from choreo.rehearse.judge import Wrong
from choreo.rehearse.memory import ProcessMemory
from choreo.rehearse.project import modules_of, project
from choreo.rehearse.stage import Stage
from choreo.settings import load

#: A project's module of rehearsals: what the examples have, and what stands after it.
EXAMPLES = """
from rehearsals.outside import *
from rehearsals import outside, stories
from choreo.rehearse import invariant
for one in (*vars(outside).values(), *vars(stories).values()):
    if hasattr(one, '__choreo_story__') or hasattr(one, '__choreo_stands_for__'):
        one.__module__ = __name__
        globals()[one.__name__] = one
"""


def a_module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    for member, one in members.items():
        one.__module__ = name
        setattr(made, member, one)
    return made


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `given` that can be imported; forgotten after the test."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "given").mkdir()
    (tmp_path / "given/__init__.py").touch()
    yield tmp_path / "given"
    for name in [name for name in sys.modules if f"{name}.".startswith("given.")]:
        del sys.modules[name]


def test_two_invariants_of_one_name_are_refused() -> None:
    """The second was left out, and nobody was told."""

    @invariant
    def first(world: World) -> Iterator[str]:
        yield from ()

    @invariant
    def second(world: World) -> Iterator[str]:
        yield "wrong"

    own = rehearsed.module()
    modules = [own, a_module("one", stock=first), a_module("two", stock=second)]
    with pytest.raises(DefinitionError, match=r"one\..*first and two\..*second have one name"):
        project(rehearsed.services(), [rehearsed.dinner], *modules)
    assert project(rehearsed.services(), [rehearsed.dinner], own, own).invariants


def test_what_is_not_declared_may_have_the_same_name() -> None:
    modules = [a_module(name, helper=type("helper", (), {})) for name in ("one", "two")]
    project(rehearsed.services(), [rehearsed.dinner], rehearsed.module(), *modules)


def test_a_package_in_the_package_is_looked_through(package: Path) -> None:
    (package / "deep").mkdir()
    (package / "deep/__init__.py").touch()
    (package / "deep/inv.py").write_text("here = True\n")
    assert [one.__name__ for one in modules_of("given")] == [
        "given",
        "given.deep",
        "given.deep.inv",
    ]


def test_a_module_that_raises_is_named(package: Path) -> None:
    (package / "inv.py").write_text("1 / 0\n")
    with pytest.raises(CannotRunError, match=r"given\.inv cannot be imported: ZeroDivisionError"):
        modules_of("given")


def test_choreo_adds_nothing_to_every_run_of_pytest() -> None:
    """It brought 552 modules into each, whoever ran it."""
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "entry-points" not in said["project"]


# What a process keeps in its modules.


def test_a_process_loses_what_is_anywhere_in_its_package(package: Path) -> None:
    (package / "__init__.py").write_text("from given.app import service\n")
    (package / "app.py").write_text(
        "from choreo import Command, Event, Service\nfrom given import books\n"
        "service = Service('given')\n"
        "class Ask(Command, topic='given.ask', subject='it'):\n    it: str\n"
        "class Answered(Event, topic='given.answered', subject='it'):\n    it: str\n"
        "@service.on\ndef answer(ask: Ask) -> Answered:\n    return Answered(it=ask.it)\n"
    )
    (package / "books.py").write_text("kept = {}\n")
    [given, app, books] = modules_of("given")
    memory = ProcessMemory(given.service)
    kept = books.kept
    kept["a"] = 1
    memory.lose()
    assert books.kept is kept
    assert kept == {}
    assert app.service is given.service


def test_a_lazy_expression_in_a_module_is_no_mistake(package: Path) -> None:
    """What it has now was compared with what it had: an expression has no truth."""
    memory, variables = ProcessMemory(Service("any")), {"kept": {"a": sa.func.now()}, "one": [1]}
    memory._saved = [(variables, "kept", {"a": None}), (variables, "one", [])]
    memory.lose()
    assert variables == {"kept": {"a": None}, "one": []}


def test_who_declares_no_service_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    services = rehearsed.services()
    monkeypatch.setitem(rehearsed.remembered, "mine", "untouched")
    memory = ProcessMemory(services[0])
    rehearsed.remembered["mine"] = "changed"
    memory.lose()
    assert rehearsed.remembered["mine"] == "changed"
    monkeypatch.setattr(rehearsed, "waiter", services[0], raising=False)
    memory = ProcessMemory(services[0])
    rehearsed.remembered["mine"] = "changed again"
    memory.lose()
    assert rehearsed.remembered["mine"] == "changed"


def test_a_deque_keeps_what_it_is() -> None:
    memory, kept = ProcessMemory(Service("any")), deque([1, 2], maxlen=3)
    memory._saved = [({"kept": kept}, "kept", deque([7], maxlen=3))]
    memory.lose()
    assert list(kept) == [7]


def test_numbers_that_are_given_out_begin_anew() -> None:
    tables = sa.MetaData()
    drawn = sa.Table("drawn", tables, sa.Column("id", sa.Integer, primary_key=True),
                     sqlite_autoincrement=True)  # fmt: skip
    database = MemoryDatabase(Service("any", tables=tables), VirtualClock())

    def draw(db: sa.Connection, now: float) -> int:
        number: int = db.execute(sa.insert(drawn).returning(drawn.c.id), {}).scalar_one()
        return number

    assert database.transact(draw) == 1
    database.empty()
    assert database.transact(draw) == 1


# The campaign.


def test_a_flow_that_no_story_starts_is_named() -> None:
    lonely = Flow("lonely", starts=rehearsed.Cook, ends={"cooked": rehearsed.Cooked})
    flows = [rehearsed.dinner, lonely]
    found = project(rehearsed.services(), flows, rehearsed.module())
    stage = Stage(found, load())
    assert Campaign(stage).summary.as_json(stage)["no_story_starts"] == ["lonely"]
    assert not found.only(["dinner"]).untold


def test_the_first_schedule_is_played_twice() -> None:
    stage = Stage(
        project(rehearsed.services("clock"), [rehearsed.dinner], rehearsed.module()), load()
    )
    campaign = Campaign(stage)
    list(campaign.run([7]))
    assert campaign.failure is not None
    assert {one.kind for one in campaign.failure.smallest.wrong} == {"replay"}


def test_a_failure_is_there_before_it_is_made_smaller() -> None:
    stage = Stage(
        project(rehearsed.services("not undone"), [rehearsed.dinner], rehearsed.module()), load()
    )
    campaign = Campaign(stage)
    for outcome in campaign.run(range(1, 300), lambda: True):
        assert (campaign.failure is not None) == bool(outcome.wrong)
    assert campaign.failure is not None
    assert campaign.failure.smallest is campaign.failure.outcome


def test_what_was_made_smaller_is_not_lost_when_it_is_interrupted() -> None:
    stage = Stage(
        project(rehearsed.services("not undone"), [rehearsed.dinner], rehearsed.module()), load()
    )
    campaign, asked = Campaign(stage), 0

    def interrupt() -> bool:
        nonlocal asked
        asked += 1
        if asked == 6:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        list(campaign.run(range(1, 300), interrupt))
    found = campaign.failure
    assert found is not None
    assert len(found.smallest.decisions) < len(found.outcome.decisions)


def test_what_making_it_smaller_has_lost_is_named() -> None:
    """Two faults may meet in one schedule, and the rarer one needs more to happen."""
    stage = Stage(
        project(rehearsed.services("not undone"), [rehearsed.dinner], rehearsed.module()), load()
    )
    smallest = next(one for seed in range(1, 300) if (one := stage.play(seed)).wrong)
    outcome = replace(smallest, wrong=(*smallest.wrong, Wrong("money", "it is gone")))
    text = io.StringIO()
    show.failure(Console(file=text, width=160), Failure(outcome, smallest), "again")
    assert "before it was made smaller also: money\n" in text.getvalue()
    assert Failure(outcome, smallest).as_json()["besides"] == ["money"]
    assert Failure(smallest, smallest).besides == []


# The command.


def wishes(folder: Path, text: str) -> dict[str, str]:
    (folder / "wishes.py").write_text(EXAMPLES + text)
    return {"PYTHONPATH": f"{folder}:{ROOT}", "CHOREO_REHEARSALS": "wishes"}


def test_what_the_projects_code_prints_does_not_break_json(tmp_path: Path) -> None:
    env = wishes(tmp_path, "@invariant\ndef loud(world):\n    print('here')\n    yield from ()\n")
    done = rehearsed.run("--runs", "2", "--flow", "order", "--json", **env)
    assert json.loads(done.stdout)["summary"]["schedules"] == 2
    assert "here" in done.stderr


def test_seed_zero_is_a_seed(tmp_path: Path) -> None:
    env = wishes(tmp_path, "@invariant\ndef wrong(world):\n    yield 'wrong'\n")
    done = rehearsed.run("--seed", "0", "--flow", "order", "--json", **env)
    assert json.loads(done.stdout)["failure"]["seed"] == 0


def test_a_seed_is_the_same_schedule_however_sets_are_ordered(tmp_path: Path) -> None:
    env = wishes(tmp_path, "@invariant\ndef first(world):\n    yield next(iter(set('seeds')))\n")
    command = "rehearse --seed 3 --flow order --json"
    said = {
        subprocess.run(
            [sys.executable, "-m", "choreo", *command.split()],
            env={**os.environ, **env, "PYTHONHASHSEED": seed},
            cwd=ROOT, capture_output=True, text=True, check=False,
        ).stdout
        for seed in ("1", "2", "random")
    }  # fmt: skip
    [only] = said
    assert json.loads(only)["failure"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 / 0\n", "wishes cannot be imported: ZeroDivisionError"),
        (
            "def fails(self, outside):\n    raise OSError('no way')\nBank.__init__ = fails\n",
            "wishes.Bank",
        ),
    ],
)
def test_a_module_of_rehearsals_that_raises_is_one_line(
    tmp_path: Path, text: str, said: str
) -> None:
    done = rehearsed.run("--runs", "2", "--flow", "order", **wishes(tmp_path, text))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_schedule_of_another_story_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "failure.json"
    file.write_text(json.dumps({"seed": 1, "decisions": [["story", "plaice", 1, 1]]}))
    done = rehearsed.run("--schedule", str(file))
    assert done.returncode == 2
    assert "tells the story 'plaice', and there is" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [("--runs", "3", "--minutes", "1"), ("--schedule", "x.json", "--runs", "3"),
     ("--schedule", "x.json", "--minutes", "1"), ("--schedule", "x.json", "--seed", "3")],
)  # fmt: skip
def test_options_that_exclude_each_other_are_refused(arguments: tuple[str, ...]) -> None:
    done = rehearsed.run(*arguments)
    assert done.returncode == 2
    assert "--runs or --minutes" in done.stderr or "--schedule goes with" in done.stderr


def test_interrupted_it_says_what_it_has_so_far(tmp_path: Path) -> None:
    env = wishes(
        tmp_path, "@invariant\ndef loud(world):\n    print('here', flush=True)\n    yield from ()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "choreo", "rehearse", "--minutes=0.5", "--flow", "order", "--json"],
        env={**os.environ, **env}, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        for _ in range(5):
            running.stderr.readline()
        running.send_signal(signal.SIGINT)
        stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130, stderr
    assert json.loads(stdout)["summary"]["schedules"] >= 1
    assert "interrupted" in stderr


def test_the_collector_is_as_it_was() -> None:
    stage = Stage(project(rehearsed.services(), [rehearsed.dinner], rehearsed.module()), load())
    frozen = gc.get_freeze_count()
    gc.disable()
    try:
        stage.play(1)
        assert not gc.isenabled()
    finally:
        gc.enable()
    stage.play(1)
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
