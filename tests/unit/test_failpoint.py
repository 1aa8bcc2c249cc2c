"""Where a process is told to die, it dies once, whatever its other thread comes by meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from choreo import failpoint


@pytest.fixture(autouse=True)
def unwatched() -> Iterator[None]:
    yield
    failpoint.watch(None)


def test_one_line_is_for_one_death(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    died: list[Path] = []
    monkeypatch.setattr(failpoint, "_die", died.append)
    monkeypatch.setenv("CHOREO_FAILPOINTS", str(tmp_path))
    (tmp_path / "orders").write_text("handled:2\nacked\n")
    failpoint.arm("orders")
    failpoint.reach("handled")
    failpoint.reach("acked")
    assert died == []
    failpoint.reach("handled")
    failpoint.reach("acked")  # by the other thread, before the first has died
    failpoint.reach("handled")
    assert died == [tmp_path / "orders"]


def test_a_point_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CHOREO_FAILPOINTS", str(tmp_path))
    (tmp_path / "orders").write_text("nowhere\n")
    with pytest.raises(ValueError, match="no failpoint 'nowhere'"):
        failpoint.arm("orders")
