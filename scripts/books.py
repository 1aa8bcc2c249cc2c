"""Reads the books of a system at rest, inside and outside, and checks that they agree."""

from __future__ import annotations

import email
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sending
import sqlalchemy as sa

from choreo import Command
from choreo.tree import Flow
from contracts.accounts import RegisterAccount
from contracts.orders import PlaceOrder, ProcessOrder
from contracts.travel import ConfirmReservation, ReserveTrip
from services.audit import verify
from services.crm import customers

_STOCK = """
SELECT sku, on_hand,
       coalesce((SELECT sum(quantity) FROM holds WHERE sku = stock.sku AND state = 'held'), 0),
       coalesce((SELECT sum(quantity) FROM holds WHERE sku = stock.sku AND state = 'shipped'), 0)
FROM stock
"""
_STATES = {
    "orders": ("orders", "SELECT state FROM orders"),
    # What is booked is confirmed to the customer.
    "trips": ("reservations", "SELECT replace(state, 'booked', 'confirmed') FROM trips"),
}
_PLACES = "SELECT kind, offer FROM entries"
_GOOD = ("fulfilled", "confirmed")
_CAPTURED = ("payments.captured.v1", "payments.taken.v1", "payments.trip_paid.v1")
_RETURNED = ("payments.refunded.v1", "payments.returned.v1", "payments.trip_refunded.v1")
_MAIL = "notifications.email_sent.v1"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold: what the books say, and what they must say."""

    what: str
    found: str
    must_be: str

    @property
    def is_right(self) -> bool:
        """Whether it holds."""
        return self.found == self.must_be


class Past:
    """What was asked of the system, and what its journal told of that."""

    def __init__(self, sent: Sequence[tuple[Command, Flow]]) -> None:
        self.events = [event for _, flow in sent for event in flow.entries.values()]
        self.accounts: list[RegisterAccount] = []
        self.orders: list[PlaceOrder | ProcessOrder] = []
        self.trips: list[ReserveTrip] = []
        #: How each order and each trip ended.
        self.outcomes: dict[str, str] = {}
        for command, flow in sent:
            outcome = sending.outcome_of(flow)
            match command:
                case RegisterAccount():
                    self.accounts.append(command)
                case PlaceOrder() | ProcessOrder():
                    self.orders.append(command)
                    self.outcomes[command.order_id] = outcome
                case ReserveTrip():
                    self.trips.append(command)
                    self.outcomes[command.trip_id] = outcome
                case ConfirmReservation():
                    self.outcomes[command.trip_id] = outcome

    def bodies(self, *wire_types: str) -> list[dict[str, Any]]:
        """What the events of these types say."""
        return [one.body for one in self.events if one.envelope.type in wire_types]


class Books:
    """The databases of the services, the ledgers of the outside world, and the mails."""

    def __init__(self, var: Path) -> None:
        """Note what is in stock before anybody orders."""
        self._var = var
        self._before = self._stock()

    def check(self, sent: Sequence[tuple[Command, Flow]]) -> list[Check]:
        """Compare the books with these commands and flows, which must be all that ever were."""
        past = Past(sent)
        totals = self._rows("orders", "SELECT order_id, total FROM orders")
        totals += self._rows("reservations", "SELECT trip_id, total FROM trips")
        kept = {one: total for one, total in totals if past.outcomes.get(one) in _GOOD}
        return [
            self._check_states("orders", [past.outcomes[one.order_id] for one in past.orders]),
            self._check_states("trips", [past.outcomes[one.trip_id] for one in past.trips]),
            *self._check_stock(past),
            *self._check_places(past),
            self._check_money(past, kept),
            self._check_points(past, kept),
            self._check_parcels(past),
            self._check_mails(past),
            *self._check_profiles(past),
            self._check_record(past),
        ]

    def _check_states(self, what: str, outcomes: Sequence[str]) -> Check:
        found = Counter(state for (state,) in self._rows(*_STATES[what]))
        return Check(what, _counted(found), _counted(Counter(outcomes)))

    def _check_stock(self, past: Past) -> list[Check]:
        shipped: Counter[str] = Counter()
        for order in past.orders:
            for line in order.lines:
                shipped[line.sku] += line.quantity * (past.outcomes[order.order_id] == "fulfilled")
        now = self._stock()
        return [
            Check(
                f"stock of {sku}",
                _stock(*now[sku]),
                _stock(self._before[sku][0] - many, 0, self._before[sku][2] + many),
            )
            for sku, many in shipped.items()
        ]

    def _check_places(self, past: Past) -> list[Check]:
        """Each booking and cancellation that was announced was made once; what is left stands."""
        must_stand: dict[str, Counter[str]] = {}
        for trip in past.trips:
            for leg in trip.legs:
                offers = must_stand.setdefault(leg.provider, Counter())
                offers[leg.offer] += past.outcomes[trip.trip_id] == "confirmed"
        checks = []
        for provider, offers in sorted(must_stand.items()):
            booked, cancelled = (
                Counter(offer for what, offer in self._rows(provider, _PLACES) if what == kind)
                for kind in ("booking", "cancellation")
            )
            made, undone = (
                sum(one["provider"] == provider for one in past.bodies(wire_type))
                for wire_type in ("providers.leg_booked.v1", "providers.leg_cancelled.v1")
            )
            checks.append(
                Check(
                    f"places of {provider}",
                    _places(booked.total(), cancelled.total(), booked - cancelled),
                    _places(made, undone, +offers),
                )
            )
        return checks

    def _check_money(self, past: Past, kept: Mapping[str, int]) -> Check:
        """Each charge and refund that was announced was made once; what is left is earned."""
        ledger = dict(self._rows("gateway", "SELECT kind, sum(amount) FROM effects GROUP BY kind"))
        charged, refunded = ledger.get("charge", 0), ledger.get("refund", 0)
        captured, returned = (
            sum(one["amount"] for one in past.bodies(*kinds)) for kinds in (_CAPTURED, _RETURNED)
        )
        return Check(
            "money",
            _money(charged, refunded, charged - refunded),
            _money(captured, returned, sum(kept.values())),
        )

    def _check_points(self, past: Past, kept: Mapping[str, int]) -> Check:
        grants = dict(self._rows("rewards", "SELECT reference, points FROM grants"))
        ((accounts,),) = self._rows("rewards", "SELECT coalesce(sum(points), 0) FROM accounts")
        members = {one.order_id for one in past.orders if one.customer.member} | {
            one.trip_id for one in past.trips if one.customer.member
        }
        earned = {one: amount // 100 for one, amount in kept.items() if one in members}
        return Check("points", _points(grants, accounts), _points(earned, sum(earned.values())))

    def _check_parcels(self, past: Past) -> Check:
        """Nothing is collected for a cancelled order, and no booking is left over."""
        ledger = self._rows("carrier", "SELECT kind, order_id FROM effects ORDER BY order_id")
        kinds = Counter(kind for kind, _ in ledger)
        collected = [order_id for kind, order_id in ledger if kind == "collection"]
        return Check(
            "parcels",
            _parcels(kinds["booking"], kinds["recall"], collected),
            _parcels(
                len(past.bodies("shipping.booked.v1", "shipping.arranged.v1")),
                len(past.bodies("shipping.recalled.v1")),
                sorted(one for one, how in past.outcomes.items() if how == "fulfilled"),
            ),
        )

    def _check_mails(self, past: Past) -> Check:
        """Each mail that was announced was sent, and no other."""
        about = {
            f"<{one.envelope.causation}@choreo>": one.body["reference"]
            for one in past.events
            if one.envelope.type == _MAIL
        }
        files = (self._var / "mail").glob("*.eml")
        mails = (email.message_from_bytes(one.read_bytes()) for one in files)
        found = Counter(about.get(mail["Message-ID"], "nothing known") for mail in mails)
        return Check("mails", _mails(found), _mails(Counter(about.values())))

    def _check_profiles(self, past: Past) -> list[Check]:
        """What is known of each customer with an account, for each provider."""
        with self._reading("crm") as db:
            return [
                Check(
                    f"{account.customer_id} for {provider}",
                    _known(db, account.customer_id, provider),
                    _due(past, account, provider),
                )
                for account in past.accounts
                for provider in sorted({leg.provider for trip in past.trips for leg in trip.legs})
            ]

    def _check_record(self, past: Past) -> Check:
        """Every event of every context is recorded, once, in an unbroken chain."""
        with self._reading("audit") as db:
            verdict = verify.check(db)
        chain = "unbroken" if verdict.why is None else f"broken: {verdict.why}"
        events = [one for one in past.events if one.gave_up is None]
        return Check(
            "record", f"{verdict.records} events, {chain}", f"{len(events)} events, unbroken"
        )

    @contextmanager
    def _reading(self, service: str) -> Iterator[sa.Connection]:
        url = f"sqlite:///file:{self._var / service}.db?mode=ro&uri=true"
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as db:
            yield db

    def _stock(self) -> dict[str, tuple[int, int, int]]:
        return {
            sku: (on_hand, held, out) for sku, on_hand, held, out in self._rows("inventory", _STOCK)
        }

    def _rows(self, name: str, query: str) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self._var / name}.db?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{many} {what}" for what, many in sorted(counts.items())) or "none"


def _stock(on_hand: int, held: int, shipped: int) -> str:
    every = on_hand + held + shipped
    return f"{on_hand} on hand + {held} held + {shipped} shipped = {every}"


def _places(booked: int, cancelled: int, standing: Mapping[str, int]) -> str:
    return f"{booked} booked - {cancelled} cancelled = {_counted(standing)}"


def _money(charged: int, refunded: int, kept: int) -> str:
    return f"{charged / 100:.2f} charged - {refunded / 100:.2f} refunded = {kept / 100:.2f} kept"


def _points(grants: Mapping[str, int], accounts: int) -> str:
    found = ", ".join(f"{points} for {what}" for what, points in sorted(grants.items()))
    return f"{found or 'none'}; {accounts} on accounts"


def _parcels(booked: int, recalled: int, collected: list[str]) -> str:
    return f"{booked} booked, {recalled} recalled, collected for {', '.join(collected) or 'nobody'}"


def _mails(about: Mapping[str, int]) -> str:
    named = (what if many == 1 else f"{what} ({many})" for what, many in sorted(about.items()))
    return f"about {', '.join(named) or 'nothing'}"


def _known(db: sa.Connection, customer_id: str, provider: str) -> str:
    """What crm knows of a customer for a provider."""
    profile = customers.profile(db, customer_id, provider)
    if profile is None or profile.account is None:
        return "no account"
    return _profile(
        customers.preferences(db, customer_id, provider),
        profile.orders,
        profile.trips,
        [offer for offer, _ in profile.booked],
        len(customers.history(db, customer_id, provider)),
    )


def _due(past: Past, account: RegisterAccount, provider: str) -> str:
    """What crm must know of a customer for a provider."""
    name = account.customer_id
    orders = (one.order_id for one in past.orders if one.customer.customer_id == name)
    offers = {
        trip.trip_id: [leg.offer for leg in trip.legs if leg.provider == provider]
        for trip in past.trips
        if trip.customer.customer_id == name
    }
    mails = [one["reference"] for one in past.bodies(_MAIL) if one["customer_id"] == name]
    return _profile(
        {one.name: one.value for one in account.preferences if one.provider == provider},
        Counter(past.outcomes[one] for one in orders),
        Counter(past.outcomes[trip] for trip in offers if offers[trip]),
        [one for trip in offers if past.outcomes[trip] == "confirmed" for one in offers[trip]],
        # Those about trips without this provider are not its business.
        sum(offers.get(about) != [] for about in mails),
    )


def _profile(
    preferences: Mapping[str, str],
    orders: Mapping[str, int],
    trips: Mapping[str, int],
    booked: list[str],
    mails: int,
) -> str:
    prefers = ", ".join(f"{name} {value}" for name, value in sorted(preferences.items()))
    return (
        f"prefers {prefers or 'nothing'}; orders: {_counted(orders)}; trips: {_counted(trips)}; "
        f"booked: {', '.join(sorted(booked)) or 'nothing'}; {mails} mails"
    )
