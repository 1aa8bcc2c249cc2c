"""Order process: conduct an order that is to be conducted; the others do what they always do."""

from __future__ import annotations

from datetime import timedelta

from choreo import Ask, Conductor, Failure, Service, Tell
from contracts.inventory import (
    HoldStock,
    ReleaseStock,
    StockHeld,
    StockLacking,
    StockReleased,
)
from contracts.orders import (
    CancelOrder,
    FulfilOrder,
    OpenOrder,
    OrderCancelled,
    OrderOpened,
    OrderPaid,
    OrderRejected,
    ProcessOrder,
)
from contracts.payments import (
    CapturePayment,
    PaymentRefused,
    PaymentReturned,
    PaymentTaken,
    RefundPayment,
)
from contracts.shipping import (
    BookShipment,
    RecallShipment,
    ShipmentArranged,
    ShipmentRecalled,
    ShipmentRefused,
)

from .settings import Settings

service = Service("order_process")


def check(order: ProcessOrder) -> OpenOrder:
    """Have the order checked, priced and opened."""
    return OpenOrder(order_id=order.order_id, customer=order.customer, lines=order.lines)


def cancel(opened: OpenOrder, failure: Failure) -> CancelOrder:
    """Have the order end badly: the last thing that is undone, as it was the first."""
    return CancelOrder(order_id=opened.order_id, reason=_reason(failure))


def hold(order: ProcessOrder) -> HoldStock:
    """Have every line held."""
    return HoldStock(order_id=order.order_id, lines=order.lines)


def release(held: HoldStock) -> ReleaseStock:
    """Have what is held given back."""
    return ReleaseStock(order_id=held.order_id)


def pay(order: ProcessOrder, opened: OrderOpened) -> CapturePayment:
    """Have the card charged with the order's total."""
    return CapturePayment(reference=order.order_id, card=order.card, amount=opened.total)


def refund(paid: CapturePayment) -> RefundPayment:
    """Have the money given back."""
    return RefundPayment(reference=paid.reference)


def announce(order: ProcessOrder, paid: PaymentTaken) -> OrderPaid:
    """Tell whoever cares that the money came in: the mail and the points are choreographed."""
    return OrderPaid(
        order_id=order.order_id, customer=order.customer, lines=order.lines, amount=paid.amount
    )


def ship(order: ProcessOrder) -> BookShipment:
    """Have a parcel booked."""
    return BookShipment(order_id=order.order_id, address=order.customer.address)


def recall(booked: BookShipment) -> RecallShipment:
    """Have the parcel recalled."""
    return RecallShipment(order_id=booked.order_id)


def fulfil(order: ProcessOrder, arranged: ShipmentArranged) -> FulfilOrder:
    """Have the order end well."""
    return FulfilOrder(order_id=order.order_id, shipment_id=arranged.shipment_id)


def _reason(failure: Failure) -> str:
    if isinstance(failure.answer, StockLacking):
        lacking = (f"{one.sku} ({one.available} of {one.wanted})" for one in failure.answer.missing)
        return f"out of stock: {', '.join(lacking)}"
    return failure.reason


_WITHIN = timedelta(seconds=Settings().answer_s)

process = Conductor(
    service,
    "order",
    starts=ProcessOrder,
    steps=[
        Ask(
            check,
            good=OrderOpened,
            bad=OrderRejected,
            undo=cancel,
            undone=OrderCancelled,
            # Nothing is begun before it, and only `orders` can say how an order ends: it waits for
            # that, as an order that is placed waits in the queue.
            within=timedelta(days=365),
        ),
        Ask(
            hold,
            good=StockHeld,
            bad=StockLacking,
            undo=release,
            undone=StockReleased,
            within=_WITHIN,
        ),
        Ask(
            pay,
            good=PaymentTaken,
            bad=PaymentRefused,
            undo=refund,
            undone=PaymentReturned,
            within=_WITHIN,
        ),
        [
            Tell(announce),
            Ask(
                ship,
                good=ShipmentArranged,
                bad=ShipmentRefused,
                undo=recall,
                undone=ShipmentRecalled,
                within=_WITHIN,
            ),
        ],
    ],
    ends=fulfil,
)
