"""Tests how a project declares what its processes start with and end in."""

from __future__ import annotations

import re
from typing import Any

import pytest

from choreo import Command, DefinitionError, Event, Flow
from choreo.discovery import flows, services
from choreo.flow import flows as flows_of
from choreo.settings import load
from contracts.orders import OrderCancelled, OrderFulfilled, OrderRejected, PlaceOrder


class Sow(Command, topic="garden.sow"):
    """Begin."""


class Reaped(Event, topic="garden.reaped"):
    """Ended well."""


class Withered(Event, topic="garden.withered"):
    """Ended badly."""


class Nameless(Event):
    """Has no topic."""


def test_the_flows_of_the_project() -> None:
    found = {flow.name: flow for flow in flows(load())}
    assert set(found) == {"order", "conducted_order", "registration", "reservation", "trip"}
    assert found["order"].starts is PlaceOrder
    assert found["order"].ends == {
        "fulfilled": OrderFulfilled, "cancelled": OrderCancelled, "rejected": OrderRejected,
    }  # fmt: skip


def test_every_flow_of_the_project_begins_and_ends_somewhere() -> None:
    heard, published = set(), set()
    for service in services(load()):
        for handler in service.handlers.values():
            heard |= set(handler.signature.consumes)
            published |= set(handler.signature.publishes)
    for flow in flows(load()):
        assert flow.starts in heard
        assert set(flow.ends.values()) <= published


def test_a_flow_knows_where_it_is_declared() -> None:
    flow = Flow("garden", starts=Sow, ends={"reaped": Reaped})
    assert re.fullmatch(rf"{re.escape(__file__)}:\d+", flow.place)
    assert flows_of(__name__) == [flow]
    with pytest.raises(DefinitionError, match="'garden' is there already"):
        Flow("garden", starts=Sow, ends={"reaped": Reaped})


def test_it_fails_only_as_it_ends() -> None:
    flow = Flow("frost", starts=Sow, ends={"withered": Withered}, fails=["withered"])
    assert flow.fails == {"withered"}
    with pytest.raises(DefinitionError, match="frozen is none of its ends"):
        Flow("thaw", starts=Sow, ends={"withered": Withered}, fails=["frozen"])


@pytest.mark.parametrize(
    ("name", "ends", "said"),
    [
        ("endless", {}, "has no end"),
        ("Big Name", {"reaped": Reaped}, "must be in lower case"),
        ("worded", {"paid & shipped": Reaped}, "must be in lower case"),
        ("begun", {"sown": Sow}, "an end is an event"),
        ("several", {"either": Reaped | Withered}, "one message each"),
        ("nonsense", {"reaped": "Reaped"}, "is no event or command"),
        ("twofold", {"reaped": Reaped, "mown": Reaped}, "one message each"),
        ("commanded", {"sown": Sow}, "an end is an event"),
        ("unaddressed", {"end": Nameless}, "Nameless has no topic"),
    ],
)
def test_what_is_no_flow(name: str, ends: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        Flow(name, starts=Sow, ends=ends)
