"""The runs of a conductor: what is sent next, now that it began or that something was answered."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args, get_origin

from sqlalchemy import Connection

from choreo.contract import Message, subject_of
from choreo.errors import DefinitionError, Reject
from choreo.failpoint import reach
from choreo.signature import (
    Context,
    MessageType,
    Returns,
    hints_of,
    members,
    message_types,
    place,
    returns,
)
from choreo.store.runs import Row, Runs, RunStatus, TaskStatus, read, written

if TYPE_CHECKING:
    from choreo.conductor import Conductor


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run of a conductor is undone."""

    #: The step that failed, by the name of its function.
    step: str
    #: The bad answer; None if there was no answer in time.
    answer: Message | None

    @property
    def reason(self) -> str:
        """For a person: the answer's own `reason`, if it gives one."""
        if self.answer is None:
            return f"{self.step}: no answer in time"
        said = getattr(self.answer, "reason", None)
        return str(said) if said else f"{self.step}: {type(self.answer).__name__}"


@dataclass(frozen=True, slots=True)
class Scope:
    """What the functions of a conductor may want."""

    db: Connection
    context: Context
    start: Message
    #: The good answers so far, in the order of their commands.
    answers: Sequence[Message] = ()
    failure: Failure | None = None
    command: Message | None = None


@dataclass(frozen=True, slots=True)
class Builder:
    """A function of a conductor, with where each of its parameters comes from."""

    fn: Callable[..., Any]
    where: str
    sources: dict[str, Callable[[Scope], Any]]
    returns: Returns

    @classmethod
    def of(
        cls,
        fn: Callable[..., Any],
        start: MessageType,
        earlier: Sequence[Part] = (),
        *,
        command: MessageType | None = None,
        failing: bool = False,
    ) -> Builder:
        """Understand a function; raises DefinitionError if it wants what there is not."""
        where = f"{place(fn)}: {fn.__name__}"
        if inspect.iscoroutinefunction(fn):
            raise DefinitionError(f"{where}: a conductor decides and stores; make it 'def'")
        hints = hints_of(fn)
        if any(
            one.kind is one.POSITIONAL_ONLY for one in inspect.signature(fn).parameters.values()
        ):
            raise DefinitionError(f"{where}: its parameters are given by name; take the '/' away")
        said = returns(hints.pop("return"), where)
        fixed: dict[Any, Callable[[Scope], Any]] = {
            Connection: lambda scope: scope.db,
            Context: lambda scope: scope.context,
            start: lambda scope: scope.start,
        }
        if command is not None:
            fixed[command] = lambda scope: scope.command
        if failing:
            fixed[Failure] = lambda scope: scope.failure
        sources = {
            name: fixed.get(hint) or _answer(hint, earlier, f"{where}: parameter {name!r}")
            for name, hint in hints.items()
        }
        return cls(fn, where, sources, said)

    @property
    def name(self) -> str:
        """The function's name."""
        return self.fn.__name__

    @property
    def publishes(self) -> tuple[MessageType, ...]:
        """What it may return."""
        return self.returns.kinds

    @property
    def may_be_silent(self) -> bool:
        """Whether it may return nothing."""
        return self.returns.may_be_silent

    @property
    def several(self) -> bool:
        """Whether it may return several messages."""
        return bool(self.returns.several)

    def __call__(self, scope: Scope) -> tuple[Message, ...]:
        """What it returns; raises UndeclaredResultError if that is not what it declares."""
        wants = {name: source(scope) for name, source in self.sources.items()}
        return self.returns.results(self.fn(**wants))


@dataclass(frozen=True, slots=True)
class Part:
    """A step of a conductor, understood; without good answers it waits for nothing."""

    make: Builder
    good: tuple[MessageType, ...] = ()
    bad: tuple[MessageType, ...] = ()
    within: timedelta = field(default=timedelta(0))
    undo: Builder | None = None
    undone: tuple[MessageType, ...] = ()

    @property
    def name(self) -> str:
        """Its function's name."""
        return self.make.name

    @property
    def waits(self) -> bool:
        """Whether it waits for an answer."""
        return bool(self.good)


def _answer(hint: object, earlier: Sequence[Part], where: str) -> Callable[[Scope], Any]:
    """Where the good answers of an earlier step come from."""
    several = get_origin(hint) is tuple and get_args(hint)[1:] == (...,)
    parts = members(get_args(hint)[0] if several else hint)
    maybe = not several and type(None) in parts
    kinds: tuple[MessageType, ...] = ()
    for one in parts:
        if one is not type(None):
            kinds += message_types(one, where)
    of = [part for part in earlier if set(kinds) & set(part.good)]
    if not of:
        raise DefinitionError(f"{where}: no step before it is answered with {hint}")
    if len(of) > 1 or any(part.make.several for part in of):
        needs, fits = f"tuple[{kinds[0].__name__}, ...]", several
    elif of[0].make.may_be_silent:
        needs, fits = f"{kinds[0].__name__} | None", maybe or several
    else:
        needs, fits = kinds[0].__name__, not maybe
    missing = [kind.__name__ for part in of for kind in part.good if kind not in kinds]
    if not fits or missing:
        also = f", also of {', '.join(missing)}" if missing else ""
        raise DefinitionError(f"{where}: make it {needs}{also}")

    def source(scope: Scope) -> Any:
        found = tuple(one for one in scope.answers if type(one) in kinds)
        if several:
            return found
        return found[0] if found else None

    return source


def begin(
    conductor: Conductor, start: Message, db: Connection, context: Context
) -> Sequence[Message]:
    """Begin a run; raises Reject if this was begun in the flow before."""
    store, subject = Runs(db, conductor.name), subject_of(start) or ""
    if store.known(context.flow, subject):
        raise Reject(
            f"{conductor.service.name} conducts {conductor.name} for {subject or 'this flow'} "
            f"already (flow {context.flow})"
        )
    row: Row = {
        "run": context.message_id,
        "flow": context.flow,
        "subject": subject,
        "status": RunStatus.RUNNING.value,
        "stage": 0,
        "start": written(start),
        "failed_step": None,
        "failure": None,
        "moved": context.time.isoformat(),
    }
    store.begin(row)
    reach("conducting")
    return _Run(conductor, row, [], db, context).go_on()


def answered(
    conductor: Conductor,
    part: Part,
    status: TaskStatus,
    message: Message,
    *,
    db: Connection,
    context: Context,
) -> Sequence[Message]:
    """Act on an answer, or (the message is then the command) on the want of one.

    What is not waited for has come late or twice, or is about another's command. What a message
    has just set off, the same message does not answer.
    """
    store = Runs(db, conductor.name)
    task = store.task(context.flow, part.name, subject_of(message) or "")
    awaited = TaskStatus.UNDOING if status is TaskStatus.UNDONE else TaskStatus.ASKED
    if task is None or task["status"] != awaited or task["since"] == context.message_id:
        return ()
    run = _Run(conductor, store.run(task["run"]), store.tasks(task["run"]), db, context)
    return run.settle(task, status, message)


class _Run:
    """One run in hand."""

    def __init__(
        self,
        conductor: Conductor,
        row: Row,
        tasks: list[Row],
        db: Connection,
        context: Context,
    ) -> None:
        self._conductor = conductor
        self._store = Runs(db, conductor.name)
        self._row = row
        self._tasks = tasks
        self._db = db
        self._context = context

    def settle(self, found: Row, status: TaskStatus, message: Message) -> Sequence[Message]:
        """Write down what came of a command, and go on once nothing else is awaited."""
        task = next(
            one for one in self._tasks if all(one[key] == found[key] for key in ("step", "subject"))
        )
        answer = None if status is TaskStatus.LATE else written(message)
        self._store.end_deadline(task)
        self._settle(task, status, task["answer"] if status is TaskStatus.UNDONE else answer)
        failed = status in (TaskStatus.REFUSED, TaskStatus.LATE)
        if failed and self._row["status"] == RunStatus.RUNNING:
            self._move(status=RunStatus.UNDOING.value, failed_step=task["step"], failure=answer)
        reach("conducted")
        if self._awaits(TaskStatus.ASKED) or self._awaits(TaskStatus.UNDOING):
            return ()
        if self._row["status"] == RunStatus.UNDOING:
            return self.take_back()
        self._row["stage"] += 1
        return self.go_on()

    def go_on(self) -> list[Message]:
        """Send what comes next, up to the next answer that is awaited, or to the end."""
        stages, said = self._conductor.stages, list[Message]()
        while self._row["stage"] < len(stages):
            for part in stages[self._row["stage"]]:
                said += self._send(part)
            if self._awaits(TaskStatus.ASKED):
                self._move(stage=self._row["stage"])
                return said
            self._row["stage"] += 1
        self._move(stage=self._row["stage"], status=RunStatus.DONE.value)
        return [*said, *self._conductor.ends(self._scope())]

    def take_back(self) -> list[Message]:
        """Undo what was done, newest first, up to the next answer that is awaited.

        First of all what was not answered in time: nobody here knows whether it was done.
        """
        said: list[Message] = []
        parts = {part.name: part for stage in self._conductor.stages for part in stage}
        late = [one for one in self._tasks if one["status"] == TaskStatus.LATE]
        done = [one for one in self._tasks if one["status"] == TaskStatus.DONE]
        for task in sorted(late, key=_newest) + sorted(done, key=_newest):
            part = parts.get(task["step"])
            if part is None:
                raise Reject(f"{self._conductor!r} has no step {task['step']} any more to undo")
            if part.undo is None:
                continue
            sent = part.undo(self._scope(task))
            said += sent
            if sent and part.undone and task["status"] == TaskStatus.DONE:
                self._settle(task, TaskStatus.UNDOING, task["answer"])
                return said
            self._settle(task, TaskStatus.UNDONE, task["answer"])
        self._move(status=RunStatus.FAILED.value)
        fails = self._conductor.fails
        return [*said, *(fails(self._scope()) if fails else ())]

    def _send(self, part: Part) -> tuple[Message, ...]:
        """What a step sends, and the memory of it."""
        sent = part.make(self._scope())
        rows: dict[str, Row] = {}
        for one in sent if part.waits else ():
            subject = subject_of(one) or ""
            if subject in rows or self._store.task(self._row["flow"], part.name, subject):
                raise Reject(
                    f"{part.name} asks twice about {subject or 'nothing'} in flow "
                    f"{self._row['flow']}: the answers could not be told apart; give each command "
                    "a subject of its own"
                )
            rows[subject] = {
                "flow": self._row["flow"],
                "step": part.name,
                "subject": subject,
                "run": self._row["run"],
                "conductor": self._conductor.name,
                "status": TaskStatus.ASKED.value,
                "since": self._context.message_id,
                "number": len(self._tasks) + len(rows),
                "answered": 0,
                "command": written(one),
                "answer": None,
            }
        if rows:
            self._store.ask(list(rows.values()))
            self._tasks += rows.values()
        return sent

    def _awaits(self, status: TaskStatus) -> bool:
        return any(one["status"] == status for one in self._tasks)

    def _settle(self, task: Row, status: TaskStatus, answer: str | None) -> None:
        order = 1 + max(one["answered"] for one in self._tasks)
        changed = {
            "status": status.value,
            "answer": answer,
            "answered": order,
            "since": self._context.message_id,
        }
        task.update(changed)
        self._store.settle(task, **changed)

    def _move(self, **values: Any) -> None:
        values["moved"] = self._context.time.isoformat()
        self._row.update(values)
        self._store.move(self._row["run"], **values)

    def _scope(self, task: Row | None = None) -> Scope:
        """What is known now; with a task, what its undo may want."""
        failure = self._row["failure"]
        step = self._row["failed_step"]
        return Scope(
            db=self._db,
            context=self._context,
            start=read(self._row["start"]),
            answers=[
                read(one["answer"]) for one in self._tasks if one["status"] == TaskStatus.DONE
            ],
            failure=step and Failure(step, None if failure is None else read(failure)),
            command=None if task is None else read(task["command"]),
        )


def _newest(task: Row) -> tuple[int, int]:
    return (-task["answered"], -task["number"])
