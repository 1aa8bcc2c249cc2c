"""A small project in a folder of its own, and the command line run in it as a person would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import forked
from stage import until

ROOT = Path(__file__).parents[2]

_FILES = {
    "pyproject.toml": """
[tool.choreo]
services = "parts"
contracts = "agreed"
""",
    "agreed/__init__.py": "",
    "agreed/shop.py": """
from pydantic import BaseModel
from choreo import Command, Event

class Item(BaseModel):
    sku: str
    count: int = 1

class AskPrice(Command, topic="shop.ask_price", subject="id"):
    id: str
    items: tuple[Item, ...] = ()

class PriceTold(Event, topic="shop.price_told", subject="id"):
    id: str

class ShopOpened(Event, topic="shop.opened"):
    pass

class ShopOpened2(Event, topic="shop.opened", version=2):
    hour: int

class Unheard(Command, topic="void.shout"):
    pass
""",
    "parts/__init__.py": "",
    "parts/shop.py": """
from pathlib import Path
import sqlalchemy as sa
from choreo import Connection, Service
from agreed.shop import AskPrice, PriceTold

metadata = sa.MetaData()
told = sa.Table("told", metadata, sa.Column("id", sa.String))
service = Service("shop", tables=metadata)

@service.on
def tell(asked: AskPrice, db: Connection) -> PriceTold:
    if asked.id.startswith("boom") and not Path("mended").exists():
        raise KeyError(f"no price for [{asked.id}]")
    db.execute(told.insert(), {"id": asked.id})
    return PriceTold(id=asked.id)
""",
    "parts/desk.py": """
from choreo import Service
from agreed.shop import PriceTold

service = Service("desk")

@service.on
def note(told: PriceTold) -> None:
    pass
""",
    "parts/prices.py": "no_service_here = True\n",
}


class Project:
    """Two services, `shop` and `desk`, and what they agreed on."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "CHOREO_GRACE_S": "30",
            "CHOREO_POLL_S": "0.1",
            "COLUMNS": "200",
            **env,
        }
        for name, text in _FILES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def choreo(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return forked.choreo(*words, cwd=self.folder, env=self.env, stdin=stdin, timeout_s=60)

    @contextmanager
    def running(self, *words: str) -> Iterator[Running]:
        """Run a command in the background, what it prints in a file, and in a failure's note."""
        log = self.folder / f"{words[0]}.log"
        with log.open("w") as output:
            try:
                with self._background(words, output) as process:
                    yield Running(process, log)
            except BaseException as failure:
                failure.add_note(f"{' '.join(words)} said:\n{log.read_text()}")
                raise

    @contextmanager
    def piped(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command in the background, what it prints in a pipe."""
        with self._background(words, subprocess.PIPE) as process:
            yield process

    @contextmanager
    def _background(
        self, words: Sequence[str], output: TextIO | int
    ) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "choreo", *words],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Running:
    """A command that runs in the background."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def said(self) -> str:
        """Everything it has printed so far."""
        return self._log.read_text()

    async def says(self, text: str, *, times: int = 1, within_s: float = 60.0) -> None:
        """Wait until it has printed this."""

        def found() -> bool:
            if self.process.poll() is not None and self.said.count(text) < times:
                raise AssertionError(f"it ended without saying {text!r}:\n{self.said}")
            return self.said.count(text) >= times

        await until(found, f"it says {text!r}", within_s)

    def end(self, how: signal.Signals) -> int:
        """Signal it and wait for its end; gives the exit code."""
        self.process.send_signal(how)
        return self.process.wait(90)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and that nobody asked about does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def below(pid: int) -> list[int]:
    """Every living process below one."""
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, thread.read_text().split()):
            found += [child, *below(child)]
    return found


def command(pid: int) -> str:
    """What a process was started with."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
