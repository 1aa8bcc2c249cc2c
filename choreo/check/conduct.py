"""How a run of a conductor goes on, by its table: the same steps as `choreo.conducting` takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from choreo.check.alternatives import SAME, choices
from choreo.check.model import Model
from choreo.check.state import Run, Task
from choreo.conducting import Builder, Part
from choreo.conductor import Conductor
from choreo.store.runs import RunStatus, TaskStatus

_ENDINGS = {
    TaskStatus.DONE: "done",
    TaskStatus.REFUSED: "failed",
    TaskStatus.LATE: "late",
    TaskStatus.UNDONE: "done",
}
#: A run as it stands then, and what it sends: kind and subject.
Sent = tuple[tuple[int, int], ...]
Onward = tuple[Run, Sent]


class Conducting:
    """One conductor, as one flow sees it."""

    def __init__(self, model: Model, number: int) -> None:
        self.number = number
        self.conductor: Conductor = model.conductors[number]
        self.starts = model.index[self.conductor.starts]
        self._model = model
        #: Every step of it; a task names its own by the place here.
        self.parts = [part for stage in self.conductor.stages for part in stage]
        self._numbers = {id(part): place for place, part in enumerate(self.parts)}
        self.commands = [model.index[part.make.publishes[0]] for part in self.parts]
        self._answers: dict[int, list[tuple[int, TaskStatus]]] = {}
        for place, part in enumerate(self.parts):
            for kinds, status in (
                (part.good, TaskStatus.DONE),
                (part.bad, TaskStatus.REFUSED),
                (part.undone, TaskStatus.UNDONE),
            ):
                for kind in kinds:
                    self._answers.setdefault(model.index[kind], []).append((place, status))

    def begin(self, about: int) -> Iterator[Onward]:
        """Begin a run."""
        run = Run(self.number, about, RunStatus.RUNNING, 0, ())
        yield from self._go_on(run, ())

    def awaited(self, run: Run, kind: int, about: int) -> list[tuple[Task, TaskStatus]]:
        """The tasks of a run that a message answers, and how they stand then."""
        found = []
        for part, status in self._answers.get(kind, ()):
            waits = TaskStatus.UNDOING if status is TaskStatus.UNDONE else TaskStatus.ASKED
            found += [
                (task, status)
                for task in run.tasks
                if task.part == part and task.about == about and task.status == waits
            ]
        return found

    def may_be_late(self, task: Task, *, is_long: bool) -> bool:
        """Whether the conductor may stop waiting: soon, or after a long time."""
        within = self.parts[task.part].within
        return task.status == TaskStatus.ASKED and self._model.is_long(within) == is_long

    def handler(self, task: Task, status: TaskStatus) -> str:
        """The handler that was derived for this, as `service.handler`."""
        part, ending = self.parts[task.part], _ENDINGS[status]
        of = part.undo if status is TaskStatus.UNDONE and part.undo else part.make
        return f"{self.conductor.service.name}.{of.name}_{ending}"

    def settle(self, run: Run, task: Task, status: TaskStatus) -> Iterator[Onward]:
        """Write down what came of a command, and go on once nothing else is awaited."""
        run = _settled(run, task, status)
        if status in (TaskStatus.REFUSED, TaskStatus.LATE) and run.status == RunStatus.RUNNING:
            run = run._replace(status=RunStatus.UNDOING)
        if run.awaits(TaskStatus.ASKED) or run.awaits(TaskStatus.UNDOING):
            yield run, ()
        elif run.status == RunStatus.UNDOING:
            yield from self._take_back(run, ())
        else:
            yield from self._go_on(run._replace(stage=run.stage + 1), ())

    def settle_all(self, run: Run, awaited: Sequence[tuple[Task, TaskStatus]]) -> Iterator[Onward]:
        """Write down what one message says to several tasks, one after the other."""
        (task, status), *others = awaited
        for onward, sent in self.settle(run, task, status):
            if still := [one for one in others if one[0] in onward.tasks]:
                for further, more in self.settle_all(onward, still):
                    yield further, (*sent, *more)
            else:
                yield onward, sent

    def _go_on(self, run: Run, sent: Sent) -> Iterator[Onward]:
        """Send what comes next, up to the next answer that is awaited, or to the end."""
        stages = self.conductor.stages
        if run.stage == len(stages):
            done = run._replace(status=RunStatus.DONE, tasks=())
            for said in self._said(self.conductor.ends, run):
                yield done, (*sent, *said)
            return
        for sends in product(*(self._said(part.make, run) for part in stages[run.stage])):
            tasks, more = list(run.tasks), sent
            for part, made in zip(stages[run.stage], sends, strict=True):
                # About one subject it must not ask twice.
                said = tuple(dict.fromkeys(made)) if part.waits else made
                if part.waits:
                    tasks += [Task(self._place(part), about, TaskStatus.ASKED) for _, about in said]
                more += said
            on = run._replace(tasks=tuple(tasks))
            if on.awaits(TaskStatus.ASKED):
                yield on, more
            else:
                yield from self._go_on(on._replace(stage=on.stage + 1), more)

    def _take_back(self, run: Run, sent: Sent) -> Iterator[Onward]:
        """Undo what was done, newest first, up to the next answer that is awaited."""
        late = [one for one in run.tasks if one.status == TaskStatus.LATE]
        done = [one for one in run.tasks if one.status == TaskStatus.DONE]
        numbers = {task: number for number, task in enumerate(run.tasks)}
        for task in (*late, *sorted(done, key=lambda one: (-one.answered, -numbers[one]))):
            part = self.parts[task.part]
            if part.undo is None:
                run = _settled(run, task, TaskStatus.UNDONE)
                continue
            for said in self._said(part.undo, run, task):
                more = (*sent, *said)
                if said and part.undone and task.status == TaskStatus.DONE:
                    yield _settled(run, task, TaskStatus.UNDOING), more
                else:
                    yield from self._take_back(_settled(run, task, TaskStatus.UNDONE), more)
            return
        failed, fails = run._replace(status=RunStatus.FAILED, tasks=()), self.conductor.fails
        for said in self._said(fails, run) if fails else [()]:
            yield failed, (*sent, *said)

    def _said(self, builder: Builder, run: Run, task: Task | None = None) -> Sequence[Sent]:
        """What a function of the conductor may return."""
        start, model = self._model.subject(self.starts), self._model
        found = []
        for alternative in choices(builder.returns, model.index, start):
            said = [(kind, run.about if about == SAME else about) for kind, about in alternative]
            if task is not None:
                command = model.subject(self.commands[task.part])
                said = [
                    (kind, task.about if model.subject(kind) == command else about)
                    for kind, about in said
                ]
            found.append(tuple(said))
        # Several side by side stand for any number of them, but for none unless that is said.
        may_be_none = builder.returns.none or not builder.several
        return [one for one in found if one or may_be_none] or [()]

    def _place(self, part: Part) -> int:
        return self._numbers[id(part)]


def _settled(run: Run, task: Task, status: TaskStatus) -> Run:
    order = 1 + max(one.answered for one in run.tasks) if status is TaskStatus.DONE else 0
    tasks = [
        one._replace(status=status, answered=order) if one == task else one for one in run.tasks
    ]
    return run._replace(tasks=tuple(tasks))
