"""What each process starts with, and how it may end: what all services together are held to."""

from choreo import Event, Flow

from .accounts import AccountRegistered, AccountRejected, RegisterAccount
from .orders import OrderCancelled, OrderFulfilled, OrderRejected, PlaceOrder, ProcessOrder
from .travel import (
    ConfirmationRejected,
    ConfirmReservation,
    ReserveTrip,
    TripCancelled,
    TripConfirmed,
    TripRejected,
    TripReserved,
)

_ORDER_ENDS: dict[str, type[Event]] = {
    "fulfilled": OrderFulfilled,
    "cancelled": OrderCancelled,
    "rejected": OrderRejected,
}

order = Flow("order", starts=PlaceOrder, ends=_ORDER_ENDS, fails=["cancelled"])
conducted_order = Flow(
    "conducted_order", starts=ProcessOrder, ends=_ORDER_ENDS, fails=["cancelled"]
)
registration = Flow(
    "registration",
    starts=RegisterAccount,
    ends={"registered": AccountRegistered, "rejected": AccountRejected},
)
reservation = Flow(
    "reservation",
    starts=ReserveTrip,
    ends={"reserved": TripReserved, "rejected": TripRejected},
)
trip = Flow(
    "trip",
    starts=ConfirmReservation,
    ends={"confirmed": TripConfirmed, "cancelled": TripCancelled, "refused": ConfirmationRejected},
    fails=["cancelled"],
)
