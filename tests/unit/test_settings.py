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


@pytest.mark.parametrize(
    ("name", "hint"), [("contract", "did you mean 'contracts'?"), ("zebra", "delete it")]
)
def test_an_unknown_setting_of_the_project_is_named(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[tool.choreo]\n{name} = "mine"\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CannotRunError) as caught:
        load()
    assert str(caught.value) == f"[tool.choreo] in pyproject.toml: no setting {name!r}: {hint}"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("CHOREO_DATABSE_URL", "CHOREO_DATABASE_URL"), ("choreo_prefech", "CHOREO_PREFETCH")],
)
def test_a_misspelt_setting_of_the_environment_is_named(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "9")
    with pytest.raises(CannotRunError) as caught:
        load()
    assert str(caught.value) == f"no setting {name.upper()}: did you mean {meant}?"


@pytest.mark.parametrize(
    "name", ["SMTP_URL", "SERVICE_HOST", "TEST_SERVERS", "DATABASE_USER", "DATABASE_URL_2"]
)
def test_others_may_begin_with_the_same_word(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = load()
    monkeypatch.setenv(f"CHOREO_{name}", "9")
    monkeypatch.setenv("CHOREO_PREFECH", "")
    assert load() == usual


def test_each_service_has_its_own_database(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(var="v").database_of("orders") == "sqlite:///v/orders.db"
    monkeypatch.setenv("CHOREO_DATABASE_URL", "postgresql+psycopg://h/{service}")
    assert load().database_of("orders") == "postgresql+psycopg://h/orders"


def test_a_password_is_not_shown_with_the_settings() -> None:
    url = "amqp://shop:secret@host/"
    settings = load(amqp_url=url, management_url=url, database_url=url)
    assert settings.amqp_url == url
    assert "secret" not in f"{settings!r} {settings}"


@pytest.mark.parametrize(
    ("name", "value"), [("BATCH", "0"), ("LOG_LEVEL", "loud"), ("LEASE_S", "soon")]
)
def test_a_wrong_setting_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"CHOREO_{name}", value)
    with pytest.raises(CannotRunError, match=f"(?i)choreo_.*{name}"):
        load()
