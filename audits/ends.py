"""Every flow has one end, which is one of those of its process."""

from __future__ import annotations

from collections.abc import Iterator

from choreo import Event
from choreo.audit import Evidence, Finding, Severity
from contracts.accounts import AccountRegistered, AccountRejected
from contracts.orders import OrderCancelled, OrderFulfilled, OrderRejected
from contracts.travel import (
    ConfirmationRejected,
    TripCancelled,
    TripConfirmed,
    TripRejected,
    TripReserved,
)

_ORDER = (OrderFulfilled, OrderCancelled, OrderRejected)
#: How a flow may end, by who takes its first message.
_ENDS: dict[str, tuple[type[Event], ...]] = {
    "orders.place": _ORDER,
    "order_process.begin_order": _ORDER,
    "reservations.reserve": (TripReserved, TripRejected),
    "reservations.confirm": (TripConfirmed, TripCancelled, ConfirmationRejected),
    "accounts.register": (AccountRegistered, AccountRejected),
}
_ANY = {kind.__address__.wire_type for kinds in _ENDS.values() for kind in kinds}


def ends(evidence: Evidence) -> Iterator[Finding]:
    """Every flow that began as one of these has ended once, and as it may."""
    for flow in evidence.ended.values():
        found = [one.envelope.type for one in flow.announced if one.envelope.type in _ANY]
        for beginning in evidence.begun_by(flow.id) & _ENDS.keys():
            allowed = {kind.__address__.wire_type for kind in _ENDS[beginning]}
            if len(found) == 1 and found[0] in allowed:
                continue
            # Who has never run may have the next step.
            waits = not found and evidence.absent
            yield Finding(
                "end",
                f"ended {len(found)} times: {', '.join(found) or 'in no way'}",
                flow=flow.id,
                handler=beginning,
                severity=Severity.OPEN if waits else Severity.WRONG,
            )
