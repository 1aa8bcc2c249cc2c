"""What the documents show is what the code does: their examples are run, their paths exist."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = re.compile(r"^```toml\n(# pyproject.toml\n.*?)^```", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def files_in(page: Path) -> dict[str, str]:
    """The Python blocks that begin with a path in a comment."""
    found = {}
    for block in BLOCK.findall(page.read_text()):
        first, _, rest = block.partition("\n")
        if first.startswith("# ") and first.endswith(".py"):
            found[first[2:]] = rest
    return found


def copy(folder: Path, *names: str) -> None:
    """Copy folders of the project, but not what somebody compiles of them this very moment."""
    for name in names:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def test_the_service_of_the_page_works(tmp_path: Path) -> None:
    copy(tmp_path, "contracts", "services")
    files = files_in(ROOT / "docs/write-a-service.md")
    assert len(files) == 4
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull,
         "--rootdir", ".", "test_wrapping.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "2 passed" in tested.stdout, tested.stdout + tested.stderr
    mapped = subprocess.run(
        [sys.executable, "-m", "choreo", "map", "--json"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert '"wrapping.wrapped.v1"' in mapped.stdout, mapped.stderr


def test_the_project_of_the_page_works(tmp_path: Path) -> None:
    files = files_in(ROOT / "docs/your-own-project.md")
    assert len(files) == 6
    for package in ("contracts", "services"):
        files[f"{package}/__init__.py"] = ""
    [settings] = SETTINGS.findall((ROOT / "docs/your-own-project.md").read_text())
    for name, text in (files | {"pyproject.toml": settings}).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    # Not the repository itself: its own contracts and services must not be found.
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed/choreo").symlink_to(ROOT / "choreo")
    environment = {one: os.environ[one] for one in os.environ if not one.startswith("CHOREO_")}
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_lending.py"],
        cwd=tmp_path, env=environment | {"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "2 passed" in tested.stdout, tested.stdout + tested.stderr


def test_the_readme_shows_the_service_that_runs() -> None:
    [shown] = BLOCK.findall((ROOT / "README.md").read_text())
    assert shown == (ROOT / "services/inventory/__init__.py").read_text()


def test_the_processes_show_what_runs() -> None:
    services = [path.read_text() for path in ROOT.glob("services/*/__init__.py")]
    blocks = BLOCK.findall((ROOT / "docs/processes.md").read_text())
    assert blocks
    for block in blocks:
        assert any(block in text for text in services), block


def named_places() -> list[tuple[str, str]]:
    text = (ROOT / "README.md").read_text()
    return re.findall(r"^\d\. `([\w/]+\.py)`, `([\w.]+)`", text, re.MULTILINE)


@pytest.mark.parametrize(("file", "name"), named_places())
def test_the_reading_path_exists(file: str, name: str) -> None:
    body: list[ast.stmt] = ast.parse((ROOT / file).read_text()).body
    for part in name.split("."):
        [found] = [
            one
            for one in body
            if isinstance(one, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and one.name == part
        ]
        body = found.body


def test_the_reading_path_has_five_hops_or_fewer() -> None:
    assert 0 < len(named_places()) <= 5


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"
