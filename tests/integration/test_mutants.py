"""The suite can fail: with a guarantee of the runtime taken away, its proof turns red.

Each proof is run twice: as it is, and on a mutant, where it must fail and say why.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import test_lifecycle
from audit import audit
from mutants import MUTANTS
from processes import PATIENCE_S
from stage import Stage, until
from system import System
from test_crash_points import failpoints, kill_at
from test_lifecycle import (
    StageMaker,
    stage_fixture,  # noqa: F401 - a fixture
    theatre_fixture,  # noqa: F401 - a fixture
    whats,
)
from theatre import Theatre

#: What a mutant keeps from happening is not waited for any longer.
IN_VAIN_S = 4.0
IN_VAIN = ("both are held", "freed", "late")
#: Those without whom no order ends.
SERVICES = ("orders", "inventory", "payments", "shipping", "order_process")


@dataclass(frozen=True, slots=True)
class Proof:
    """A test of the lifecycle; how it fails, and what the handlers have done, on its mutant."""

    test: Callable[[StageMaker, Theatre], Awaitable[None]]
    says: str
    did: list[tuple[str, str]]


PROOFS = {
    "inbox_off": Proof(
        test_lifecycle.test_a_message_is_handled_once_however_often_it_comes,
        r"not within 4 s: both are held|\('1a', 'held'\) != \('1b', 'held'\)",
        [("1a", "held")] * 100 + [("1b", "held")],
    ),
    "undo_twice": Proof(
        test_lifecycle.test_an_undo_takes_back_what_the_flow_did_once_whichever_cause_came,
        "not within 4 s: freed|newest first",
        [("1a", "held"), ("1b", "held"), ("2a", "held"), *[("1b", "freed"), ("1a", "freed")] * 2],
    ),
    "tombstones_off": Proof(
        test_lifecycle.test_an_undo_that_overtakes_its_step_keeps_it_from_running,
        r"\('1a', 'held'\) != \('2a', 'held'\)",
        [("1a", "held"), ("2a", "held")],
    ),
    "deadlines_in_memory": Proof(
        test_lifecycle.test_a_deadline_survives_a_restart, "not within 4 s: late", []
    ),
}


@pytest.mark.parametrize("name", PROOFS)
async def test_a_proof_of_the_lifecycle_holds(
    name: str,
    stage: StageMaker,
    theatre: Theatre,
) -> None:
    await PROOFS[name].test(stage, theatre)


async def until_in_vain(condition: Callable[[], Any], what: str) -> Any:
    """Wait shortly for what may never come, and for all else as long as the proof does."""
    return await until(condition, what, IN_VAIN_S if what in IN_VAIN else PATIENCE_S)


@pytest.mark.parametrize("name", PROOFS)
async def test_a_proof_of_the_lifecycle_turns_red(
    name: str,
    stage: StageMaker,
    theatre: Theatre,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stages: list[Stage] = []

    def kept(**given: Any) -> Stage:
        stages.append(stage(**given))
        return stages[-1]

    proof = PROOFS[name]
    MUTANTS[name](monkeypatch)
    monkeypatch.setattr(test_lifecycle, "until", until_in_vain)
    with pytest.raises(AssertionError, match=proof.says):
        await proof.test(kept, theatre)
    assert whats(stages[-1], theatre) == proof.did


class Mutated(System):
    """A system whose services are run by a mutant."""

    mutant = ""

    def argv(self, module: str) -> list[str]:
        """Runs the mutant in place of a service."""
        argv = super().argv(module)
        if not self.mutant or not module.startswith("services."):
            return argv
        return [*argv[:-1], "mutants", self.mutant, module]


#: Where inventory dies, and how it is said what is never done when the mutant is at work.
DEATHS = {
    "acks_early": ("written", r"'inventory\.\w+ has not handled \d+'"),
    "outbox_not_swept": ("committed", r"'\d+ rows in the outbox of inventory'"),
}
SystemMaker = Callable[..., Mutated]


@pytest.fixture
def system(
    amqp_url: str, database_url: str, create_databases: Callable[..., None], tmp_path: Path
) -> SystemMaker:
    """Makes a system, perhaps of mutants, whose inventory is killed at each of the points."""

    def make(*points: str, mutant: str = "") -> Mutated:
        create_databases(*SERVICES)
        folder = failpoints(tmp_path, {"inventory": list(points)})
        made = Mutated(amqp_url, database_url, tmp_path, SERVICES, CHOREO_FAILPOINTS=folder)
        made.mutant = mutant
        return made

    return make


async def prove(running: Mutated, deaths: int, **patience: float) -> None:
    """What `test_crash_points` does, for all services and points."""
    letters = await kill_at(running, Path(running.env["CHOREO_FAILPOINTS"]))
    await until(
        lambda: [one.name for one in running.said("consuming")].count("inventory") > deaths,
        "inventory is back", PATIENCE_S,
    )  # fmt: skip
    await running.ended(**patience)
    audit(running, letters=letters)


@pytest.mark.long_on_postgres
async def test_the_proof_of_the_crash_points_holds(system: SystemMaker) -> None:
    async with system(*(point for point, _ in DEATHS.values())) as running:
        await prove(running, len(DEATHS))


@pytest.mark.long_on_postgres
@pytest.mark.parametrize("name", DEATHS)
async def test_the_proof_of_the_crash_points_turns_red(name: str, system: SystemMaker) -> None:
    point, never_done = DEATHS[name]
    async with system(point, mutant=name) as running:
        with pytest.raises(AssertionError, match=f"every flow ends.*{never_done}"):
            await prove(running, 1, within_s=IN_VAIN_S)
        # It is not merely slow: nothing waits for it any more.
        async with asyncio.timeout(PATIENCE_S):
            while any(one.endswith("queue inventory") for one in await running.queued()):
                pass
        assert re.search(never_done, str(running.unrest()))


def test_every_mutant_has_its_proof() -> None:
    assert {*PROOFS, *DEATHS} == {*MUTANTS}
