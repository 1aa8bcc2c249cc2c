"""A flow as a tree: in whatever order its events come, and whatever strangers write into them."""

from __future__ import annotations

import io
import itertools
import json

import pytest
from entries import FLOW, NOON, entry
from rich.console import Console

from choreo import tree
from choreo.errors import UndecodableError
from choreo.seams import Delivery
from choreo.tree import Entry, Flow


def drawn(flow: Flow) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    console.print(flow.as_tree())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def flow_of(*entries: Entry, starts_with: str | None = None) -> Flow:
    flow = Flow(entries[0].envelope.flow, starts_with=starts_with)
    for one in entries:
        flow.add(one)
    return flow


STORY = (
    entry("a", FLOW, after_s=0.003),
    entry(
        "b", "a", wire_type="inventory.stock_reserved.v1", source="/inventory/reserve", after_s=0.01
    ),
    entry("c", "b", wire_type="payments.captured.v2", source="/payments/capture", after_s=0.02),
    entry("d", "a", wire_type="mail.sent.v1", source="/mail/write", after_s=1.5),
)


def test_each_event_stands_below_its_cause_with_publisher_and_time() -> None:
    assert drawn(flow_of(*STORY, starts_with="orders.place.v1")) == [
        f"flow {FLOW}  orders.place  order-1",
        "└── orders.placed                 orders.place             3 ms",
        "    ├── inventory.stock_reserved  inventory.reserve       10 ms",
        "    │   └── payments.captured.v2  payments.capture        20 ms",
        "    └── mail.sent                 mail.write            1500 ms",
    ]


def test_an_event_may_come_before_its_cause() -> None:
    def edges(flow: Flow) -> set[str]:
        return {line.strip("│├└─ ") for line in drawn(flow)[1:]}

    for order in itertools.permutations(STORY):
        flow = flow_of(*order)
        assert edges(flow) == edges(flow_of(*STORY))
        seen: set[str | None] = {FLOW}
        for one in flow.walk():
            assert one.envelope.causation in seen
            seen.add(one.envelope.id)


def test_an_event_whose_cause_has_not_come_waits_apart() -> None:
    flow = flow_of(STORY[0], STORY[2])
    assert drawn(flow)[2:] == [
        "└── b, which is not in the journal",
        "    └── payments.captured.v2  payments.capture       20 ms",
    ]
    flow.add(STORY[1])
    assert "not in the journal" not in "\n".join(drawn(flow))


#: `b` has two commands sent, which a conductor would do; the second is answered twice.
CONDUCTED = (
    STORY[0],
    STORY[1],
    entry("c", "ask-1", after_s=0.02, command="payments.capture.v1", last_event="b"),
    entry("d", "ask-2", after_s=0.03, command="shipping.book.v2", last_event="b"),
    entry("e", "c", after_s=0.04),
    entry("f", "ask-2", after_s=0.05, command="shipping.book.v2", last_event="b"),
    entry("g", "ask-3", after_s=0.06, command="orders.fulfil.v1", last_event=FLOW),
)


def test_answers_to_a_command_stand_below_it_and_that_below_the_last_event() -> None:
    assert drawn(flow_of(*CONDUCTED, starts_with="orders.process.v1"))[1:] == [
        "├── orders.placed                  orders.place             3 ms",
        "│   └── inventory.stock_reserved   inventory.reserve       10 ms",
        "│       ├── payments.capture",
        "│       │   └── orders.placed      orders.place            20 ms",
        "│       │       └── orders.placed  orders.place            40 ms",
        "│       └── shipping.book.v2",
        "│           ├── orders.placed      orders.place            30 ms",
        "│           └── orders.placed      orders.place            50 ms",
        "└── orders.fulfil",
        "    └── orders.placed              orders.place            60 ms",
    ]


def test_a_command_is_shown_whatever_came_first() -> None:
    for order in itertools.islice(itertools.permutations(CONDUCTED), 0, None, 11):
        flow = flow_of(*order)
        assert "not in the journal" not in "\n".join(drawn(flow))
        assert [flow.commands[f"ask-{number}"].cause for number in (1, 2, 3)] == ["b", "b", FLOW]
        seen: set[str | None] = {FLOW, "ask-1", "ask-2", "ask-3"}
        for one in flow.walk():
            assert {one.cause, one.envelope.last_event or FLOW} <= seen
            seen.add(one.id)


def test_a_command_after_an_event_that_has_not_come_waits_apart() -> None:
    assert drawn(flow_of(STORY[0], CONDUCTED[2]))[2:] == [
        "└── b, which is not in the journal",
        "    └── payments.capture",
        "        └── orders.placed  orders.place       20 ms",
    ]


def test_a_stranger_may_name_any_command() -> None:
    for command in ("a", "b", FLOW, "x\x1b"):
        for last in ("a", "b", "c", FLOW, None):
            flow = flow_of(
                entry("a", "b", command=command, last_event=last),
                entry("b", "c", command="two", last_event="d"),
                entry("e", "d", command="three", last_event="c"),
                entry("c", last_event="c"),
            )
            assert sorted(one.id for one in flow.walk()) == ["a", "b", "c", "e"]
            assert sum(" ms" in line for line in drawn(flow)) == 4
            assert "\x1b" not in "".join(drawn(flow))


def test_an_event_is_taken_once() -> None:
    flow = Flow(FLOW)
    assert flow.add(STORY[0])
    assert not flow.add(STORY[0])
    assert len(flow.as_json()["events"]) == 1


def test_a_flow_may_begin_with_an_event_and_have_any_id() -> None:
    flow = flow_of(
        entry("seven", None, flow="seven", after_s=1), entry("b", "seven", flow="seven", after_s=3)
    )
    assert drawn(flow) == [
        "flow seven  order-1",
        "└── orders.placed      orders.place        0 ms",
        "    └── orders.placed  orders.place     2000 ms",
    ]


def test_subjects_are_named_where_they_differ() -> None:
    lines = drawn(flow_of(entry("a", subject="trip-1"), entry("b", "a", subject="seat-2")))
    assert "trip-1" not in lines[0]
    assert lines[1].endswith("0 ms  trip-1")
    assert lines[2].endswith("0 ms  seat-2")


def test_events_that_name_each_other_as_the_cause_are_shown_once_each() -> None:
    flow = flow_of(entry("a", "b"), entry("b", "a"), entry("c", "c"))
    assert sorted(one.envelope.id for one in flow.walk()) == ["a", "b", "c"]
    assert len(drawn(flow)) == 6  # the flow, two headings, three events


def test_a_flow_of_any_depth_is_walked() -> None:
    flow = Flow(FLOW)
    for number in reversed(range(5000)):
        flow.add(entry(str(number), str(number - 1) if number else FLOW))
    assert [one.envelope.id for one in flow.walk()] == [str(number) for number in range(5000)]


def test_a_dead_letter_names_handler_and_reason() -> None:
    body = {"service": "payments", "handler": "capture", "type": "x.v1", "reason": "no gateway"}
    letter = entry(
        "x",
        "a",
        wire_type="choreo.dead_lettered.v1",
        source="/payments/dead",
        subject=None,
        body=body,
    )
    assert letter.gave_up == "/payments/capture"
    assert drawn(flow_of(STORY[0], letter))[2].endswith("ms  capture: no gateway")
    assert drawn(flow_of(STORY[0], letter))[0].endswith("order-1")
    torn = entry("y", "a", wire_type="choreo.dead_lettered.v1", body="no object")
    assert torn.gave_up is torn.reason is None


def test_what_a_stranger_writes_cannot_steer_the_terminal() -> None:
    flow = flow_of(
        entry("a", wire_type="or\x1b[31mders\n.v1", source="/o\x07", subject="[bold]\ud800")
    )
    [title, line] = drawn(flow)
    assert title.endswith("  [bold]\N{REPLACEMENT CHARACTER}")
    assert line.startswith("└── or\N{REPLACEMENT CHARACTER}[31mders\N{REPLACEMENT CHARACTER}  o")


def test_json_has_everything_and_stays_json() -> None:
    told = json.loads(json.dumps(flow_of(*STORY).as_json()))
    assert told["flow"] == FLOW
    assert [one["id"] for one in told["events"]] == ["a", "b", "c", "d"]
    assert told["events"][1] == {
        "flow": FLOW,
        "id": "b",
        "causation": "a",
        "type": "inventory.stock_reserved.v1",
        "source": "/inventory/reserve",
        "subject": "order-1",
        "time": "2027-01-15T08:00:00.010Z",
        "after_ms": 10,
        "body": None,
    }
    told = flow_of(*CONDUCTED).as_json()["events"]
    found = {one["id"]: (one["command"], one["last_event"]) for one in told if "command" in one}
    assert found == {
        "c": ("payments.capture.v1", "b"),
        "d": ("shipping.book.v2", "b"),
        "f": ("shipping.book.v2", "b"),
        "g": ("orders.fulfil.v1", FLOW),
    }


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b"none", "none"),
        (b"\xff", "\N{REPLACEMENT CHARACTER}"),
        (b"[" * 100_000, "[" * 100_000),
    ],
)
def test_any_body_is_read(body: bytes, read: object) -> None:
    assert tree.read(_delivery(body, "x.y.v1"), NOON).body == read


def test_what_is_no_message_is_told() -> None:
    with pytest.raises(UndecodableError, match="no type"):
        tree.read(_delivery(b"{}", None), NOON)


def _delivery(body: bytes, wire_type: str | None) -> Delivery:
    return Delivery(
        body, "id", wire_type, None, None, {}, {}, "orders", "key", redelivered=False, tag=1
    )
