"""Finds the branches of a flow: steps that are set off by the rest of it, and never act on it."""

from __future__ import annotations

from choreo.check.model import Model


def branches(model: Model) -> list[frozenset[int]]:
    """Steps that nobody else acts on, by their numbers; those that act on each other together."""
    acts = {number: _acts_on(model, number) for number in model.watches}
    found = {number: others for number, others in acts.items() if others is not None}
    while outside := [one for one, others in found.items() if not others <= found.keys()]:
        for one in outside:
            del found[one]
    together: list[frozenset[int]] = []
    for one, others in found.items():
        group = others | {one}
        joined = [other for other in together if other & group]
        together = [other for other in together if other not in joined]
        together.append(group.union(*joined))
    return together


def _acts_on(model: Model, number: int) -> frozenset[int] | None:
    """The steps that hear what a step or its undo says; None if it does more than have them act."""
    step, watch = model.step(number), model.watches[number]
    undo = step.taken_back_by
    said = {*step.signature.publishes, *(undo.signature.publishes if undo else ())}
    kinds = {model.index[kind] for kind in said}
    own = {kind for name, kind in (*model.arms, *model.untils) if name == step.service.name}
    if not watch.receivers or watch.takes_back or watch.is_plainly or number in model.capped:
        return None
    if kinds & (own | model.ends.keys()):
        return None
    heard = [one for kind in kinds for one in model.to.get(kind, ())]
    if any(one.of not in model.watches for one in heard):
        return None
    return frozenset(one.of for one in heard)
