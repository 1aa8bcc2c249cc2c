"""What is known of the customers: accounts, orders, trips with providers, and mails.

Each event writes down what it says and nothing else; what belongs together meets by its reference
when somebody reads. So it does not matter in which order the events come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Insert,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    case,
    func,
    insert,
    or_,
    select,
    union,
    update,
)

from choreo import Context
from contracts.accounts import AccountRegistered
from contracts.notifications import EmailSent
from contracts.travel import TripConfirmed, TripReserved

Kind = Literal["order", "trip"]
State = Literal["open", "fulfilled", "confirmed", "cancelled"]

tables = MetaData()

#: One row for each event that was taken in.
processed = Table(
    "processed",
    tables,
    Column("message_id", String(255), primary_key=True),
    Column("type", String(255), nullable=False),
    Column("flow", String(255), nullable=False),
    Column("at", Double, nullable=False),  # when it was published, in seconds since 1970
)
accounts = Table(
    "accounts",
    tables,
    Column("customer_id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("member", Boolean, nullable=False),
)
preferred = Table(
    "preferences",
    tables,
    Column("customer_id", String(64), primary_key=True),
    Column("provider", String(32), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", String(255), nullable=False),
)
#: Orders and trips.
dealings = Table(
    "dealings",
    tables,
    Column("kind", String(8), primary_key=True),
    Column("reference", String(64), primary_key=True),
    Column("customer_id", String(64), index=True),  # NULL until an event says it
    Column("state", String(16), nullable=False),
)
#: Which providers a reserved trip wants something of.
wanted = Table(
    "wanted",
    tables,
    Column("trip_id", String(64), primary_key=True),
    Column("provider", Text, primary_key=True),
)
#: What a confirmed trip has.
bookings = Table(
    "bookings",
    tables,
    Column("leg_id", String(64), primary_key=True),
    Column("trip_id", String(64), nullable=False, index=True),
    Column("provider", Text, nullable=False),
    Column("offer", Text, nullable=False),
    Column("price", BigInteger, nullable=False),
)
mails = Table(
    "mails",
    tables,
    Column("message_id", String(255), primary_key=True),
    Column("customer_id", String(64), nullable=False, index=True),
    Column("about", String(8), nullable=False),
    Column("reference", Text, nullable=False),
    Column("to", Text, nullable=False),
    Column("subject_line", Text, nullable=False),
    Column("at", Double, nullable=False),
)

_note = insert(processed)
_enter = insert(accounts)
_prefer = insert(preferred)
_follow = (
    update(dealings)
    .where(dealings.c.kind == bindparam("what"), dealings.c.reference == bindparam("which"))
    .values(
        customer_id=func.coalesce(bindparam("customer", type_=String), dealings.c.customer_id),
        state=case(
            (dealings.c.state == "open", bindparam("now", type_=String)), else_=dealings.c.state
        ),
    )
)
_begin = insert(dealings)
_plan = insert(wanted)
_book = insert(bookings)
_keep = insert(mails)

_customer, _provider = bindparam("customer", type_=String), bindparam("provider", type_=String)
_trips = select(dealings.c.reference).where(
    dealings.c.kind == "trip", dealings.c.customer_id == _customer
)
_trips_with_provider = union(
    select(wanted.c.trip_id).where(wanted.c.provider == _provider),
    select(bookings.c.trip_id).where(bookings.c.provider == _provider),
)
_account = select(accounts.c.name, accounts.c.email, accounts.c.address, accounts.c.member).where(
    accounts.c.customer_id == _customer
)
_states = (
    select(dealings.c.kind, dealings.c.state, func.count())
    .where(
        dealings.c.customer_id == _customer,
        or_(dealings.c.kind == "order", dealings.c.reference.in_(_trips_with_provider)),
    )
    .group_by(dealings.c.kind, dealings.c.state)
)
_booked = (
    select(bookings.c.offer, bookings.c.price)
    .where(bookings.c.provider == _provider, bookings.c.trip_id.in_(_trips))
    .order_by(bookings.c.leg_id)
)
_preferences = select(preferred.c.name, preferred.c.value).where(
    preferred.c.customer_id == _customer, preferred.c.provider == _provider
)
_providers = union(
    select(preferred.c.provider).where(preferred.c.customer_id == _customer),
    select(wanted.c.provider).where(wanted.c.trip_id.in_(_trips)),
    select(bookings.c.provider).where(bookings.c.trip_id.in_(_trips)),
)
_history = (
    select(mails)
    .where(
        mails.c.customer_id == _customer,
        or_(
            mails.c.about != "trip",
            mails.c.reference.in_(_trips_with_provider),
            mails.c.reference.not_in(_trips),
        ),
    )
    .order_by(mails.c.at, mails.c.message_id)
)
_counts = select(processed.c.type, func.count()).group_by(processed.c.type)


@dataclass(frozen=True, slots=True)
class Account:
    """Who a customer is."""

    name: str
    email: str
    address: str
    member: bool


@dataclass(frozen=True, slots=True)
class Profile:
    """A customer, as one provider is to know them."""

    customer_id: str
    provider: str
    #: None for who orders or travels without one.
    account: Account | None
    #: How many orders are in each state, and trips with this provider.
    orders: dict[str, int]
    trips: dict[str, int]
    #: Offer and price of each booking with this provider.
    booked: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that went to a customer."""

    at: datetime
    reference: str
    to: str
    subject_line: str


def note(db: Connection, context: Context) -> None:
    """Write down that an event is processed."""
    row = {"message_id": context.message_id, "type": context.type, "flow": context.flow}
    db.execute(_note, {**row, "at": context.time.timestamp()})


def enter(db: Connection, registered: AccountRegistered) -> None:
    """Keep an account; of a preference that is stated twice, the last is meant."""
    row = registered.model_dump()
    stated = {(one["provider"], one["name"]): one for one in row.pop("preferences")}
    db.execute(_enter, row)
    customer_id = registered.customer_id
    _write(db, _prefer, [{"customer_id": customer_id, **one} for one in stated.values()])


def follow(
    db: Connection,
    kind: Kind,
    reference: str,
    *,
    customer_id: str | None = None,
    state: State = "open",
) -> None:
    """Keep whose order or trip it is and how far it has come; an end is never left again."""
    known = {"what": kind, "which": reference, "customer": customer_id, "now": state}
    if not db.execute(_follow, known).rowcount:
        row = {"kind": kind, "reference": reference, "customer_id": customer_id, "state": state}
        db.execute(_begin, row)


def plan(db: Connection, trip: TripReserved) -> None:
    """Keep which providers a trip wants something of."""
    providers = dict.fromkeys(leg.provider for leg in trip.legs)
    _write(db, _plan, [{"trip_id": trip.trip_id, "provider": one} for one in providers])


def book(db: Connection, trip: TripConfirmed) -> None:
    """Keep what a trip has."""
    columns = {"leg_id", "provider", "offer", "price"}
    rows = [one.model_dump(include=columns) for one in trip.bookings]
    _write(db, _book, [{"trip_id": trip.trip_id, **row} for row in rows])


def keep(db: Connection, mail: EmailSent, context: Context) -> None:
    """Keep a mail, whatever it is about."""
    row = {
        "message_id": context.message_id,
        "customer_id": mail.customer_id,
        "about": mail.about,
        "reference": mail.reference,
        "to": mail.to,
        "subject_line": mail.subject_line,
        "at": context.time.timestamp(),
    }
    db.execute(_keep, row)


def profile(db: Connection, customer_id: str, provider: str) -> Profile | None:
    """Look a customer up for one provider; None if nothing is known."""
    about = {"customer": customer_id, "provider": provider}
    account = db.execute(_account, about).one_or_none()
    states: dict[str, dict[str, int]] = {"order": {}, "trip": {}}
    for kind, state, many in db.execute(_states, about):
        states[kind][state] = many
    if account is None and not any(states.values()):
        return None
    return Profile(
        customer_id=customer_id,
        provider=provider,
        account=None if account is None else Account(*account),
        orders=states["order"],
        trips=states["trip"],
        booked=tuple((row.offer, row.price) for row in db.execute(_booked, about)),
    )


def preferences(db: Connection, customer_id: str, provider: str) -> dict[str, str]:
    """What a customer likes to have from a provider."""
    about = {"customer": customer_id, "provider": provider}
    return dict(db.execute(_preferences, about).all())


def history(db: Connection, customer_id: str, provider: str) -> tuple[Mail, ...]:
    """Look up the mails about trips with a provider, and those about no trip; the oldest first."""
    about = {"customer": customer_id, "provider": provider}
    return tuple(
        Mail(datetime.fromtimestamp(row.at, UTC), row.reference, row.to, row.subject_line)
        for row in db.execute(_history, about)
    )


def providers(db: Connection, customer_id: str) -> list[str]:
    """Name the providers that a customer has, had or prefers something of."""
    return sorted(db.scalars(_providers, {"customer": customer_id}))


def counts(db: Connection) -> dict[str, int]:
    """Tell how many events of each type are processed."""
    return dict(db.execute(_counts).all())


def _write(db: Connection, statement: Insert, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows, if there are any."""
    if rows:
        db.execute(statement, rows)
