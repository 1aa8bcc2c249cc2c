"""Every kind of sandbox as a process: how they start, announce themselves, remember and stop."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import aiohttp
import pytest
from sandbox_process import PATIENCE_S, Sandbox, eventually, running, spawn

EACH = pytest.mark.parametrize("name", ["gateway", "carrier", "airline"])
LEG = {"trip_id": "t", "leg_id": "t.1", "start": "2030-05-01", "end": "2030-05-08"}
SLOW = {
    "gateway": ("/charges", {"order_id": "slow", "card": "4000-3000", "amount": 1}),
    "carrier": ("/shipments", {"order_id": "slow", "address": "slow lane"}),
    "airline": ("/bookings", {**LEG, "trip_id": "slow", "offer": "ROME-SLOW"}),
}
NORMAL = {
    "gateway": ("/charges", {"order_id": "normal", "card": "4242-4242", "amount": 1}),
    "carrier": ("/shipments", {"order_id": "normal", "address": "1 High Street"}),
    "airline": ("/bookings", {**LEG, "offer": "ROME-1"}),
}


@EACH
async def test_it_announces_itself_and_withdraws_at_a_clean_stop(tmp_path: Path, name: str) -> None:
    var = tmp_path / "not" / "there" / "yet"
    with running(name, var) as sandbox:
        assert sandbox.url.startswith("http://127.0.0.1:")
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{sandbox.url}/health") as answer,
        ):
            assert answer.status == 200
        path, body = NORMAL[name]
        await sandbox.post(path, "key-1", body)
        code, stdout, stderr = sandbox.stop(signal.SIGINT)
    assert (code, stderr) == (0, "")
    lines = stdout.splitlines()
    assert lines[0].endswith(f"listening on {sandbox.url}")
    assert any(line.endswith(f"POST {path} 201 key-1") for line in lines)
    assert [file.name for file in var.iterdir()] == [f"{name}.db"]


@EACH
async def test_a_stop_does_not_wait_for_a_slow_request(tmp_path: Path, name: str) -> None:
    path, body = SLOW[name]
    with running(name, tmp_path, SANDBOX_SLOW_S="600") as sandbox:
        asked = asyncio.create_task(sandbox.post(path, "slow", body))
        await eventually(lambda: sandbox.ledger(order_id="slow"))
        code, _, stderr = await asyncio.to_thread(sandbox.stop, signal.SIGTERM)
        with pytest.raises(aiohttp.ClientConnectionError):
            await asked
    assert (code, stderr) == (0, "")


@EACH
async def test_a_killed_one_remembers_its_answers(tmp_path: Path, name: str) -> None:
    path, body = NORMAL[name]
    ledger = tmp_path / "books" / "ledger.db"

    async def ask(sandbox: Sandbox) -> object:
        answer = await sandbox.post(path, "key", body)
        return answer, await sandbox.ledger()

    with running(name, tmp_path, "--ledger", str(ledger)) as sandbox:
        before = await ask(sandbox)
        sandbox.stop(signal.SIGKILL)
    (tmp_path / f"{name}.url").unlink()  # what was killed could not withdraw
    with running(name, tmp_path, "--ledger", str(ledger)) as sandbox:
        assert await ask(sandbox) == before


@EACH
def test_a_stop_leaves_the_announcement_of_a_successor(tmp_path: Path, name: str) -> None:
    announced = tmp_path / f"{name}.url"
    with running(name, tmp_path) as sandbox:
        announced.write_text("http://127.0.0.1:1\n")
        assert sandbox.stop(signal.SIGTERM)[0] == 0
    assert announced.read_text() == "http://127.0.0.1:1\n"


@EACH
def test_a_port_in_use_is_one_line_and_exit_code_2(tmp_path: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = spawn(name, tmp_path, "--port", str(port))
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, stdout) == (2, "")
    [line] = stderr.splitlines()
    assert f"{name}: cannot listen on 127.0.0.1:{port}" in line
    assert not (tmp_path / f"{name}.url").exists()


@EACH
def test_a_ledger_that_cannot_be_is_one_line_and_exit_code_2(tmp_path: Path, name: str) -> None:
    broken = tmp_path / "ledger.db"
    broken.write_text("this is no database, and long enough to be seen as none" * 20)
    process = spawn(name, tmp_path, "--ledger", str(broken))
    _, stderr = process.communicate(timeout=PATIENCE_S)
    [line] = stderr.splitlines()
    assert process.returncode == 2
    assert str(broken) in line


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gateway", ["4242-4242", "4000-0002", "4000-0503", "4000-3000", "4000-0504"]),
        ("carrier", ["nowhere", "slow lane", "lost answer"]),
        ("airline", ["ROME-1", "ROME-LAST", "ROME-SLOW", "ROME-LOST", "ROME-NEVER"]),
        ("hotel", ["ROOM-1", "ROOM-LAST", "ROOM-SLOW", "ROOM-LOST", "ROOM-NEVER"]),
        ("car", ["CAR-1", "CAR-LAST", "CAR-SLOW", "CAR-LOST", "CAR-NEVER"]),
    ],
)
def test_help_tells_the_test_values_and_examples(
    tmp_path: Path, name: str, told: list[str]
) -> None:
    stdout, _ = spawn(name, tmp_path, "--help").communicate(timeout=PATIENCE_S)
    for one in [*told, "Examples:", f"python -m sandboxes.{name}", "--ledger"]:
        assert one in stdout
