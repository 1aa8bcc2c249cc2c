"""Acks: a multiple ack never reaches over a delivery that is not settled."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from choreo.rabbitmq import Acks


class Channel:
    """What the broker would do with acks."""

    def __init__(self, tags: range) -> None:
        self.unacked = list(tags)

    def ack(self, tag: int, *, multiple: bool) -> None:
        assert tag in self.unacked, f"PRECONDITION_FAILED - unknown delivery tag {tag}"
        self.unacked = [one for one in self.unacked if (one > tag if multiple else one != tag)]


@given(st.permutations(range(1, 30)), st.lists(st.integers(1, 8), min_size=30, max_size=30))
def test_exactly_what_is_settled_is_acked(order: list[int], sizes: list[int]) -> None:
    anything: Any = None
    acks, broker = Acks(anything), Channel(range(1, 30))
    for tag in range(1, 30):
        acks.received(tag)
    settled: set[int] = set()
    for size in sizes:
        group, order = order[:size], order[size:]
        settled.update(group)
        for tag, multiple in acks.settle(group):
            broker.ack(tag, multiple=multiple)
        assert broker.unacked == [tag for tag in range(1, 30) if tag not in settled]


def test_what_is_settled_in_order_takes_one_ack() -> None:
    anything: Any = None
    acks = Acks(anything)
    for tag in range(1, 401):
        acks.received(tag)
    assert acks.settle(range(1, 201)) == [(200, True)]
    assert acks.settle(range(201, 401)) == [(400, True)]
