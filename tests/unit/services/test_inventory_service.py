"""Inventory: every line or none, and nothing is ever lost or made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from service_samples import ANN, TEA, database, start
from sqlalchemy import func, select, update

from choreo import Connection, Reject
from contracts.inventory import (
    HoldStock,
    Missing,
    ReleaseStock,
    StockHeld,
    StockLacking,
    StockRejected,
    StockReleased,
    StockReserved,
    StockShipped,
)
from contracts.orders import Line, OrderCancelled, OrderFulfilled, OrderPlaced
from services.inventory import hold, let_go, release, reserve, service, ship, stock

CANCELLED = OrderCancelled(order_id="o-1", customer=ANN, reason="declined")
RELEASE = ReleaseStock(order_id="o-1")
FULFILLED = OrderFulfilled(order_id="o-1", shipment_id="ship-1")
MIXED = (
    Line(sku="TEA-1", quantity=2),
    Line(sku="RARE-1", quantity=1),
    Line(sku="TEA-1", quantity=5),
)


@pytest.fixture
def db() -> Iterator[Connection]:
    with database(service) as connection:
        yield connection
        # Whatever a test did: on hand + held + shipped is what was there at first.
        held = select(stock.holds.c.sku, func.sum(stock.holds.c.quantity))
        away = dict(connection.execute(held.group_by(stock.holds.c.sku)).all())
        for sku, first in stock.ON_HAND.items():
            assert on_hand(connection, sku) + away.get(sku, 0) == first, sku


def placed(*lines: Line, order_id: str = "o-1") -> OrderPlaced:
    return OrderPlaced(order_id=order_id, customer=ANN, card="c", lines=lines, total=900)


def reserved(db: Connection, *lines: Line) -> StockReserved:
    held = reserve(placed(*lines), db)
    assert isinstance(held, StockReserved)
    return held


def on_hand(db: Connection, sku: str) -> int:
    many = select(stock.stock.c.on_hand).where(stock.stock.c.sku == sku)
    return int(db.scalars(many).one())


def holds(db: Connection) -> dict[str, tuple[int, str]]:
    return {row.sku: (row.quantity, row.state) for row in db.execute(select(stock.holds))}


def test_all_lines_are_held_and_an_article_may_have_several(db: Connection) -> None:
    assert reserve(placed(*MIXED), db) == StockReserved(
        order_id="o-1", customer=ANN, card="c", lines=MIXED, total=900
    )
    assert holds(db) == {"TEA-1": (7, "held"), "RARE-1": (1, "held")}
    assert (on_hand(db, "TEA-1"), on_hand(db, "RARE-1")) == (999_993, 2)


def test_too_little_of_one_article_holds_nothing(db: Connection) -> None:
    lines = (*TEA, Line(sku="RARE-1", quantity=4), Line(sku="GONE-1", quantity=1))
    assert reserve(placed(*lines), db) == StockRejected(
        order_id="o-1",
        missing=(
            Missing(sku="RARE-1", wanted=4, available=3),
            Missing(sku="GONE-1", wanted=1, available=0),
        ),
    )
    assert holds(db) == {}


def test_lines_of_one_article_count_together(db: Connection) -> None:
    lines = (Line(sku="RARE-1", quantity=2), Line(sku="RARE-1", quantity=2))
    assert reserve(placed(*lines), db) == StockRejected(
        order_id="o-1", missing=(Missing(sku="RARE-1", wanted=4, available=3),)
    )


def test_the_last_piece_is_held_once(db: Connection) -> None:
    for number in range(3):
        order = placed(Line(sku="RARE-1", quantity=1), order_id=f"o-{number}")
        assert isinstance(reserve(order, db), StockReserved)
    assert reserve(placed(Line(sku="RARE-1", quantity=1), order_id="late"), db) == StockRejected(
        order_id="late", missing=(Missing(sku="RARE-1", wanted=1, available=0),)
    )


def test_a_cancelled_order_gives_everything_back(db: Connection) -> None:
    held = reserved(db, *MIXED)
    assert release(CANCELLED, held, db) == StockReleased(order_id="o-1", lines=MIXED)
    assert holds(db) == {}
    with pytest.raises(Reject, match="o-1 holds nothing to give back"):
        release(CANCELLED, held, db)


def test_the_lines_of_an_article_may_be_more_than_one_line_can(db: Connection) -> None:
    lines = (Line(sku="TEA-1", quantity=10_000),) * 100
    held = reserved(db, *lines)
    assert on_hand(db, "TEA-1") == 0
    assert release(CANCELLED, held, db) == StockReleased(order_id="o-1", lines=lines)
    assert on_hand(db, "TEA-1") == 1_000_000


def test_a_fulfilled_order_ships_what_it_held(db: Connection) -> None:
    held = reserved(db, *MIXED)
    assert ship(FULFILLED, db) == StockShipped(order_id="o-1")
    assert holds(db) == {"TEA-1": (7, "shipped"), "RARE-1": (1, "shipped")}
    with pytest.raises(Reject, match="o-1 is fulfilled, but holds nothing"):
        ship(FULFILLED, db)
    with pytest.raises(Reject, match="o-1 holds nothing to give back"):
        release(CANCELLED, held, db)


def test_a_conducted_order_holds_every_line_or_none(db: Connection) -> None:
    wanted = HoldStock(order_id="o-1", lines=MIXED)
    assert hold(wanted, db) == StockHeld(order_id="o-1", lines=MIXED)
    assert holds(db) == {"TEA-1": (7, "held"), "RARE-1": (1, "held")}
    lines = (*TEA, Line(sku="RARE-1", quantity=3))
    assert hold(HoldStock(order_id="late", lines=lines), db) == StockLacking(
        order_id="late", missing=(Missing(sku="RARE-1", wanted=3, available=2),)
    )
    assert holds(db) == {"TEA-1": (7, "held"), "RARE-1": (1, "held")}


def test_a_conducted_order_gives_everything_back_once(db: Connection) -> None:
    held = hold(HoldStock(order_id="o-1", lines=MIXED), db)
    assert isinstance(held, StockHeld)
    assert let_go(RELEASE, held, db) == StockReleased(order_id="o-1", lines=MIXED)
    assert holds(db) == {}
    with pytest.raises(Reject, match="o-1 holds nothing to give back"):
        let_go(RELEASE, held, db)


def test_a_conducted_order_ships_what_it_held(db: Connection) -> None:
    held = hold(HoldStock(order_id="o-1", lines=MIXED), db)
    assert isinstance(held, StockHeld)
    assert ship(FULFILLED, db) == StockShipped(order_id="o-1")
    with pytest.raises(Reject, match="o-1 holds nothing to give back"):
        let_go(RELEASE, held, db)
    assert holds(db) == {"TEA-1": (7, "shipped"), "RARE-1": (1, "shipped")}


def test_other_orders_are_left_alone(db: Connection) -> None:
    reserve(placed(*TEA, order_id="other"), db)
    release(CANCELLED, reserved(db, Line(sku="MUG-1", quantity=1)), db)
    assert holds(db) == {"TEA-1": (2, "held")}


def test_a_start_keeps_the_shelves_as_they_are(db: Connection) -> None:
    reserved(db, *MIXED)
    start(service, db)
    assert on_hand(db, "TEA-1") == 999_993


def test_a_start_fills_an_empty_place(db: Connection) -> None:
    db.execute(stock.stock.delete().where(stock.stock.c.sku == "RARE-1"))
    db.execute(update(stock.stock).where(stock.stock.c.sku == "MUG-1").values(on_hand=0))
    start(service, db)
    assert (on_hand(db, "RARE-1"), on_hand(db, "MUG-1")) == (3, 0)
    db.execute(
        update(stock.stock)
        .where(stock.stock.c.sku == "MUG-1")
        .values(on_hand=stock.ON_HAND["MUG-1"])
    )
