"""The supervisor keeps processes running, and leaves none behind."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from cli_project import ROOT, is_alive
from stage import until
from structlog.testing import capture_logs

from choreo.errors import CannotRunError
from choreo.supervisor import Supervisor

_SLEEPS = "import os, time; print('up', os.getpid(), flush=True); time.sleep(600)"
_IGNORES = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {_SLEEPS}"


class Lines:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, name: str, line: str) -> None:
        self.lines.append((name, line))

    async def begin(self, text: str, times: int = 1) -> None:
        await until(
            lambda: sum(line.startswith(text) for _, line in self.lines) >= times,
            f"{text!r} {times} times in {self.lines}",
        )


async def test_hands_over_what_processes_say_by_their_names() -> None:
    lines = Lines()
    env = {**os.environ, "WORD": "sesame"}
    code = "import os, sys; print(os.environ['WORD']); sys.stderr.write('b' * 100_000 + '\\n')"
    async with Supervisor(lines) as supervisor:
        await supervisor.start("one", [sys.executable, "-c", code], env=env)
        await lines.begin("ended with exit code 0")
    assert sorted(lines.lines[:2]) == [("one", "b" * 100_000), ("one", "sesame")]
    assert lines.lines[2] == ("one", "ended with exit code 0; starting it again in 0.5 s")


async def test_goes_on_where_lines_cannot_be_shown() -> None:
    lines = Lines()

    def fail(name: str, line: str) -> None:
        lines(name, line)
        raise TypeError(f"cannot show {line}")

    code = "for _ in range(5000): print('y' * 100)"  # more than a pipe takes
    with capture_logs() as logged:
        async with Supervisor(fail) as supervisor:
            await supervisor.start("one", [sys.executable, "-c", code])
            await lines.begin("ended with exit code 0", times=2)
    assert len(lines.lines) >= 2 * 5001
    assert [(one["event"], one["process"]) for one in logged] == [("a line cannot be shown", "one")]


async def test_starts_again_what_dies_after_longer_and_longer_waits() -> None:
    lines = Lines()
    async with Supervisor(lines) as supervisor:
        await supervisor.start("one", [sys.executable, "-c", "raise SystemExit(2)"])
        await lines.begin("ended with exit code 2", times=3)
    assert [line.rpartition(" in ")[2] for _, line in lines.lines] == ["0.5 s", "1 s", "2 s"]


async def test_a_killed_process_comes_back_as_another() -> None:
    lines = Lines()
    async with Supervisor(lines) as supervisor:
        await supervisor.start("one", [sys.executable, "-c", _SLEEPS])
        await lines.begin("up")
        first = supervisor.pid("one")
        await supervisor.kill("one")
        assert supervisor.pid("one") is None
        await lines.begin("was ended by signal 9; starting it again")
        await lines.begin("up", times=2)
        second = supervisor.pid("one")
        assert first
        assert second
        assert first != second
        await supervisor.stop("one")
        assert not is_alive(second)
        assert len([line for _, line in lines.lines if "again" in line]) == 1
        await supervisor.start("one", [sys.executable, "-c", _SLEEPS])
        third = supervisor.pid("one")
        assert third
    assert not is_alive(third)


async def test_stop_does_not_wait_for_one_that_is_down() -> None:
    lines = Lines()
    async with Supervisor(lines, grace_s=60) as supervisor:
        await supervisor.start("one", [sys.executable, "-c", "raise SystemExit(1)"])
        await lines.begin("ended", times=4)  # down for four seconds now
        async with asyncio.timeout(2):
            await supervisor.stop("one")


async def test_kills_one_that_does_not_listen() -> None:
    lines = Lines()
    async with Supervisor(lines, grace_s=0.2) as supervisor:
        await supervisor.start("one", [sys.executable, "-c", _IGNORES])
        await lines.begin("up")
        pid = supervisor.pid("one")
    assert pid
    assert not is_alive(pid)


async def test_a_cancelled_stop_kills_at_once() -> None:
    lines = Lines()
    supervisor = Supervisor(lines, grace_s=60)
    await supervisor.start("one", [sys.executable, "-c", _IGNORES])
    await lines.begin("up")
    pid = supervisor.pid("one")
    assert pid
    stopping = asyncio.create_task(supervisor.stop("one"))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await until(lambda: not is_alive(pid), "it is dead")


async def test_says_which_program_is_missing() -> None:
    async with Supervisor(Lines()) as supervisor:
        with pytest.raises(CannotRunError, match=r"one cannot be started .*no-such-program"):
            await supervisor.start("one", ["no-such-program"])


async def test_the_processes_of_a_killed_supervisor_end(tmp_path: Path) -> None:
    script = tmp_path / "supervise.py"
    script.write_text(
        "import asyncio, sys\n"
        "from choreo.supervisor import Supervisor\n"
        "async def main():\n"
        "    async with Supervisor(lambda name, line: print(line, flush=True)) as supervisor:\n"
        f"        await supervisor.start('one', [sys.executable, '-c', {_SLEEPS!r}])\n"
        "        await asyncio.Future()\n"
        "asyncio.run(main())\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = await asyncio.create_subprocess_exec(sys.executable, script, stdout=PIPE, env=env)
    assert parent.stdout
    child = int((await parent.stdout.readline()).split()[1])
    assert is_alive(child)
    parent.kill()
    await parent.wait()
    await until(lambda: not is_alive(child), "the child is gone")
