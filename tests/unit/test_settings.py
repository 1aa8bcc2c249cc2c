"""Settings: from the environment first, then pyproject.toml, and refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from choreo import CannotRunError
from choreo.settings import load


def test_the_environment_wins_over_pyproject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.choreo]\nservices = "mine"\nbatch = 7\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHOREO_BATCH", "9")
    settings = load()
    assert (settings.services, settings.batch) == ("mine", 9)


def test_each_service_has_its_own_database(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(var="v").database_of("orders") == "sqlite:///v/orders.db"
    monkeypatch.setenv("CHOREO_DATABASE_URL", "postgresql+psycopg://h/{service}")
    assert load().database_of("orders") == "postgresql+psycopg://h/orders"


@pytest.mark.parametrize(
    ("name", "value"), [("BATCH", "0"), ("LOG_LEVEL", "loud"), ("LEASE_S", "soon")]
)
def test_a_wrong_setting_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"CHOREO_{name}", value)
    with pytest.raises(CannotRunError, match=f"(?i)choreo_.*{name}"):
        load()
