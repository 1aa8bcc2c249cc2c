"""What is derived from the signatures says what the signatures say."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("draw")


def test_nothing_is_stale(draw: ModuleType) -> None:
    stale = [str(path.relative_to(ROOT)) for path in draw.stale()]
    assert not stale, f"run 'scripts/draw' and look at what changed: {stale}"


@pytest.mark.parametrize("page", ["README.md", "docs/processes.md"])
def test_every_picture_of_a_page_is_derived(draw: ModuleType, page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert len(draw.PICTURE.findall(text)) == text.count("```mermaid") > 0
