"""Orders: an order is priced or rejected, and ends once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import ValidationError
from service_samples import ANN, TEA, database, start
from sqlalchemy import select, update

from choreo import Connection, Reject
from contracts.inventory import Missing, StockRejected
from contracts.orders import (
    CancelOrder,
    FulfilOrder,
    Line,
    OpenOrder,
    OrderCancelled,
    OrderFulfilled,
    OrderOpened,
    OrderPlaced,
    OrderRejected,
    PlaceOrder,
)
from contracts.payments import PaymentDeclined
from contracts.shipping import ShipmentBooked, ShipmentFailed
from services.orders import (
    book,
    call_off,
    cancel,
    complete,
    expire,
    fulfil,
    open_order,
    place,
    service,
)
from services.orders.settings import Settings

WANTED = PlaceOrder(order_id="o-1", customer=ANN, card="4242-4242", lines=TEA)
BOOKED = ShipmentBooked(order_id="o-1", shipment_id="ship-1")
FULFILLED = OrderFulfilled(order_id="o-1", shipment_id="ship-1")
OPEN = OpenOrder(order_id="o-1", customer=ANN, lines=TEA)
OPENED = OrderOpened(order_id="o-1", total=900)
CANCEL = CancelOrder(order_id="o-1", reason="the card was declined")
FULFIL = FulfilOrder(order_id="o-1", shipment_id="ship-1")
DECLINED = PaymentDeclined(order_id="o-1", reason="the card was declined")


@pytest.fixture
def db() -> Iterator[Connection]:
    with database(service) as connection:
        yield connection


def placed(db: Connection) -> OrderPlaced:
    order = place(WANTED, db)
    assert isinstance(order, OrderPlaced)
    return order


def cancelled(reason: str) -> OrderCancelled:
    return OrderCancelled(order_id="o-1", customer=ANN, reason=reason)


def state(db: Connection) -> tuple[str, str | None]:
    row = db.execute(select(book.orders.c.state, book.orders.c.reason)).one()
    return row.state, row.reason


def test_an_order_is_priced_by_the_catalogue(db: Connection) -> None:
    lines = (*TEA, Line(sku="MUG-1", quantity=1), *TEA)
    assert place(WANTED.model_copy(update={"lines": lines}), db) == OrderPlaced(
        order_id="o-1", customer=ANN, card="4242-4242", lines=lines, total=4 * 450 + 1200
    )
    assert state(db) == ("open", None)


def test_an_unknown_article_is_rejected_by_name(db: Connection) -> None:
    lines = tuple(Line(sku=sku, quantity=1) for sku in ("SALT-1", "TEA-1", "OIL-1", "SALT-1"))
    assert place(WANTED.model_copy(update={"lines": lines}), db) == OrderRejected(
        order_id="o-1", reason="not in the catalogue: SALT-1, OIL-1"
    )
    assert db.execute(select(book.orders)).all() == []


def test_a_taken_order_id_is_rejected(db: Connection) -> None:
    placed(db)
    assert place(WANTED, db) == OrderRejected(order_id="o-1", reason="the order id o-1 is taken")
    assert state(db) == ("open", None)


def test_a_booked_shipment_fulfils_once(db: Connection) -> None:
    placed(db)
    assert fulfil(BOOKED, db) == FULFILLED
    assert fulfil(BOOKED, db) is None
    assert state(db) == ("fulfilled", None)


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (DECLINED, "the card was declined"),
        (ShipmentFailed(order_id="o-1", reason="no road"), "no road"),
        (
            StockRejected(
                order_id="o-1",
                missing=(
                    Missing(sku="RARE-1", wanted=5, available=3),
                    Missing(sku="MUG-1", wanted=1, available=0),
                ),
            ),
            "out of stock: RARE-1 (3 of 5), MUG-1 (0 of 1)",
        ),
    ],
)
def test_a_failure_cancels_once_and_says_why(
    db: Connection, cause: StockRejected | PaymentDeclined | ShipmentFailed, reason: str
) -> None:
    placed(db)
    assert cancel(cause, db) == cancelled(reason)
    assert cancel(cause, db) is None
    assert state(db) == ("cancelled", reason)


def test_what_came_first_decides(db: Connection) -> None:
    order = placed(db)
    assert fulfil(BOOKED, db) == FULFILLED
    assert cancel(DECLINED, db) is None
    assert expire(order, db) is None
    assert state(db) == ("fulfilled", None)


def test_the_deadline_cancels_an_open_order_only(db: Connection) -> None:
    order = placed(db)
    assert expire(order, db) == cancelled("not fulfilled within 120 s")
    assert expire(order, db) is None
    assert fulfil(BOOKED, db) is None
    assert state(db) == ("cancelled", "not fulfilled within 120 s")


def test_an_order_that_never_began_does_not_end(db: Connection) -> None:
    assert fulfil(BOOKED, db) is None
    assert cancel(DECLINED, db) is None


def test_a_conducted_order_is_priced_by_the_catalogue(db: Connection) -> None:
    assert open_order(OPEN, db) == OPENED
    assert state(db) == ("open", None)


def test_a_conducted_order_is_refused_for_the_same_reasons(db: Connection) -> None:
    lines = (Line(sku="SALT-1", quantity=1),)
    assert open_order(OPEN.model_copy(update={"lines": lines}), db) == OrderRejected(
        order_id="o-1", reason="not in the catalogue: SALT-1"
    )
    assert db.execute(select(book.orders)).all() == []
    placed(db)
    taken = OrderRejected(order_id="o-1", reason="the order id o-1 is taken")
    assert open_order(OPEN, db) == taken


def test_a_conducted_order_is_called_off_once_and_says_why(db: Connection) -> None:
    open_order(OPEN, db)
    assert call_off(CANCEL, OPENED, db) == cancelled("the card was declined")
    with pytest.raises(Reject, match="o-1 has ended already, so it cannot be cancelled"):
        call_off(CANCEL, OPENED, db)
    with pytest.raises(Reject, match="o-1 is not open, so it cannot be fulfilled"):
        complete(FULFIL, db)
    assert state(db) == ("cancelled", "the card was declined")


def test_a_conducted_order_is_fulfilled_once(db: Connection) -> None:
    open_order(OPEN, db)
    assert complete(FULFIL, db) == FULFILLED
    with pytest.raises(Reject, match="o-1 is not open, so it cannot be fulfilled"):
        complete(FULFIL, db)
    with pytest.raises(Reject, match="o-1 has ended already, so it cannot be cancelled"):
        call_off(CANCEL, OPENED, db)
    assert state(db) == ("fulfilled", None)


def test_a_conducted_order_that_never_began_is_not_fulfilled(db: Connection) -> None:
    with pytest.raises(Reject, match="o-1 is not open, so it cannot be fulfilled"):
        complete(FULFIL, db)


def test_a_start_keeps_changed_prices_and_fills_gaps(db: Connection) -> None:
    db.execute(update(book.catalogue).where(book.catalogue.c.sku == "TEA-1").values(price=500))
    db.execute(book.catalogue.delete().where(book.catalogue.c.sku == "MUG-1"))
    start(service, db)
    lines = tuple(Line(sku=sku, quantity=1) for sku in ("TEA-1", "MUG-1"))
    assert book.prices(db, lines) == {"TEA-1": 500, "MUG-1": 1200}


def test_the_deadline_is_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert service.deadlines[0].within == timedelta(seconds=120)
    monkeypatch.setenv("ORDERS_DEADLINE_S", "2.5")
    assert Settings().deadline_s == 2.5
    monkeypatch.setenv("ORDERS_DEADLINE_S", "")
    assert Settings().deadline_s == 120
    for bad in ("0", "-1", "soon", "inf"):
        monkeypatch.setenv("ORDERS_DEADLINE_S", bad)
        with pytest.raises(ValidationError, match="deadline_s"):
            Settings()


def test_only_what_a_conductor_may_take_back_has_an_undo() -> None:
    assert [one.name for one in service.steps if not one.final] == ["open_order"]
