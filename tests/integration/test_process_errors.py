"""A process that cannot run says in one line what is wrong and what to do, and exits with 2."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from processes import environment, run

from choreo import Service, ports, process
from choreo.settings import Settings

SERVICE = [sys.executable, "-m", "services.orders"]


def nobody_listens() -> str:
    return f"amqp://guest:guest@127.0.0.1:{ports.free_ports('amqp')['amqp']}/"


async def refused(env: dict[str, str]) -> str:
    """Run the service; gives the one line that it writes."""
    code, said = await run(SERVICE, env)
    assert code == 2, said
    [line] = said.splitlines()
    assert line.startswith("orders: ")
    return line


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "127.0.0.1:5672", "amqp://guest:guest@127.0.0.1:port/", "nonsense", " "],
)
async def test_a_url_that_is_none(url: str, tmp_path: Path) -> None:
    line = await refused(environment(url, f"sqlite:///{tmp_path}/{{service}}.db", tmp_path))
    assert "CHOREO_AMQP_URL" in line
    assert "is no AMQP URL (amqp://user:password@host:5672/)" in line


async def test_a_broker_that_is_not_there(tmp_path: Path) -> None:
    url = nobody_listens()
    line = await refused(environment(url, f"sqlite:///{tmp_path}/{{service}}.db", tmp_path))
    assert f"no RabbitMQ at {url.replace(':guest@', '@')}" in line
    assert "start it, or correct CHOREO_AMQP_URL" in line


async def test_a_login_that_is_refused(amqp_url: str, tmp_path: Path) -> None:
    at = urlsplit(amqp_url)
    url = f"amqp://{at.username}:wrong-secret@{at.hostname}:{at.port}{at.path}"
    line = await refused(environment(url, f"sqlite:///{tmp_path}/{{service}}.db", tmp_path))
    assert "refuses the login: check user and password in CHOREO_AMQP_URL" in line
    assert "wrong-secret" not in line


async def test_a_virtual_host_that_is_not_there(amqp_url: str, tmp_path: Path) -> None:
    url = f"{amqp_url}-not-there"
    line = await refused(environment(url, f"sqlite:///{tmp_path}/{{service}}.db", tmp_path))
    assert "does not open that virtual host" in line
    assert "or correct CHOREO_AMQP_URL" in line


async def test_a_database_that_is_not_there(
    amqp_url: str, postgres_url: str, tmp_path: Path
) -> None:
    line = await refused(environment(amqp_url, postgres_url, tmp_path))
    assert 'orders" does not exist' in line
    assert "create it, or correct CHOREO_DATABASE_URL" in line
    password = urlsplit(postgres_url).password
    assert password
    assert f":{password}@" not in line


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql+psycopg://x:x@127.0.0.1:1/{service}", "Connection refused"),
        ("mysql://127.0.0.1/{service}", "choreo knows sqlite and postgresql"),
        ("nonsense", "the database URL cannot be read"),
        ("postgresql://x:p@ss:secret@127.0.0.1/{service}", "escape in a password what else has"),
        ("sqlite:////proc/no/{service}.db", "the folder of the database cannot be made"),
    ],
)
async def test_a_database_url_that_leads_nowhere(url: str, said: str, tmp_path: Path) -> None:
    line = await refused(environment(nobody_listens(), url, tmp_path))
    assert said in line
    assert "secret" not in line


async def test_a_lock_that_cannot_be_held(tmp_path: Path) -> None:
    (tmp_path / "orders.lock").mkdir()
    url = f"sqlite:///{tmp_path}/{{service}}.db"
    line = await refused(environment(nobody_listens(), url, tmp_path))
    assert "its lock cannot be held" in line


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CHOREO_BATCH", "0", "batch"),
        ("CHOREO_LOG_FORMAT", "xml", "log_format"),
    ],
)
async def test_a_setting_that_is_wrong(name: str, value: str, said: str, tmp_path: Path) -> None:
    database_url = f"sqlite:///{tmp_path}/{{service}}.db"
    line = await refused(environment(nobody_listens(), database_url, tmp_path, **{name: value}))
    assert said in line


async def test_no_broker_is_recorded(tmp_path: Path) -> None:
    env = environment("", f"sqlite:///{tmp_path}/{{service}}.db", tmp_path)
    line = await refused(env)
    assert "no broker: set CHOREO_AMQP_URL, or start a private one with 'choreo up'" in line


async def test_told_to_stop_while_it_starts_it_does_not_go_on(tmp_path: Path) -> None:
    """An adapter, the broker or the database may let it wait for longer than anybody does."""
    service, opening, told = Service("waiting"), asyncio.Event(), asyncio.Event()

    @service.adapter
    async def open_line() -> AsyncGenerator[int, None]:
        opening.set()
        await asyncio.Event().wait()
        yield 1

    settings = Settings(
        amqp_url=nobody_listens(), database_url=f"sqlite:///{tmp_path}/waiting.db", var=tmp_path
    )
    running = asyncio.create_task(process.run(service, settings, told))
    await opening.wait()
    told.set()
    await asyncio.wait_for(running, 30)
