"""Says what a fault is and what to do about it, for the person who reads it."""

from __future__ import annotations

from choreo.check.choreography import name
from choreo.check.finding import Rule
from choreo.check.model import Model
from choreo.check.verdict import Fault

#: By rule, what is wrong and what to do; the numbers stand for what the fault is about.
_WORDS = {
    Rule.NO_END: (
        "a run of it comes to rest and has none of its ends",
        "let whoever acts last announce an end, or set a deadline that does",
    ),
    Rule.UNREACHED_END: (
        "no run of it ends as {1} ({2})",
        "let something that the flow comes to announce it, or take it out of the flow",
    ),
    Rule.TWO_ENDS: (
        "a run of it ends twice, the second time by {0}",
        "let its service decide in one row, and the handler return None if the flow has ended",
    ),
    Rule.TWO_DECIDERS: (
        "{0} and {1} both end one run of it",
        "let one service decide how the flow ends; the others tell it what they know",
    ),
    Rule.UNDECLARED_FAILURE: (
        "{1}, and the flow does not declare that it then fails",
        "declare it, where the flow is: fails={2}",
    ),
    Rule.LEFT_UNDONE: (
        "a run of it fails, and what {0} did stays done",
        "let its undo hear the event by which the flow fails, about the same subject",
    ),
    Rule.OVERTAKEN: (
        "what takes {0} back comes first, and {0} runs all the same: it stays done",
        "make what takes it back its undo, with causes of the same subject or of none",
    ),
    Rule.PIVOT: (
        "{0} cannot be undone, and may run after {1}",
        "keep it from that: @service.on(final=..., unless={1}); or hear the end instead",
    ),
    Rule.ENDLESS_CYCLE: (
        "{0} sets itself off again, and nothing bounds how often",
        "let a deadline end the flow, and that end stop a step of the cycle (unless, or its undo)",
    ),
}
#: What has no deadline: a call, a conductor, or an undo that has one, but far too late.
_NO_DEADLINE = {
    1: (
        "if {0} is never answered (it ends as a dead letter), the flow waits for ever",
        "set a deadline that ends the flow, where its end is decided",
    ),
    2: (
        "the conductor {1} waits for ever for the answer that {0} takes",
        "let who is asked answer in every case, with what the conductor's table awaits",
    ),
    3: (
        "{1} may have to undo what its service has forgotten, as {0} comes so late",
        "let it come within the {2} days that a flow is remembered (CHOREO_RETENTION_DAYS)",
    ),
}


def in_words(model: Model, fault: Fault) -> tuple[str, str, str]:
    """What is wrong, what to do, and where (`file:line`)."""
    if fault.rule is Rule.NO_DEADLINE:
        what, do = _NO_DEADLINE[len(fault.about)]
    else:
        what, do = _WORDS[fault.rule]
    about = fault.about
    if fault.rule is Rule.UNDECLARED_FAILURE:
        about = (*about, _undone_by(model, *about), str(sorted({*model.flow.fails, *about})))
    places = {name(one): one.place for one in model.choreography.handlers}
    place = places.get(about[0] if about else "", model.flow.place)
    return what.format(*about), do.format(*about), place


def _undone_by(model: Model, word: str) -> str:
    """What an end undoes, and which conductors say it when they fail."""
    end = model.flow.ends[word]
    undone = [
        name(step)
        for step in (model.step(number) for number in model.watches)
        if model.comes & model.watches[model.number[step]].triggers
        and step.taken_back_by is not None
        and end in step.taken_back_by.signature.consumes
    ]
    said = [f"{end.__name__} undoes {', '.join(undone)}"] if undone else []
    tables = [one.name for one in model.conductors if one.fails and end in one.fails.publishes]
    said += [f"the conductor {one} fails with {end.__name__}" for one in tables]
    return ", and ".join(said)
