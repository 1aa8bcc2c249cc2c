"""`choreo rehearse`: play the real services through hostile schedules, in a simulated world."""

from __future__ import annotations

import gc
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from choreo import discovery
from choreo.cli import frame
from choreo.errors import CannotRunError
from choreo.rehearse import show
from choreo.rehearse.campaign import Campaign, Failure, given
from choreo.rehearse.project import Project, modules_of, project
from choreo.rehearse.schedule import Decision
from choreo.rehearse.stage import Stage
from choreo.rehearse.trace import STORIES, Trace, Tracing, read, shown
from choreo.settings import Settings

_RUNS = 1000
_INTERRUPTED = 130


def rehearse(  # noqa: PLR0917 - typer gives them by name
    runs: Annotated[
        int | None, typer.Option(min=1, help=f"How many schedules. [default: {_RUNS}]")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.001, help="So long instead of so many.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="This schedule alone; with --runs or --minutes: from it on.")
    ] = None,
    flow: Annotated[
        list[str] | None, typer.Option("--flow", help="The stories of this flow alone; repeatable.")
    ] = None,
    schedule: Annotated[
        Path | None, typer.Option(help="Play the decisions in this file, as --json printed them.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(help="Replay the traces in this file, as 'choreo check --json' printed them."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Play the real services through schedules in which everything goes wrong, and judge the end.

    All run in this process, with a simulated broker, clock and outside world: messages come late,
    twice, in another order; processes die at every boundary; calls fail or hang. Then all must
    settle, each flow have one end, and whatever the audit and your invariants say hold.

    A seed is a schedule, the same on every machine. The first that goes wrong is made as small as
    it can be and shown, with exit code 1.

    With --trace ("-": standard input) the order is that of a finding of choreo check, and each
    seed is a story (500, or --runs): exit code 1 if in one the services really do what it says.
    """
    settings = frame.prepare()
    first = 1 if seed is None else seed
    if trace is not None:
        if schedule is not None or minutes is not None:
            raise CannotRunError("--trace goes with --seed, --runs and --flow alone")
        tried = range(first, first + (runs or STORIES))
        _retrace(settings, trace, flow or [], tried, as_json=as_json)
        return
    if runs is not None and minutes is not None:
        raise CannotRunError("--runs or --minutes: give one of them")
    if schedule is not None and (runs, minutes, seed) != (None, None, None):
        raise CannotRunError("--schedule goes with --flow alone: it is one schedule")
    with redirect_stdout(sys.stderr):  # whatever the project's code prints
        campaign = Campaign(Stage(_project(settings, flow or []), settings))
        _freeze()
        is_over = True
        if schedule is not None:
            _play_given(campaign, schedule)
        else:
            alone = seed is not None and runs is None and minutes is None
            is_over = _play(campaign, first, 1 if alone else runs or _RUNS, minutes)
    again = f"choreo rehearse --seed {campaign.failure.outcome.seed}" if campaign.failure else ""
    if schedule is not None:
        again = f"choreo rehearse --schedule {schedule}"
    _report(campaign, again + "".join(f" --flow {one}" for one in flow or []), as_json=as_json)
    if not is_over:
        raise typer.Exit(_INTERRUPTED)
    if campaign.failure is not None:
        raise typer.Exit(frame.FOUND_SOMETHING)


def _freeze() -> None:
    """What is there for good is not looked through again and again."""
    gc.collect()
    gc.freeze()


def _project(settings: Settings, flows: list[str]) -> Project:
    if settings.rehearsals is None:
        raise CannotRunError(
            "no rehearsals: name the module with your stories, stand-ins and invariants in "
            'pyproject.toml ([tool.choreo] rehearsals = "rehearsals"); docs/rehearse.md shows one'
        )
    found = project(
        discovery.services(settings), discovery.flows(settings), *modules_of(settings.rehearsals)
    )
    return found.only(flows) if flows else found


def _play_given(campaign: Campaign, file: Path) -> None:
    """Play the decisions of a file; raises CannotRunError if they are of other stories."""
    seed, decisions = _read(file)
    known = [one.name for one in campaign.stage.project.stories]
    for one in decisions:
        if one.kind == "story" and one.about not in known:
            raise CannotRunError(
                f"{file} tells the story {one.about!r}, and there is {', '.join(known)}: "
                "it is a schedule of another flow, or the story has another name now"
            )
    outcome = campaign.stage.play(seed, decisions)
    campaign.summary.take(outcome)
    campaign.failure = Failure(outcome, outcome) if outcome.wrong else None


def _play(campaign: Campaign, seed: int, runs: int, minutes: float | None) -> bool:
    """Play seeds; False if it was interrupted."""
    until = None if minutes is None else time.monotonic() + minutes * 60
    seeds: Iterator[int] = itertools.count(seed)

    def is_late() -> bool:
        return until is not None and time.monotonic() >= until

    if until is None:
        seeds = itertools.islice(seeds, runs)
    else:
        seeds = itertools.takewhile(lambda _: not is_late(), seeds)
    try:
        with _bar() as bar:
            task = bar.add_task("schedules", total=runs if until is None else None)
            for outcome in campaign.run(seeds, is_late):
                bar.advance(task)
                if outcome.wrong:
                    bar.update(task, description=f"seed {outcome.seed} goes wrong: made smaller")
                    bar.refresh()
    except KeyboardInterrupt:
        print("interrupted: this is what was played so far", file=sys.stderr)
        return False
    return True


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}"),
        TimeElapsedColumn(), console=Console(stderr=True), transient=True,
        disable=not sys.stderr.isatty(),
    )  # fmt: skip


def _retrace(
    settings: Settings, file: Path, flows: list[str], seeds: Sequence[int], *, as_json: bool
) -> None:
    """Replay the traces of a file; exit code 1 if one of them really happens."""
    traces = [one for one in _traces(file) if not flows or one.flow in flows]
    if not traces:
        raise CannotRunError(f"{file} has no trace of {', '.join(flows)}")
    with redirect_stdout(sys.stderr):  # whatever the project's code prints
        stage = Tracing(_project(settings, []), settings)
        _freeze()
        with _bar() as bar:
            task = bar.add_task("stories", total=len(traces) * len(seeds))
            replays = [stage.replay(one, seeds, lambda: bar.advance(task)) for one in traces]
    if as_json:
        said = {"replays": [one.as_json() for one in replays]}
        print(json.dumps(said, indent=2, ensure_ascii=False))
    else:
        for one in replays:
            shown(frame.console(), one)
    if any(one.happens for one in replays):
        raise typer.Exit(frame.FOUND_SOMETHING)


def _traces(file: Path) -> list[Trace]:
    try:
        text = sys.stdin.read() if file == Path("-") else file.read_text(encoding="utf-8")
        return read(json.loads(text))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotRunError(
            f"{file} is no trace ({error!r}): give what 'choreo check --json' printed, or one "
            "finding of it"
        ) from error


def _read(file: Path) -> tuple[int, list[Decision]]:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        said = said.get("failure") or said
        return int(said["seed"]), given(said["decisions"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CannotRunError(
            f"{file} is no schedule ({error!r}): give what 'choreo rehearse --json' printed"
        ) from error


def _report(campaign: Campaign, again: str, *, as_json: bool) -> None:
    failure = campaign.failure
    if as_json:
        said = {
            "failure": failure and failure.as_json(),
            "summary": campaign.summary.as_json(campaign.stage),
        }
        print(json.dumps(said, indent=2, ensure_ascii=False))
        return
    console = frame.console()
    show.summary(console, campaign.summary, campaign.stage)
    if failure is not None:
        show.failure(console, failure, again)
