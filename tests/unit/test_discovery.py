"""Services and contracts are found where the settings say, and what is wrong is said in a line."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from choreo import discovery
from choreo.errors import CannotRunError
from choreo.settings import Settings

Make = Callable[[dict[str, str]], Settings]
_numbers = count()
_SERVICE = "from choreo import Service\nservice = Service('{}')\n"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Write a package of services, under a name that no other test has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"found_{next(_numbers)}"

    def make(files: dict[str, str]) -> Settings:
        for path, text in {"__init__.py": "", **files}.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("PACKAGE", name))
        return Settings(services=name)

    return make


def test_finds_modules_and_packages_that_hold_a_service(make: Make) -> None:
    settings = make(
        {
            "beta/__init__.py": _SERVICE.format("b"),
            "alpha.py": _SERVICE.format("a"),
            "other.py": "service = 'at the table'\n",
        }
    )
    package = settings.services
    found = discovery.by_module(settings)
    assert {module: one.name for module, one in found.items()} == {
        f"{package}.alpha": "a",
        f"{package}.beta": "b",
    }
    assert discovery.services(settings) == list(found.values())
    assert discovery.service(settings, f"{package}.beta") is found[f"{package}.beta"]
    assert discovery.service(settings, "alpha") is found[f"{package}.alpha"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"bad.py": "x = 1\nraise KeyError('why')\n"},
            r"PACKAGE\.bad .*KeyError: 'why' \(PACKAGE/bad\.py:2\)",
        ),
        ({"bad.py": "import not_installed\n"}, r"PACKAGE\.bad .*No module named 'not_installed'"),
        ({"bad.py": "import PACKAGE.gone\n"}, r"PACKAGE\.bad .*No module named 'PACKAGE\.gone'"),
        ({"bad.py": "def\n"}, r"PACKAGE\.bad .*SyntaxError: .*bad\.py, line 1"),
        ({"alpha.py": "x = 1\n"}, r"no service in the package 'PACKAGE'"),
        ({}, r"no service in the package 'PACKAGE'"),
        (
            {"one.py": _SERVICE.format("same"), "two.py": _SERVICE.format("same")},
            r"PACKAGE\.one and PACKAGE\.two are both called 'same'",
        ),
    ],
)  # fmt: skip
def test_says_what_is_wrong(make: Make, files: dict[str, str], said: str) -> None:
    settings = make(files)
    with pytest.raises(CannotRunError, match=said.replace("PACKAGE", settings.services)) as caught:
        discovery.services(settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("alpa", "no service 'alpa': did you mean 'alpha'?"),
        ("zzz", "no service 'zzz': there is alpha, other"),
        ("other", "other is no service: it has no service = "),
    ],
)
def test_says_what_services_there_are(make: Make, name: str, said: str) -> None:
    settings = make({"alpha.py": _SERVICE.format("a"), "other.py": ""})
    with pytest.raises(CannotRunError) as caught:
        discovery.service(settings, name)
    assert said in str(caught.value)


def test_a_package_that_is_not_there(make: Make) -> None:
    make({})
    with pytest.raises(CannotRunError, match=r"no package 'nowhere' here: .* CHOREO_SERVICES"):
        discovery.services(Settings(services="nowhere.at.all"))
    with pytest.raises(CannotRunError, match=r"no package 'nowhere' here: .* CHOREO_CONTRACTS"):
        discovery.contracts(Settings(contracts="nowhere"))


def test_a_module_where_a_package_should_be(make: Make) -> None:
    settings = make({"alpha.py": ""})
    with pytest.raises(CannotRunError, match="is a module, and should be a package"):
        discovery.services(Settings(services=f"{settings.services}.alpha"))
