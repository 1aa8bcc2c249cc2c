"""What is kept of the runs of conductors, within one open transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, bindparam

from choreo.contract import Message, contract_of, decode, encode
from choreo.errors import UndecodableError
from choreo.store.memory import Kind
from choreo.store.statements import CLEAR_DEADLINES
from choreo.store.tables import runs, tasks

Row = dict[str, Any]


class RunStatus(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    #: Something failed: what was done is being taken back.
    UNDOING = "undoing"
    DONE = "done"
    #: Something failed, and everything that was done is taken back, or asked to be.
    FAILED = "failed"


class TaskStatus(StrEnum):
    """How a command of a run stands."""

    #: Its answer is awaited.
    ASKED = "asked"
    DONE = "done"
    REFUSED = "refused"
    #: No answer came in time: whether it was done is not known.
    LATE = "late"
    #: The answer to its undo is awaited.
    UNDOING = "undoing"
    UNDONE = "undone"


_RUN_KEY = (runs.c.run == bindparam("k_run"), runs.c.conductor == bindparam("k_conductor"))
_TASK_KEY = tuple(tasks.c[name] == bindparam(f"k_{name}") for name in ("flow", "step", "subject"))
_BEGIN = runs.insert()
_RUN = sa.select(runs).where(*_RUN_KEY)
_RUN_ABOUT = sa.select(runs.c.run).where(
    *(runs.c[name] == bindparam(f"k_{name}") for name in ("conductor", "flow", "subject"))
)
_MOVE = runs.update().where(*_RUN_KEY)
_ASK = tasks.insert()
_TASK = sa.select(tasks).where(*_TASK_KEY)
_TASKS = (
    sa.select(tasks)
    .where(tasks.c.run == bindparam("k_run"), tasks.c.conductor == bindparam("k_conductor"))
    .order_by(tasks.c.number)
)
_SETTLE = tasks.update().where(*_TASK_KEY)


class Runs:
    """The runs of one conductor."""

    def __init__(self, db: Connection, conductor: str) -> None:
        self._db = db
        self._conductor = conductor

    def begin(self, row: Row) -> None:
        """Enter a run."""
        self._db.execute(_BEGIN, {**row, "conductor": self._conductor})

    def known(self, flow: str, subject: str) -> bool:
        """Whether there is a run about this in the flow."""
        key = {"k_conductor": self._conductor, "k_flow": flow, "k_subject": subject}
        return self._db.scalar(_RUN_ABOUT, key) is not None

    def run(self, run: str) -> Row:
        """A run that is there."""
        return dict(self._db.execute(_RUN, self._run_key(run)).mappings().one())

    def move(self, run: str, **values: Any) -> None:
        """Write down how far a run has come."""
        self._db.execute(_MOVE.values(**values), self._run_key(run))

    def ask(self, rows: Sequence[Row]) -> None:
        """Enter commands."""
        self._db.execute(_ASK, rows)

    def task(self, flow: str, step: str, subject: str) -> Row | None:
        """The command of a step about this in the flow, if one was sent."""
        key = {"k_flow": flow, "k_step": step, "k_subject": subject}
        found = self._db.execute(_TASK, key).mappings().one_or_none()
        return None if found is None else dict(found)

    def tasks(self, run: str) -> list[Row]:
        """Every command of a run, as they were sent."""
        return [dict(one) for one in self._db.execute(_TASKS, self._run_key(run)).mappings()]

    def end_deadline(self, task: Row) -> None:
        """The answer to a command is not waited for any more."""
        handler = {"k_kind": Kind.DEADLINE.value, "k_handler": f"{task['step']}_late"}
        about = {"k_flow": task["flow"], "subject": task["subject"] or None}
        self._db.execute(CLEAR_DEADLINES, handler | about)

    def settle(self, task: Row, **values: Any) -> None:
        """Write down what came of a command."""
        key = {f"k_{name}": task[name] for name in ("flow", "step", "subject")}
        self._db.execute(_SETTLE.values(**values), key)

    def _run_key(self, run: str) -> dict[str, str]:
        return {"k_run": run, "k_conductor": self._conductor}


def written(message: Message) -> str:
    """A message as it is kept."""
    return f'["{message.__address__.wire_type}",{encode(message).decode()}]'


def read(text: str) -> Message:
    """A message that was kept; raises UndecodableError if its contract is not what it was."""
    wire_type, body = json.loads(text)
    contract = contract_of(wire_type)
    if contract is None:
        raise UndecodableError(f"a run keeps a {wire_type}, which is no contract any more")
    return decode(contract, json.dumps(body).encode())
