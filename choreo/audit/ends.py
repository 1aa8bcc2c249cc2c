"""Judges ends: each flow ends once, in one of the ways that its process declares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from choreo.audit.evidence import Evidence, Trace
from choreo.audit.finding import Finding, Severity
from choreo.flow import Flow


def ends(processes: Sequence[Flow]) -> Callable[[Evidence], Iterator[Finding]]:
    """The check that every flow that began as one of these has ended once, and as it may."""

    def check(evidence: Evidence) -> Iterator[Finding]:
        for flow in evidence.ended.values():
            begun = _begun_as(evidence, flow, processes)
            found = [_ends_of(process, flow) for process in begun]
            if not found or any(len(one) == 1 for one in found):
                continue
            said = found[0]
            # Who has never run may have the next step.
            waits = not said and evidence.absent
            yield Finding(
                "end",
                f"{begun[0].name} ended {len(said)} times: {', '.join(said) or 'in no way'}",
                flow=flow.id,
                handler=min(evidence.begun_by(flow.id)),
                severity=Severity.OPEN if waits else Severity.WRONG,
            )

    return check


def _begun_as(evidence: Evidence, flow: Trace, processes: Sequence[Flow]) -> list[Flow]:
    """The process that the flow's first message starts; several, if nothing says which it was."""
    first = evidence.messages.get(flow.id)
    # A command is in no journal, but those who answer it name it.
    types = {one.envelope.command for one in flow.announced if one.envelope.causation == flow.id}
    types = {first.envelope.type} if first else types - {None}
    taken = evidence.begun_by(flow.id)
    heard = {
        contract
        for kept in evidence.kept.values()
        for handler in kept.service.handlers.values()
        if f"{kept.service.name}.{handler.name}" in taken
        for contract in handler.signature.consumes
    }
    begun = [one for one in processes if one.starts in heard]
    return [one for one in begun if one.starts.__address__.wire_type in types] or begun


def _ends_of(process: Flow, flow: Trace) -> list[str]:
    """Each time that the flow has ended as this process does."""
    allowed = {end.__address__.wire_type for end in process.ends.values()}
    return [one.envelope.type for one in flow.announced if one.envelope.type in allowed]
