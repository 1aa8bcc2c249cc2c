"""A pytest fixture that rehearses: what `choreo rehearse` does, for a test.

from choreo.rehearse.testing import rehearsal  # in conftest.py

def test_nothing_goes_wrong(rehearsal):
    rehearsal(runs=500, only=["order"])
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType

import pytest
from rich.console import Console

from choreo import discovery
from choreo.errors import CannotRunError
from choreo.flow import Flow
from choreo.rehearse import show
from choreo.rehearse.campaign import Campaign, Summary
from choreo.rehearse.project import modules_of, project
from choreo.rehearse.stage import Stage
from choreo.service import Service
from choreo.settings import load

Rehearse = Callable[..., Summary]


def rehearse(
    *modules: ModuleType,
    services: Sequence[Service] | None = None,
    flows: Sequence[Flow] | None = None,
    only: Iterable[str] = (),
    runs: int = 200,
    seed: int = 1,
) -> Summary:
    """Play so many schedules from a seed on; fails the test at the first that goes wrong.

    `modules` have the stories, stand-ins and invariants; without any, those of the project are
    taken, as are its services and flows where none are given. `only`: the stories of these flows.
    """
    settings = load()
    if not modules:
        if settings.rehearsals is None:
            raise CannotRunError("give the modules that have the stories, or name the project's")
        modules = tuple(modules_of(settings.rehearsals))
    found = project(
        discovery.services(settings) if services is None else services,
        discovery.flows(settings) if flows is None else flows,
        *modules,
    )
    stage = Stage(found.only(only) if only else found, settings)
    campaign = Campaign(stage)
    for _ in campaign.run(itertools.islice(itertools.count(seed), runs)):
        pass
    if campaign.failure is not None:
        text = io.StringIO()
        again = f"rehearsal(..., seed={campaign.failure.outcome.seed}, runs=1)"
        show.failure(Console(file=text, width=160), campaign.failure, again)
        pytest.fail(text.getvalue(), pytrace=False)
    return campaign.summary


@pytest.fixture
def rehearsal() -> Rehearse:
    """Plays schedules: see `choreo.rehearse.testing.rehearse`."""
    return rehearse
