"""A command says the same where standard output knows ASCII alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
_CONTRACTS = """
from choreo import Command, Event

class Want(Command, topic="size.want"):
    '''Größer wünschen 😀.'''

class Given(Event, topic="size.given"):
    pass
"""
_FLOWS = """
from choreo import Flow
from contracts.size import Given, Want

gift = Flow("gift", starts=Want, ends={"given": Given})
"""
_SERVICE = """
from choreo import Service
from contracts.size import Given, Want

service = Service("giver")

@service.on(final="es ist größer")
def größer(wanted: Want) -> Given:
    '''Größer 😀.'''
    return Given()
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    for path, text in {
        "contracts/__init__.py": "",
        "contracts/size.py": _CONTRACTS,
        "contracts/flows.py": _FLOWS,
        "services/__init__.py": "",
        "services/giver.py": _SERVICE,
    }.items():
        file = root / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root


def choreo(project: Path, arguments: str) -> str:
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "choreo", *arguments.split()],
        cwd=project,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **ascii_alone},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode("ascii")


def test_the_table_and_the_tree(project: Path) -> None:
    assert r"giver.gr\u00f6\u00dfer" in choreo(project, "map")
    assert r"\u25a0 ends given" in choreo(project, "map --flow gift")


def test_json_is_json(project: Path) -> None:
    found = json.loads(choreo(project, "map --json"))
    assert found["contracts"]["size.want.v1"]["summary"] == "Größer wünschen 😀."
    assert found["services"]["giver"]["handlers"]["größer"]["summary"] == "Größer 😀."


def test_a_picture_is_a_picture(project: Path) -> None:
    texts = [one.text for one in ET.fromstring(choreo(project, "map --svg")).iter()]
    assert {"größer", "Größer 😀."} <= set(texts)


def test_what_is_checked(project: Path) -> None:
    assert "gift" in choreo(project, "check")
    assert json.loads(choreo(project, "check --json"))["findings"] == []
