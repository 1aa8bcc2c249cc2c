"""Services and contracts are found where the settings say, and what is wrong is said in a line."""

from __future__ import annotations

import sys
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


def test_the_contracts_are_those_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    name = f"agreed_{next(_numbers)}"
    declared = "from choreo import Event\n\nclass {}(Event, topic='{}.done'): pass\n"
    for file, text in {
        f"{name}/__init__.py": "",
        f"{name}/one.py": f"import {name}_too\n" + declared.format("One", name),
        f"{name}_too.py": declared.format("Other", f"{name}_too"),
    }.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    found = discovery.contracts(Settings(contracts=name))
    assert [kind.__name__ for kind in found] == ["One"]


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("ordr", ["order", "trip"], "no flow 'ordr': did you mean 'order'?"),
        ("zzz", ["order", "trip"], "no flow 'zzz': there is order, trip"),
        ("order", [], "no flow 'order': there is none"),
    ],
)
def test_says_what_else_there_is(name: str, known: list[str], said: str) -> None:
    with pytest.raises(CannotRunError) as caught:
        discovery.named("flow", name, {one: one for one in known})
    assert str(caught.value) == said
    assert discovery.named("flow", "order", {"order": 7}) == 7


def test_a_package_that_is_not_there(make: Make) -> None:
    make({})
    with pytest.raises(CannotRunError, match=r"no package 'nowhere' here: .* CHOREO_SERVICES"):
        discovery.services(Settings(services="nowhere.at.all"))
    with pytest.raises(CannotRunError, match=r"no package 'nowhere' here: .* CHOREO_CONTRACTS"):
        discovery.contracts(Settings(contracts="nowhere"))


def test_a_module_of_the_working_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nobody put that folder on the path, as with a bare `pytest`."""
    (tmp_path / "lying_here.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    assert discovery.imported("lying_here").__file__ == str(tmp_path / "lying_here.py")


def test_a_module_where_a_package_should_be(make: Make) -> None:
    settings = make({"alpha.py": ""})
    with pytest.raises(CannotRunError, match="is a module, and should be a package"):
        discovery.services(Settings(services=f"{settings.services}.alpha"))
