"""A seed is the same everywhere: on another machine, alone, and whatever was played before it."""

from __future__ import annotations

import os
import subprocess
import sys

from test_docs import ROOT

#: Plays seeds in a world that is wrong in many ways, and tells everything of them.
PLAY = """
import json, sys
from choreo import discovery
from choreo.rehearse.project import modules_of, project
from choreo.rehearse.stage import Stage
from choreo.settings import load
from rehearsals.outside import Ledger, Post

async def send(self, **_): pass
Post.send, Ledger.end = send, lambda *_: None
settings = load()
found = project(discovery.services(settings), discovery.flows(settings), *modules_of("rehearsals"))
stage = Stage(found, settings)
for seed in sys.argv[1:]:
    outcome = stage.play(int(seed))
    print(json.dumps({
        "seed": seed,
        "digest": outcome.digest,
        "decisions": list(map(str, outcome.decisions)),
        "wrong": list(map(str, outcome.wrong)),
        "events": outcome.events,
        "flows": [tree.as_json() for tree in outcome.trees],
    }))
"""


def told(seeds: range, **env: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PLAY, *map(str, seeds)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_a_seed_is_the_same_elsewhere_and_in_another_order() -> None:
    """The process's hashes, clock and settings change nothing, nor does what it played before.

    The last one is played alone there, so to speak.
    """
    seeds = range(1, 41)
    here = told(seeds, PYTHONHASHSEED="1", TZ="UTC")
    elsewhere = told(seeds[::-1], PYTHONHASHSEED="77", TZ="Asia/Tokyo", CHOREO_ATTEMPTS="2")
    assert here == elsewhere[::-1]
    assert len(here) == len(seeds)
