"""Puts all checks to the evidence, and the project's own, and sums up."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from choreo.audit import effects, messages, unfinished
from choreo.audit.evidence import Evidence
from choreo.audit.finding import Finding, Severity
from choreo.errors import CannotRunError

Check = Callable[[Evidence], Iterable[Finding]]

#: What must be true of every project.
CHECKS: tuple[Check, ...] = (
    messages.clashes,
    messages.phantoms,
    messages.gaps,
    messages.cycles,
    messages.missing,
    messages.answers,
    effects.undone,
    effects.stopped,
    effects.deadlines,
    unfinished.stuck,
    unfinished.twice,
    unfinished.letters,
    unfinished.runs,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an audit has looked at, and what it found."""

    #: All flows that are known of, and those of them that were judged.
    flows: int
    judged: int
    #: Events of the judged flows, and what handlers did for messages of them.
    messages: int
    effects: int
    #: Services that have never run here.
    absent: tuple[str, ...]
    findings: tuple[Finding, ...]

    def of(self, severity: Severity) -> list[Finding]:
        """The findings of this severity."""
        return [one for one in self.findings if one.severity is severity]

    @property
    def wrong(self) -> list[Finding]:
        """The promises that are broken."""
        return self.of(Severity.WRONG)

    def as_json(self) -> dict[str, Any]:
        """What a machine is told."""
        return {
            "flows": self.flows,
            "judged": self.judged,
            "messages": self.messages,
            "effects": self.effects,
            "absent": self.absent,
            **{one.value: len(self.of(one)) for one in Severity},
            "findings": [one.as_json() for one in self.findings],
        }


def judge(evidence: Evidence, checks: Sequence[Check] = ()) -> Verdict:
    """Put choreo's checks to the evidence, then those given, which may ask what has ended."""
    found = [one for check in CHECKS for one in check(evidence)]
    evidence.unfinished.update(
        one.flow for one in found if one.flow is not None and one.severity is not Severity.WRONG
    )
    found += (one for check in checks for one in check(evidence))
    if evidence.only is not None:
        found = [one for one in found if one.flow in evidence.judged]
    judged = evidence.judged.values()
    order = list(Severity)
    return Verdict(
        flows=len(evidence.flows),
        judged=len(evidence.judged),
        messages=sum(len(flow.announced) for flow in judged),
        effects=sum(row.status == "done" for flow in judged for _, row in flow.inbox),
        absent=tuple(evidence.absent),
        findings=tuple(sorted(found, key=lambda one: (order.index(one.severity), one.flow or ""))),
    )


def project_audits(module: str | None) -> list[Check]:
    """The project's own checks: the functions that its module names in `__all__`.

    Raises CannotRunError if the module cannot be imported or names none.
    """
    if module is None:
        return []
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise CannotRunError(
            f"[tool.choreo] audits: {module} cannot be imported: {error}"
        ) from error
    checks = [getattr(found, name) for name in getattr(found, "__all__", ())]
    if not checks or not all(map(inspect.isfunction, checks)):
        raise CannotRunError(
            f"[tool.choreo] audits: {module} should name in __all__ functions that take the "
            "evidence and yield findings"
        )
    return checks
