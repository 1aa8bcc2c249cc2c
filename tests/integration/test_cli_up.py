"""`choreo up` starts all, keeps all running, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import servers
from cli_project import Project, below, command, is_alive
from stage import until

pytestmark = pytest.mark.timeout(600)

_COMPANION = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("companion stops", flush=True), sys.exit()))
print("companion here", flush=True)
time.sleep(600)
"""

_LOCKABLE = """
@service.setup
def unlock(db):
    from pathlib import Path
    from choreo import CannotRunError
    if Path("locked").exists():
        raise CannotRunError("the desk is locked")
"""


@pytest.fixture
def project(tmp_path: Path, amqp_url: str) -> Project:
    project = Project(tmp_path, CHOREO_AMQP_URL=amqp_url, CHOREO_COMPANIONS='["side.show"]')
    project.write("side/__init__.py", "")
    project.write("side/show.py", _COMPANION)
    return project


async def test_runs_all_starts_again_what_dies_and_stops_all_on_ctrl_c(project: Project) -> None:
    with project.running("up") as up:
        await up.says("all 2 services are running; Ctrl-C stops them")
        await up.says("companion here")
        family = below(up.process.pid)
        assert len(family) == 3
        os.kill(next(pid for pid in family if "parts.shop" in command(pid)), signal.SIGKILL)
        await up.says("shop   | was ended by signal 9; starting it again in 0.5 s")
        await up.says('"event": "consuming"', times=3)
        family += below(up.process.pid)

        sent = project.choreo("send", "shop.ask_price", '{"id": "a"}')
        assert sent.returncode == 0, sent.stderr

        assert up.end(signal.SIGINT) == 130
        assert [pid for pid in family if is_alive(pid)] == []
        said = up.said
    assert "Traceback" not in said
    assert said.index("choreo | stopping") < said.rindex('"event": "stopped"')
    assert said.rindex('"event": "stopped"') < said.index("companion stops")
    assert "again" not in said[said.index("choreo | stopping") :]


async def test_a_second_one_is_refused_and_names_the_first(project: Project) -> None:
    with project.running("up") as up:
        await up.says("companion here")
        second = project.choreo("up")
        assert second.returncode == 2
        assert second.stderr.count("\n") == 1
        assert f"(process {up.process.pid})" in second.stderr
        assert up.end(signal.SIGTERM) == 0


async def test_killed_it_takes_its_processes_with_it(project: Project) -> None:
    with project.running("up") as up:
        await up.says("all 2 services are running")
        family = below(up.process.pid)
        up.end(signal.SIGKILL)
        await until(lambda: not any(map(is_alive, family)), "all are gone")


async def test_a_service_that_cannot_run_is_shown_and_tried_again(project: Project) -> None:
    desk = (project.folder / "parts/desk.py").read_text()
    project.write("parts/desk.py", desk + _LOCKABLE)
    project.write("locked", "")
    with project.running("up") as up:
        await up.says("desk   | desk: the desk is locked")
        await up.says("desk   | ended with exit code 2; starting it again in 0.5 s")
        (project.folder / "locked").unlink()
        await up.says("all 2 services are running")


async def test_ends_when_nobody_reads_any_more(project: Project) -> None:
    with project.piped("up") as up:
        assert up.stdout
        for line in up.stdout:
            if "all 2 services are running" in line:
                break
        family = below(up.pid)
        up.stdout.close()
        shop = next(pid for pid in family if "parts.shop" in command(pid))
        os.kill(shop, signal.SIGKILL)  # about which it has something to say
        assert up.wait(90) == 0
        assert [pid for pid in family if is_alive(pid)] == []


@pytest.mark.long
@pytest.mark.usefixtures("choice", "nothing_kept")
async def test_brings_a_broker_of_its_own_where_none_is_set(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with project.running("up") as up:
        await up.says("all 2 services are running", within_s=120)
        family = below(up.process.pid)
        sent = project.choreo("send", "shop.ask_price", '{"id": "a"}')
        assert sent.returncode == 0, sent.stderr
        assert up.end(signal.SIGINT) == 130
        assert [pid for pid in family if is_alive(pid)] == []
    after = project.choreo("send", "shop.ask_price", '{"id": "a"}')
    assert after.returncode == 2
    assert "no broker: set CHOREO_AMQP_URL, or start a private one" in after.stderr
    # The broker is back some time before the journal is, a stream.
    with project.running("up") as up:
        await up.says("all 2 services are running", within_s=120)
        assert up.end(signal.SIGINT) == 130


@pytest.mark.parametrize("words", [("declare",), ("run", "shop"), ("up",)])
def test_a_refused_login_is_one_line(
    project: Project, broker: servers.Broker, words: tuple[str, ...]
) -> None:
    project.env["CHOREO_AMQP_URL"] = f"amqp://choreo:wrong@{broker.url.partition('@')[2]}"
    done = project.choreo(*words)
    assert done.returncode == 2
    assert "refuses the login" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "wrong" not in done.stderr


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", ("declare",)),
        ("http://127.0.0.1:1/", ("declare",)),
        ("amqp://127.0.0.1:1/", ("send", "shop.opened", '{"hour": 9}')),
        ("amqp://127.0.0.1:1/", ("watch",)),
        ("amqp://127.0.0.1:1/", ("run", "shop")),
        ("amqp://127.0.0.1:1/", ("up",)),
    ],
)
def test_a_broker_that_is_not_there_is_one_line(
    tmp_path: Path, url: str, words: tuple[str, ...]
) -> None:
    done = Project(tmp_path, CHOREO_AMQP_URL=url).choreo(*words)
    assert done.returncode == 2
    assert "CHOREO_AMQP_URL" in done.stderr
    assert done.stderr.count("\n") == 1
