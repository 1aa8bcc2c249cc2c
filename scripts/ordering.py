"""Places orders and waits for their ends: what place-order and the demo have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from choreo import CannotRunError, Event, Service
from choreo.follow import Follower, owed
from choreo.identity import Ids
from choreo.outgoing import first
from choreo.rabbitmq import RabbitMQ
from choreo.tree import Entry, Flow
from contracts.orders import (
    Customer,
    Line,
    OrderCancelled,
    OrderFulfilled,
    OrderRejected,
    PlaceOrder,
)

#: An order that has not ended.
OPEN = "open"
_ENDS: dict[type[Event], str] = {
    OrderFulfilled: "fulfilled",
    OrderCancelled: "cancelled",
    OrderRejected: "rejected",
}
_OUTCOMES = {kind.__address__.wire_type: outcome for kind, outcome in _ENDS.items()}
#: How long to wait for what must come after an end (mails, undos),
_SETTLE_S = 5.0
#: and for silence, since who need not speak cannot be waited for.
_QUIET_S = 0.3
_GROUP = 200


class NobodyHearsError(Exception):
    """The broker returned an order, because no queue takes it."""


def order(
    ids: Ids, sku: str, quantity: int, *, card: str, member: bool, address: str, email: str
) -> PlaceOrder:
    """An order of one line; raises ValidationError if it cannot be one."""
    return PlaceOrder(
        order_id=f"order-{ids.next()[-12:]}",
        customer=Customer(customer_id="test-customer", email=email, address=address, member=member),
        card=card,
        lines=(Line(sku=sku, quantity=quantity),),
    )


async def place(
    broker: RabbitMQ, follower: Follower, ids: Ids, orders: Sequence[PlaceOrder]
) -> list[Flow]:
    """Publish the orders; raises NobodyHearsError if no service is there to take them."""
    flows: list[Flow] = []
    for at in range(0, len(orders), _GROUP):
        group = [first(one, ids, time.time(), "/place-order") for one in orders[at : at + _GROUP]]
        flows += [follower.follow(one.envelope.id, starts_with=one.routing_key) for one in group]
        for reason in (await broker.publish(group)).values():
            if reason.startswith(("no queue hears", "NOT_FOUND")):
                raise NobodyHearsError(
                    "no queue hears orders.place: start the services with 'choreo up'"
                )
            raise CannotRunError(f"the order was not published: {reason}")
    return flows


async def ended(
    follower: Follower,
    flows: Sequence[Flow],
    services: Sequence[Service],
    *,
    within_s: float,
    on_ended: Callable[[int], None] = lambda _: None,
) -> None:
    """Wait until all came to their ends and to rest, or the time is over.

    `on_ended` is told how many have ended. What is still being retried may come later.
    """
    running = list(flows)

    def all_ended() -> bool:
        running[:] = [flow for flow in running if end_of(flow) is None]
        on_ended(len(flows) - len(running))
        return not running

    if await follower.until(all_ended, within_s=within_s):
        running[:] = flows

        def all_answered() -> bool:
            running[:] = [flow for flow in running if owed(flow, services)]
            return not running

        await follower.until(all_answered, within_s=_SETTLE_S)
        await follower.quiet(for_s=_QUIET_S, within_s=_SETTLE_S)


def end_of(flow: Flow) -> Entry | None:
    """The event with which the order ended."""
    return next((one for one in flow.entries.values() if one.envelope.type in _OUTCOMES), None)


def outcome_of(flow: Flow) -> str:
    """How the order ended."""
    end = end_of(flow)
    return OPEN if end is None else _OUTCOMES[end.envelope.type]


def reason_of(flow: Flow) -> str | None:
    """Why it ended so, where its last event says that."""
    end = end_of(flow)
    return end.body.get("reason") if end is not None and isinstance(end.body, dict) else None
