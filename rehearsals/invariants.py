"""What is true of orders, trips and accounts once all has settled, whatever went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from choreo.envelope import moment
from choreo.rehearse import World, invariant
from contracts.accounts import AccountRegistered
from contracts.notifications import EmailSent
from contracts.orders import OrderCancelled, OrderFulfilled, OrderPaid
from contracts.payments import PaymentCaptured, PaymentRefunded, PaymentReturned, TripRefunded
from contracts.rewards import PointsGranted, PointsRevoked, TripPointsGranted
from contracts.travel import TripCancelled, TripConfirmed, TripReserved
from rehearsals.outside import Bank, Effect, Market, Parcels, Post
from services.accounts import directory
from services.audit.chain import NONE_BEFORE, digest_of, records
from services.crm import customers
from services.inventory import stock as shelves
from services.orders import book
from services.reservations import trips as reservations
from services.rewards import points as table


def _fulfilled(world: World) -> dict[str, int]:
    """The orders that ended well, with their totals."""
    ended = {one.order_id for one in world.of(OrderFulfilled)}
    return {
        row.order_id: row.total
        for row in world.rows("orders", book.orders)
        if row.order_id in ended
    }


@invariant
def orders(world: World) -> Iterator[str]:
    """The order book says how each order ended."""
    ended = {one.order_id for one in world.of(OrderFulfilled)}
    for row in world.rows("orders", book.orders):
        wanted = "fulfilled" if row.order_id in ended else "cancelled"
        if row.state != wanted:
            yield f"{row.order_id} is {row.state}, and should be {wanted}"


@invariant
def stock(world: World) -> Iterator[str]:
    """Nothing vanishes from the shelves; what is held was shipped, for fulfilled orders alone."""
    there = {row.sku: row.on_hand for row in world.rows("inventory", shelves.stock)}
    ended = _fulfilled(world)
    gone: Counter[str] = Counter()
    shipped = set()
    for row in world.rows("inventory", shelves.holds):
        gone[row.sku] += row.quantity
        shipped.add(row.order_id)
        if row.state != "shipped" or row.order_id not in ended:
            yield f"{row.quantity} x {row.sku} are {row.state} for {row.order_id}"
    for sku, on_hand in there.items():
        if on_hand < 0:
            yield f"{sku}: {on_hand} on hand"
    for sku, many in shelves.ON_HAND.items():
        if there.get(sku, 0) + gone[sku] != many:
            yield f"{sku}: {there.get(sku)} on hand and {gone[sku]} shipped, of {many}"
    for order_id in ended.keys() - shipped:
        yield f"{order_id} is fulfilled, and nothing was shipped for it"


@invariant
def money(world: World) -> Iterator[str]:
    """What is kept is the price of fulfilled orders and confirmed trips, each once."""
    earned = Counter(_fulfilled(world))
    earned.update({one.trip_id: one.amount for one in world.of(TripConfirmed)})
    kept = _standing(world.outside(Bank).charges.effects)
    for about in earned.keys() | kept.keys():
        if earned[about] != kept[about]:
            yield f"{kept[about]} were kept for {about}, which earned {earned[about]}"


@invariant
def refunds(world: World) -> Iterator[str]:
    """What is announced as given back is what was charged, and was given back."""
    charges = world.outside(Bank).charges.effects
    given_back: list[PaymentRefunded | PaymentReturned | TripRefunded] = [
        *world.of(PaymentRefunded), *world.of(PaymentReturned), *world.of(TripRefunded),
    ]  # fmt: skip
    for one in given_back:
        charge = charges.get(one.payment_id)
        if charge is None or (charge.amount, charge.ends) != (one.amount, ["refunded"]):
            yield f"{one.amount} of {one.payment_id} are announced as given back: {charge}"


@invariant
def parcels(world: World) -> Iterator[str]:
    """A parcel is collected for each fulfilled order, and every other one is recalled."""
    ended = _fulfilled(world)
    collected: Counter[str] = Counter()
    for shipment_id, one in world.outside(Parcels).shipments.effects.items():
        collected[one.about] += one.ends == ["collected"]
        if one.ends != (["collected"] if one.about in ended else ["recalled"]):
            yield f"{shipment_id} of {one.about} is {one.ends or 'booked'}"
    for order_id in ended:
        if collected[order_id] != 1:
            yield f"{order_id} is fulfilled, and {collected[order_id]} parcels were collected"


@invariant
def places(world: World) -> Iterator[str]:
    """A confirmed trip has the places that it wanted, and nobody else has any."""
    market = world.outside(Market)
    wanted = {one.trip_id: [(leg.provider, leg.offer) for leg in one.legs]
              for one in world.of(TripReserved)}  # fmt: skip
    confirmed = {one.trip_id for one in world.of(TripConfirmed)}
    taken: dict[str, Counter[tuple[str, str]]] = {trip_id: Counter() for trip_id in confirmed}
    for one in market.bookings.effects.values():
        if not one.ends:
            taken.setdefault(one.about, Counter())[one.offer] += 1
    for trip_id, places_taken in taken.items():
        should = Counter(wanted.get(trip_id, ())) if trip_id in confirmed else Counter()
        if places_taken != should:
            yield f"{trip_id} has {dict(places_taken)}, and should have {dict(should)}"
    for offer, many in market.taken().items():
        if many > market.OFFERS[offer].places:
            yield f"{many} places of {offer} are taken"


@invariant
def trips(world: World) -> Iterator[str]:
    """No trip is left on its way."""
    for row in world.rows("reservations", reservations.trips):
        if row.state in ("asked", "confirmed", "booking"):
            yield f"{row.trip_id} is {row.state}"


@invariant
def reserved(world: World) -> Iterator[str]:
    """No trip is reserved that begins in the past, by the clock of those who reserved it."""
    for message, trip in world.evidence.of(TripReserved):
        today = moment(message.envelope.time).date()
        for leg in trip.legs:
            if leg.start < today:
                yield f"{trip.trip_id} was reserved on {today}, and begins on {leg.start}"


@invariant
def points(world: World) -> Iterator[str]:
    """Members have a point for each whole 1.00 that they paid for good."""
    members = {
        row.order_id: row.total // 100
        for row in world.rows("orders", book.orders)
        if row.customer["member"] and row.order_id in _fulfilled(world)
    }
    earned = Counter({("order", key): many for key, many in members.items()})
    for one in world.of(TripConfirmed):
        if one.customer.member:
            earned["trip", one.trip_id] += one.amount // 100
    granted = Counter(
        {(row.kind, row.reference): row.points for row in world.rows("rewards", table.grants)}
    )
    for about in earned.keys() | granted.keys():
        if earned[about] != granted[about]:
            yield f"{about} has {granted[about]} points, and earned {earned[about]}"


@invariant
def balances(world: World) -> Iterator[str]:
    """An account has what was granted to its owner and stands; what was announced comes to that."""
    sums: Counter[str] = Counter()
    for row in world.rows("rewards", table.grants):
        sums[row.customer_id] += row.points
    for row in world.rows("rewards", table.accounts):
        if row.points != sums[row.customer_id]:
            granted_to = sums[row.customer_id]
            yield f"{row.customer_id} has {row.points} points, and was granted {granted_to}"
    said: Counter[str] = Counter()
    given: list[PointsGranted | TripPointsGranted] = [
        *world.of(PointsGranted), *world.of(TripPointsGranted),
    ]  # fmt: skip
    for one in given:
        said[one.customer_id] += one.points
    for revoked in world.of(PointsRevoked):
        said[revoked.customer_id] -= revoked.points
    if said != sums:
        yield f"{dict(sums)} points stand, and {dict(said)} were announced"


@invariant
def dealings(world: World) -> Iterator[str]:
    """Crm knows how each order and trip ended, in whatever order it heard of it."""
    ends = {("order", one.order_id): "fulfilled" for one in world.of(OrderFulfilled)}
    ends |= {("order", one.order_id): "cancelled" for one in world.of(OrderCancelled)}
    ends |= {("trip", one.trip_id): "confirmed" for one in world.of(TripConfirmed)}
    ends |= {("trip", one.trip_id): "cancelled" for one in world.of(TripCancelled)}
    for row in world.rows("crm", customers.dealings):
        wanted = ends.get((row.kind, row.reference), "open")
        if row.state != wanted:
            yield f"crm has {row.kind} {row.reference} as {row.state}, and it is {wanted}"


@invariant
def mail(world: World) -> Iterator[str]:
    """A mail is announced for each that was sent, and the other way round.

    But for one that was given up: it may have been sent, and a cancelled order keeps a person from
    having it announced.
    """
    given_up = {message for _, _, message in world.evidence.given_up}
    announced = {str(one.envelope.causation) for one, _ in world.evidence.of(EmailSent)}
    sent = world.outside(Post).mails
    for key in sent.keys() - announced - given_up:
        yield f"a mail to {sent[key][0]} was sent, and not announced: {sent[key][1]}"
    for key in announced - sent.keys():
        yield f"a mail was announced for {key}, and not sent"


@invariant
def confirmations(world: World) -> Iterator[str]:
    """Whoever was told that an order is cancelled is not told of a payment that came in later."""
    evidence = world.evidence
    mails = {one.envelope.causation: one for one, _ in evidence.of(EmailSent)}
    told = {one.envelope.flow: mails[one.id].at
            for one, _ in evidence.of(OrderCancelled) if one.id in mails}  # fmt: skip
    for paid, _ in (*evidence.of(PaymentCaptured), *evidence.of(OrderPaid)):
        if paid.id in mails and paid.at > told.get(paid.envelope.flow, paid.at):
            yield f"{paid.envelope.subject}: its payment was confirmed when it was long cancelled"


@invariant
def accounts(world: World) -> Iterator[str]:
    """There is an account for each registration, and no mail address has two."""
    known = {row.customer_id: row.email for row in world.rows("accounts", directory.accounts)}
    announced = {one.customer_id: one.email for one in world.of(AccountRegistered)}
    if known != announced:
        yield f"accounts has {known}, and {announced} were announced"


@invariant
def noted(world: World) -> Iterator[str]:
    """Crm and the audit service note every event that they hear once; no link is missing."""
    for service, rows in (
        ("crm", world.rows("crm", customers.processed)),
        ("audit", world.rows("audit", records)),
    ):
        times = Counter(row.message_id for row in rows)
        routes = world.evidence.kept[service].service.routes()
        heard = {kind.__address__.wire_type for kind in routes}
        for one in world.evidence.messages.values():
            if one.envelope.type in heard and times[one.id] != 1:
                yield f"{service} noted {one.envelope.type} {times[one.id]} times"
    before = NONE_BEFORE
    for row in sorted(world.rows("audit", records), key=lambda one: one.number):
        if row.previous != before or row.digest != digest_of(row._mapping):  # noqa: SLF001 - its public name
            yield f"the chain of records is broken at {row.number}"
        before = row.digest


def _standing(effects: dict[str, Effect]) -> Counter[str]:
    """What was done and not taken back, in cents."""
    found: Counter[str] = Counter()
    for one in effects.values():
        if not one.ends:
            found[one.about] += one.amount
    return found
