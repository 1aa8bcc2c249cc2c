"""Shows a person what a rehearsal came to: what was explored, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from choreo.rehearse.campaign import Failure, Summary
from choreo.rehearse.stage import Stage

#: So many of a kind are for a person to read.
_SHOWN = 12


def failure(console: Console, found: Failure, command: str) -> None:
    """What went wrong, the least that makes it so, and the flows as `choreo watch` shows them."""
    smallest = found.smallest
    for one in smallest.wrong[:_SHOWN]:
        console.print(Text(str(one), style="bold red"), soft_wrap=True)
    if len(smallest.wrong) > _SHOWN:
        console.print(f"and {len(smallest.wrong) - _SHOWN} more")
    if found.besides:
        console.print(f"before it was made smaller also: {', '.join(found.besides)}")
    many = len(found.outcome.decisions)
    console.print(
        f"seed {found.outcome.seed}: of its {many} decisions {len(smallest.decisions)} make it go "
        "wrong; all else goes plainly"
    )
    for at, what in smallest.events:
        console.print(f"  {at:9.3f} s  {what}", soft_wrap=True)
    for tree in smallest.trees:
        console.print(tree.as_tree(), soft_wrap=True)
    console.print(f"again: {command}", soft_wrap=True)


def summary(console: Console, found: Summary, stage: Stage) -> None:
    """What was explored, and what was never reached."""
    for line in _lines(found, stage):
        console.print(line, soft_wrap=True)


def _lines(found: Summary, stage: Stage) -> Iterator[str]:
    yield (
        f"{found.schedules} schedules, {len(found.states)} distinct states, "
        f"{len(found.end_states)} distinct ends of all; in {found.rough} of them a crash, a "
        "duplicate and an undo"
    )
    faults = ", ".join(f"{many} {kind}" for kind, many in sorted(found.faults.items()))
    yield f"faults: {faults or 'none'}"
    ends = ", ".join(f"{flow} {end} {many}" for (flow, end), many in sorted(found.ends.items()))
    yield f"ends: {ends or 'none'}"
    if found.schedules <= 1:
        return
    if stage.project.untold:
        yield f"no story starts: {', '.join(stage.project.untold)}"
    for what, names in found.never(stage).items():
        if names:
            yield f"never reached, {what}: {', '.join(names)}"
