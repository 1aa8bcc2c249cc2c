"""Every process at once while services die: all of them, or a conductor after each message."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial

import pytest
from audit import audit
from cast import ALL, CONDUCTED_ORDERS, TRAVEL
from starts import WAYS, Start, a_confirmation, a_trip, an_order, mixed_flows
from system import System, SystemMaker, system_fixture  # noqa: F401 - a fixture

from sandboxes import carrier, gateway

pytestmark = pytest.mark.long_on_postgres

FLOWS = 200
TRIPS_AND_ORDERS = tuple(dict.fromkeys((*CONDUCTED_ORDERS, *TRAVEL)))
CONDUCTORS = ("order_process", "reservations", "providers")
#: How many messages each sends in a flow that it conducts, the undos and the end included.
ENDS_WELL, ENDS_BADLY = (6, 6, 7), (8, 9, 10)


@pytest.mark.parametrize("victims", [ALL, CONDUCTORS], ids=["all", "conductors"])
async def test_killed_under_load(system: SystemMaker, victims: tuple[str, ...]) -> None:
    async with system(ALL) as running:
        await running.start()
        await running.under_way(mixed_flows, FLOWS)
        seen = len(running.logs)
        running.kill(*victims)
        await running.consuming(victims, since=seen)
        await running.ended()
        audit(running)
        killed = [said.name for said in running.logs if "ended by signal 9" in said.text]
        assert sorted(killed) == sorted(victims)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_conductor_killed_after_each_message(system: SystemMaker) -> None:
    """In each round each conductor dies once, one message later than in the round before."""
    # Soon somebody takes over what a dead one has left.
    async with system(TRIPS_AND_ORDERS, CHOREO_LEASE_S=0.5) as running:
        await running.start()
        for number in range(1, 1 + max(ENDS_BADLY)):
            await _round(running, number, ENDS_BADLY, [min(number, last) for last in ENDS_BADLY])
        # All but its last message is as before.
        await _round(running, 0, ENDS_WELL, ENDS_WELL)
        audit(running)


async def _round(
    running: System, number: int, messages: Sequence[int], deadly: Sequence[int]
) -> None:
    """Let each conductor send so many messages in a flow, and die after one of them."""
    placed = _one_of_each(number, ends_well=messages is ENDS_WELL)
    flows = (await running.place_in_turn(*placed))[-3:]
    await asyncio.gather(*map(partial(_crash_after, running), CONDUCTORS, flows, deadly))
    await running.ended()
    sent = Counter((one.service, one.flow) for one, _ in running.heard.values())
    assert [sent[one] for one in zip(CONDUCTORS, flows, strict=True)] == list(messages)


def _one_of_each(number: int, *, ends_well: bool) -> list[Start]:
    """For each conductor, a flow that it conducts, which ends well or fails as late as it can."""
    trips = [a_trip(f"{number}-{way}", way=way, member=True) for way in WAYS]
    card = gateway.APPROVED if ends_well else gateway.DECLINED
    address = "1 High Street" if ends_well else carrier.UNDELIVERABLE
    return [
        *trips,
        an_order(number, conducted=True, address=address, member=True),
        *(a_confirmation(trip, card=card) for trip in trips),
    ]


async def _crash_after(running: System, service: str, flow: str, number: int) -> None:
    """Crash a service once it was heard to have sent so many messages in a flow."""
    await running.hears(lambda one: (one.service, one.flow) == (service, flow), number)
    await running.crash(service)
