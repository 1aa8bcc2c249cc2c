"""Orders through all services and out again: every way one can end, and what may come between."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from audit import audit
from processes import PATIENCE_S
from stage import until
from starts import an_order, mixed
from system import System, SystemMaker, system_fixture  # noqa: F401 - a fixture

from choreo import Event
from choreo.store.tables import due
from contracts.inventory import StockReserved
from contracts.orders import OrderCancelled
from contracts.payments import PaymentCaptured, PaymentRefunded
from contracts.rewards import PointsGranted, PointsRevoked
from contracts.shipping import ShipmentBooked
from sandboxes import carrier, gateway


async def test_every_outcome(system: SystemMaker) -> None:
    ends = {
        an_order("plain"): "fulfilled",
        an_order("member", member=True, sku="BOOK-1"): "fulfilled",
        an_order("last", sku="RARE-1", quantity=3): "fulfilled",
        an_order("declined", card=gateway.DECLINED): "cancelled",
        an_order("nowhere", address=f"1 {carrier.UNDELIVERABLE}", member=True): "cancelled",
        an_order("stubborn", card=gateway.FAILS_TWICE): "fulfilled",
        an_order("lost", card=gateway.LOSES_ANSWER, address=carrier.LOSES_ANSWER): "fulfilled",
        an_order("unknown", sku="NONE-1"): "rejected",
    }
    async with system() as running:
        await running.start()
        flows = dict(zip(await running.place(*ends), ends.values(), strict=True))
        await running.ended()
        # One wants what is gone by now, the other an id that is taken.
        late = await running.place(an_order("empty", sku="RARE-1"), an_order("plain"))
        flows |= zip(late, ("cancelled", "rejected"), strict=True)
        await running.ended()
        audit(running)
        assert {flow: end for flow, [end] in running.ends.items()} == flows
        assert "order-member" in {one.subject for one in running.events(PointsGranted)}
        assert {one.subject for one in running.events(PointsRevoked)} <= {"order-nowhere"}
        books = running.books()
        assert len(books["order-stubborn"].charges) == len(books["order-lost"].charges) == 1


@pytest.mark.long_on_postgres
async def test_duplicates_change_nothing(system: SystemMaker) -> None:
    async with system() as running:
        # Nobody is there yet, so that many of them come to stand in one batch.
        await running.place(an_order("twice", member=True), times=2)
        await running.place(an_order("often"), times=100)
        await running.start()
        await running.place(*mixed(20))
        await running.ended()
        journal, books, mails = set(running.journal), running.books(), sorted(running.mails())
        await running.publish(*running.copies())
        # It passes through every queue behind the copies.
        [last] = await running.place(an_order("last"))
        await running.ended()
        audit(running)
        fresh = running.journal.keys() - journal
        assert {running.journal[one][0].flow for one in fresh} == {last}
        assert running.books() == books | {"order-last": running.books()["order-last"]}
        assert len(running.mails()) == len(mails) + 1


@pytest.mark.long_on_postgres
async def test_an_undo_that_overtakes_its_step(system: SystemMaker) -> None:
    """What is cancelled before it began is consumed without a trace."""
    announced: dict[str, type[Event]] = {
        "inventory": StockReserved,
        "payments": PaymentCaptured,
        "shipping": ShipmentBooked,
        "rewards": PointsGranted,
    }
    async with system() as running:
        await running.start()
        for name, announcement in announced.items():
            await running.stop(name)
            # All but the last die of the deadline, that one of its address.
            order = an_order(name, member=True, address=carrier.UNDELIVERABLE)
            [flow] = await running.place(order)
            if name != "rewards":
                await waiting(running, name, 1)
                await time_is_up(running, "orders", "deadline", flow)
            await waiting(running, name, 2)
            await running.reverse(name)
            await running.start(name)
            await running.ended()
            assert running.ends[flow] == ["cancelled"]
            assert flow not in {one.flow for one in running.events(announcement)}
        audit(running)


@pytest.mark.long_on_postgres
async def test_an_order_that_dies_while_its_card_is_charged(system: SystemMaker) -> None:
    """The deadline cancels it, the charge comes to its outcome, and that is refunded."""
    orders = (
        an_order("slow", card=gateway.SLOW),
        an_order("lost", card=gateway.LOSES_ANSWER, member=True),
    )
    async with system(
        SANDBOX_SLOW_S=600, CHOREO_RETRY_FIRST_S=3600, CHOREO_RETRY_LONGEST_S=3600
    ) as running:
        await running.start()
        flows = await running.place(*orders)
        await until(
            lambda: all(running.books()[one.order_id].charges for one in orders), "both are charged"
        )
        await time_is_up(running, "orders", "deadline", *flows)
        await until(lambda: running.ends.keys() == {*flows}, "both are cancelled")
        await until(lambda: len(running.rows("payments", "due")) == 4, "each call owes its undo")
        # One call never gets its answer, and the other lost it: they are made again.
        await time_is_up(running, "payments", "call", *flows)
        await running.ended()
        audit(running)
        assert [running.ends[flow] for flow in flows] == [["cancelled"], ["cancelled"]]
        for order, flow in zip(orders, flows, strict=True):
            passed = [one.type for one in running.events() if one.flow == flow]
            cancelled, captured, refunded = (
                passed.index(kind.__address__.wire_type)
                for kind in (OrderCancelled, PaymentCaptured, PaymentRefunded)
            )
            assert cancelled < captured < refunded
            assert running.books()[order.order_id].charges == [900]
            assert running.books()[order.order_id].refunds == [900]


async def time_is_up(running: System, service: str, kind: str, *flows: str) -> None:
    """Wait until something of this kind waits in each of these flows, and let its time be up."""
    rows = due.c.kind == kind, due.c.flow.in_(flows), due.c.owner.is_(None)
    waiting = sa.select(sa.func.count()).where(*rows)
    await until(
        lambda: running.reading(service, lambda db: db.scalar(waiting)) == len(flows),
        f"each has a {kind} that waits", PATIENCE_S,
    )  # fmt: skip
    running.reading(service, lambda db: db.execute(due.update().where(*rows).values(at=0)))


async def waiting(running: System, service: str, many: int) -> None:
    """Wait until so many messages wait for a service that is stopped."""
    async with asyncio.timeout(PATIENCE_S):
        counted = f"{many} in queue {service}"
        while counted not in await running.queued():  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.05)
