"""`choreo dead` finds letters in every service's database, sends them back, or drops them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cli_project import Project
from stage import until

from choreo.settings import Settings
from choreo.store.database import connect
from choreo.store.tables import dead, due

#: A shop whose call outside fails, and is to be undone.
SHUT = """
from choreo import Service
from agreed.shop import AskPrice, PriceTold, ShopOpened, ShopOpened2

service = Service("shop")

@service.on
async def open_shop(asked: AskPrice) -> ShopOpened:
    raise KeyError("no key to the shop")

@open_shop.undo
async def close(cause: ShopOpened2, opened: ShopOpened) -> None: ...

@service.on(final="it is said")
def say(asked: AskPrice) -> ShopOpened2:
    return ShopOpened2(hour=9)
"""


@pytest.fixture
def project(
    tmp_path: Path, amqp_url: str, database_url: str, create_databases: Callable[..., None]
) -> Project:
    create_databases("shop", "desk")
    return Project(
        tmp_path,
        CHOREO_AMQP_URL=amqp_url,
        CHOREO_DATABASE_URL=database_url,
        CHOREO_ATTEMPTS="1",
    )


def _listed(project: Project, *words: str) -> list[dict[str, Any]]:
    done = project.choreo("dead", "list", "--json", *words)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _told(database_url: str) -> list[str]:
    """What the shop's own table says."""
    with connect(Settings(database_url=database_url).database_of("shop")).begin() as db:
        return list(db.execute(sa.text("SELECT id FROM told ORDER BY id")).scalars())


@pytest.mark.long_on_postgres
async def test_list_show_and_retry(project: Project, database_url: str) -> None:
    assert _listed(project) == []  # before any service has run
    assert project.choreo("dead", "list").stdout == "no dead letters\n"
    with project.running("run", "shop") as shop:
        await shop.says("consuming")
        for word in ("boom-1", "boom-2", "fine"):
            sent = project.choreo("send", "shop.ask_price", json.dumps({"id": word}))
            assert sent.returncode == 0, sent.stderr
        await shop.says("dead letter", times=2)

        first, second = _listed(project)
        assert (first["service"], first["handler"]) == ("shop", "tell")
        assert (first["type"], first["subject"]) == ("shop.ask_price.v1", "boom-1")
        assert first["reason"] == "failed once, last with KeyError: 'no price for [boom-1]'"
        assert second["flow"] == second["message_id"]
        assert _listed(project, "--reason", "boom-2") == [second]
        table = project.choreo("dead", "list").stdout
        assert "KeyError: 'no price for [boom-1]'" in table

        shown = project.choreo("dead", "show", first["id"])
        assert shown.returncode == 0, shown.stderr
        for text in ('"id": "boom-1"', '"routing_key": "shop.ask_price.v1"', "Traceback", "tell"):
            assert text in shown.stdout

        planned = project.choreo("dead", "retry", "--all", "--dry-run")
        assert planned.stdout.count("would send back") == 2
        assert len(_listed(project)) == 2
        project.write("mended", "")
        retried = project.choreo("dead", "retry", first["id"])
        assert retried.stdout.endswith("to shop.tell: shop.ask_price.v1\n"), retried.stderr
        await until(lambda: _told(database_url) == ["boom-1", "fine"], "boom-1 is told")
        assert _listed(project) == [second]
        by_reason = project.choreo("dead", "retry", "--all", "--reason", "boom-2")
        assert by_reason.stdout.count("sent back") == 1, by_reason.stderr
        await until(lambda: _told(database_url) == ["boom-1", "boom-2", "fine"], "all are told")
    assert _listed(project) == []


@pytest.mark.long
async def test_ids_may_be_shortened_as_far_as_they_differ(tmp_path: Path, amqp_url: str) -> None:
    project = Project(tmp_path, CHOREO_AMQP_URL=amqp_url, CHOREO_ATTEMPTS="1")
    with project.running("run", "shop") as shop:
        await shop.says("consuming")
        for word in ("boom-1", "boom-2"):
            project.choreo("send", "shop.ask_price", json.dumps({"id": word}))
        await shop.says("dead letter", times=2)
    first, second = (one["id"] for one in _listed(project))
    table = project.choreo("dead", "list").stdout.splitlines()
    rows = [line.split("│")[1].strip() for line in table if "boom" in line]
    assert len(set(rows)) == 2
    assert first.startswith(rows[0])
    assert second.startswith(rows[1])
    assert '"boom-1"' in project.choreo("dead", "show", rows[0]).stdout
    ambiguous = project.choreo("dead", "show", "0")
    assert (ambiguous.returncode, ambiguous.stdout) == (1, "")
    assert "2 dead letters begin with 0" in ambiguous.stderr
    for command in ("show", "retry", "drop"):
        unknown = project.choreo("dead", command, "ffff")
        assert unknown.returncode == 1
        assert unknown.stderr == "choreo: no dead letter ffff: 'choreo dead list' names them\n"
    # Sent back while nothing runs, they are taken at the next start.
    project.write("mended", "")
    assert project.choreo("dead", "retry", first, second).returncode == 0
    assert _listed(project, "--service", "shop") == []
    with project.running("run", "shop") as shop:
        await shop.says("consuming")
        url = f"sqlite:///{tmp_path}/var/{{service}}.db"
        await until(lambda: _told(url) == ["boom-1", "boom-2"], "both are told")


def _answering(project: Project, answer: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a terminal where somebody types this."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        return subprocess.run(
            [sys.executable, "-m", "choreo", *words],
            cwd=project.folder,
            env=project.env,
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.long
async def test_old_letters_are_kept_back_and_others_dropped(tmp_path: Path, amqp_url: str) -> None:
    project = Project(tmp_path, CHOREO_AMQP_URL=amqp_url, CHOREO_ATTEMPTS="1")
    with project.running("run", "shop") as shop:
        await shop.says("consuming")
        for word in ("boom-1", "boom-2"):
            project.choreo("send", "shop.ask_price", json.dumps({"id": word}))
        await shop.says("dead letter", times=2)
    [group] = _listed(project, "--group")
    old, new = group.pop("letters")
    assert (group["count"], group["handler"]) == (2, "tell")
    assert group["reason"] == "failed once, last with KeyError: 'no price for [boom-2]'"
    [row] = [
        line for line in project.choreo("dead", "list", "--group").stdout.splitlines()
        if "KeyError" in line
    ]  # fmt: skip
    assert [cell.strip() for cell in row.split("│")[1:4]] == ["2", "shop", "tell"]

    url = f"sqlite:///{tmp_path}/var/{{service}}.db"
    with connect(url.format(service="shop")).begin() as db:
        long_ago = time.time() - 40.2 * 86400
        db.execute(dead.update().where(dead.c.id == old).values(last_failed=long_ago))
    for words in (("--all", "--dry-run"), (old,)):
        refused = project.choreo("dead", "retry", *words)
        assert refused.returncode == 1
        assert f"did not send back {old}"[:26] in refused.stderr
        assert "it failed 40 days ago, and flows are remembered for 30: " in refused.stderr
        assert refused.stdout.count("would send back") == len(words) - 1
    assert [one["id"] for one in _listed(project)] == [old, new]
    forced = project.choreo("dead", "retry", old, "--force", "--json")
    assert forced.returncode == 0, forced.stderr
    assert [(one["id"], one["refused"]) for one in json.loads(forced.stdout)] == [(old, None)]

    drop = ("dead", "drop", "--all", "--reason", "boom")
    assert _answering(project, "", *drop, "--dry-run").stdout.startswith("would drop ")
    kept = _answering(project, "n", *drop)
    assert kept.returncode == 1
    assert "Delete 1 of 1 dead letters for good? [y/N]" in kept.stderr
    assert [one["id"] for one in _listed(project)] == [new]
    dropped = _answering(project, "y", *drop)
    assert dropped.stdout.endswith(" of shop.tell: shop.ask_price.v1\n"), dropped.stderr
    assert _listed(project) == []
    assert _answering(project, "", *drop, "--yes").stdout == "no dead letters\n"
    project.write("mended", "")
    with project.running("run", "shop") as shop:
        await shop.says("consuming")
        await until(lambda: _told(url) == ["boom-1"], "what was sent back is told")
    assert _told(url) == ["boom-1"]


async def test_what_an_undo_is_owed_to_is_not_dropped_by_the_way(
    tmp_path: Path, amqp_url: str
) -> None:
    project = Project(tmp_path, CHOREO_AMQP_URL=amqp_url, CHOREO_ATTEMPTS="1")
    project.write("parts/shop.py", SHUT)
    engine = connect(f"sqlite:///{tmp_path}/var/shop.db")

    def owed() -> list[Any]:
        with engine.begin() as db:
            return [*db.execute(sa.select(due.c.handler).where(due.c.at.is_(None))).scalars()]

    with project.running("run", "shop") as shop:
        await shop.says("consuming")
        project.choreo("send", "shop.ask_price", json.dumps({"id": "key"}))
        await shop.says("dead letter")
        await until(owed, "the undo is owed")
    drop = ("dead", "drop", "--all", "--service", "shop")
    refused = project.choreo(*drop)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "an undo is owed to it; sent back it comes to its outcome and is" in refused.stderr
    [letter] = _listed(project)
    forced = project.choreo(*drop, "--force")
    assert forced.stdout.startswith(f"dropped {letter['id'][:8]}"), forced.stderr
    assert _listed(project) == []
    assert owed() == ["close"]


@pytest.mark.parametrize("command", ["retry", "drop"])
@pytest.mark.parametrize("words", [(), ("abc", "--all")])
def test_letters_are_named_or_chosen(tmp_path: Path, command: str, words: tuple[str, ...]) -> None:
    done = Project(tmp_path).choreo("dead", command, *words)
    assert done.returncode == 2
    assert "name letters, or choose with --all" in done.stderr


def test_a_database_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    url = "postgresql://choreo:secret@127.0.0.1:1/{service}"
    done = Project(tmp_path, CHOREO_DATABASE_URL=url).choreo("dead", "list")
    assert done.returncode == 2
    assert "the database of desk cannot be used" in done.stderr
    assert "CHOREO_DATABASE_URL" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr
