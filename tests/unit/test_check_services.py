"""Tests that the check finds what is done wrong in real services, one fault at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from choreo import Conductor, Service, discovery
from choreo.check import Choreography, Finding, Rule, check
from choreo.service import Handler, Step
from choreo.settings import load
from contracts.inventory import StockRejected
from contracts.providers import CancelLeg
from services import (
    crm,
    inventory,
    notifications,
    order_process,
    orders,
    payments,
    providers,
    reservations,
    shipping,
)

Patch = pytest.MonkeyPatch
Mutant = Callable[[Patch], None]


def anew(patch: Patch) -> None:
    """Have every service find its routes anew: it keeps them."""
    for service in discovery.services(load()):
        patch.setattr(service, "_routes", None, raising=False)


def _says(patch: Patch, handler: Handler[..., Any], **returns: Any) -> None:
    """It returns something else than it did."""
    signature = handler.signature
    changed = replace(signature, returns=replace(signature.returns, **returns))
    patch.setattr(handler, "signature", changed)


def _hears(patch: Patch, handler: Handler[..., Any], *kinds: Any) -> None:
    patch.setattr(handler, "signature", replace(handler.signature, consumes=kinds))


def _forget(patch: Patch, service: Service, name: str) -> None:
    patch.delitem(service.handlers, name)


def _forget_undo(patch: Patch, step: Step[..., Any]) -> None:
    assert step.taken_back_by is not None
    _forget(patch, step.service, step.taken_back_by.name)
    patch.setattr(step, "taken_back_by", None)


def the_mail_goes_out_whatever_was_cancelled(patch: Patch) -> None:
    patch.setattr(notifications.confirm, "unless", ())


def no_deadline_ends_an_order(patch: Patch) -> None:
    _forget(patch, orders.service, "expire")


def no_deadline_ends_the_wait_for_a_price(patch: Patch) -> None:
    _forget(patch, reservations.service, "quote_late")


def an_order_is_fulfilled_whatever_it_was(patch: Patch) -> None:
    _says(patch, orders.fulfil, none=False)


def the_parcel_is_never_recalled(patch: Patch) -> None:
    _forget_undo(patch, shipping.book)


def stock_is_given_back_only_if_it_lacked(patch: Patch) -> None:
    _hears(patch, inventory.release, StockRejected)


def legs_are_cancelled_only_by_command(patch: Patch) -> None:
    _hears(patch, providers.cancel, CancelLeg)


def the_refund_is_not_announced(patch: Patch) -> None:
    _says(patch, payments.give_back, single=(), none=True)


def the_conductor_does_not_give_stock_back(patch: Patch) -> None:
    conductor: Conductor = order_process.process
    first, [part], *others = conductor.stages
    patch.setattr(conductor, "stages", [first, [replace(part, undo=None, undone=())], *others])


def the_stock_is_given_back_by_a_step_of_its_own(patch: Patch) -> None:
    undo = inventory.hold.taken_back_by
    assert undo is not None
    signature = replace(undo.signature, outcomes=())
    step: Step[..., Any] = Step(inventory.service, undo.fn, signature, "step")
    step.final = "it gives back what is held"
    patch.setattr(inventory.hold, "taken_back_by", None)
    patch.setattr(inventory.hold, "final", "the other step gives it back")
    patch.setitem(inventory.service.handlers, undo.name, step)


def a_refund_may_fail_and_says_so(patch: Patch) -> None:
    declined = payments.capture.signature.returns.single[1]
    refunded = payments.refund.signature.returns.single[0]
    _says(patch, payments.refund, single=(refunded, declined))
    _hears(patch, orders.cancel, *set(orders.cancel.signature.consumes) - {declined})


def nobody_opens_a_profile(patch: Patch) -> None:
    _says(patch, crm.open_profile, single=(), none=True)


_MUTANTS: list[tuple[Mutant, str, Rule, str]] = [
    (the_mail_goes_out_whatever_was_cancelled, "order", Rule.PIVOT, "notifications.confirm"),
    (no_deadline_ends_an_order, "order", Rule.NO_DEADLINE, "payments.capture"),
    (no_deadline_ends_an_order, "order", Rule.NO_DEADLINE, "shipping.book"),
    (no_deadline_ends_the_wait_for_a_price, "reservation", Rule.NO_DEADLINE, "providers.quote"),
    (an_order_is_fulfilled_whatever_it_was, "order", Rule.TWO_ENDS, "orders.fulfil"),
    (the_parcel_is_never_recalled, "order", Rule.NO_UNDO, "shipping.book"),
    (stock_is_given_back_only_if_it_lacked, "order", Rule.LEFT_UNDONE, "inventory.reserve"),
    (legs_are_cancelled_only_by_command, "trip", Rule.LEFT_UNDONE, "providers.book"),
    (the_refund_is_not_announced, "conducted_order", Rule.NO_DEADLINE, "order_process.refund_done"),
    (the_conductor_does_not_give_stock_back, "conducted_order", Rule.LEFT_UNDONE, "inventory.hold"),
    (the_stock_is_given_back_by_a_step_of_its_own, "conducted_order", Rule.OVERTAKEN,
     "inventory.hold"),
    (a_refund_may_fail_and_says_so, "order", Rule.FALLIBLE_UNDO, "payments.refund"),
    (nobody_opens_a_profile, "registration", Rule.UNPUBLISHED, "ProfileOpened"),
]  # fmt: skip


@pytest.mark.parametrize(("mutant", "flow", "rule", "about"), _MUTANTS)
def test_the_fault_is_found(
    mutant: Mutant, flow: str, rule: Rule, about: str, monkeypatch: Patch
) -> None:
    assert not _found(flow, rule, about)
    mutant(monkeypatch)
    anew(monkeypatch)
    assert _found(flow, rule, about)


def _found(name: str, rule: Rule, about: str) -> list[Finding]:
    choreography = Choreography.of(load())
    flows = [flow for flow in choreography.flows if flow.name == name]
    found = check(choreography, flows).findings
    return [one for one in found if one.rule is rule and about in one.what]
