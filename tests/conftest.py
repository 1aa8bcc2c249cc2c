"""Gives a test its own corner of a broker and of a database server.

The servers start with the first test that needs them; the unit tests need none.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import servers

from choreo import node

_CHOICE = pytest.StashKey[servers.Choice]()
#: What takes longest: one worker begins with it, and the others take over what it leaves.
_FIRST = ("test_compose.py", "test_crash_points.py", "test_demo.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    soak = parser.getgroup("soak", "what scripts/soak runs")
    soak.addoption("--minutes", default="5", help="how long the live soak goes on")
    soak.addoption("--seed", default="1", help="what its faults are drawn from")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_CHOICE] = servers.choose()
    # The developer's settings are not the tests'; what is said to the tests is for all workers.
    for name in [name for name in os.environ if name.startswith("CHOREO_")]:
        if not name.startswith("CHOREO_TEST_"):
            del os.environ[name]
    # Ended from outside, the servers are to be ended, too: as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long_on_postgres") and "[postgres" in item.name:
            item.add_marker(pytest.mark.long)
    _spread(items)


def _spread(items: list[pytest.Item]) -> None:
    """Put the longest first, and the modules of each folder among those of the others.

    Those of some wait, and those of others work: workers then keep all cores busy.
    """
    folders: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(item.path for item in items):
        folders[path.parent].append(path)
    place = {path: nth / len(some) for some in folders.values() for nth, path in enumerate(some)}
    items.sort(key=lambda item: (item.path.name not in _FIRST, place[item.path]))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Say first of all what the integration tests run on, however quiet pytest is asked to be."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return  # one of several workers; who gathers their results says it
    reporter.write_line(f"servers: {session.config.stash[_CHOICE].text}")


@pytest.fixture(scope="session")
def choice(pytestconfig: pytest.Config) -> servers.Choice:
    """What the servers are; ends the whole run if there can be none."""
    choice = pytestconfig.stash[_CHOICE]
    if choice.kind is None:
        pytest.exit(choice.text, returncode=2)
    return choice


@pytest.fixture(scope="session")
def broker(choice: servers.Choice) -> Iterator[servers.Broker]:
    """The broker that all tests share."""
    with asyncio.Runner() as runner:
        running = servers.running_broker(choice, management=True)
        yield runner.run(running.__aenter__())
        runner.run(running.__aexit__(None, None, None))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what takes a `lone_broker` once on each version that CHOREO_TEST_BROKERS names."""
    if "lone_broker" in metafunc.fixturenames:
        metafunc.parametrize("lone_broker", servers.versions(), indirect=True, scope="session")


@pytest.fixture(scope="session")
def lone_broker(request: pytest.FixtureRequest, choice: servers.Choice) -> Iterator[servers.Broker]:
    """A broker to do anything to that it recovers from; only such tests share it."""
    if request.param != "default":
        choice = servers.choose_version(request.param)
        if choice.kind is None:
            pytest.skip(choice.text)
    with asyncio.Runner() as runner:
        running = servers.running_broker(choice, management=True)
        yield runner.run(running.__aenter__())
        runner.run(running.__aexit__(None, None, None))


@pytest.fixture
def amqp_url(broker: servers.Broker) -> Iterator[str]:
    """A virtual host for this test alone."""
    with servers.vhost(broker) as url:
        yield url


@pytest.fixture
async def broker_control(choice: servers.Choice) -> AsyncIterator[servers.Broker]:
    """A broker for this test alone, to stop, kill and start again; its port and data stay."""
    async with servers.running_broker(choice, management=False) as broker:
        yield broker


@pytest.fixture
def nothing_kept(tmp_path: Path) -> Iterator[None]:
    """Delete what private nodes of this test keep outside of its folder: Docker volumes."""
    yield
    for home in tmp_path.rglob("broker/password"):
        node.discard(home.parents[1])


@pytest.fixture(scope="session")
def postgres(choice: servers.Choice) -> Iterator[str]:
    """The URL of the PostgreSQL server that all tests share."""
    with servers.running_postgres(choice) as url:
        yield url


@pytest.fixture
def postgres_databases(postgres: str) -> Iterator[servers.Databases]:
    """Databases for this test alone: `.url` with a `{service}` in it, `.create(*services)`."""
    databases = servers.Databases(postgres)
    yield databases
    databases.drop()


@pytest.fixture
def postgres_url(postgres_databases: servers.Databases) -> str:
    """Like `database_url`, on PostgreSQL only."""
    return postgres_databases.url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A CHOREO_DATABASE_URL with `{service}` in it; the test runs once on each kind.

    `create_databases` makes the databases.
    """
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/{{service}}.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def create_databases(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Call it with the names of services; they are dropped after the test."""
    if "database_url" in request.fixturenames:
        url: str = request.getfixturevalue("database_url")
        if url.startswith("sqlite"):
            return lambda *_services: None  # SQLite creates them when they are opened
    databases: servers.Databases = request.getfixturevalue("postgres_databases")
    return databases.create
