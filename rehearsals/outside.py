"""The outside world of the examples, in memory: each with its ledger, and its keys honoured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from smtplib import SMTPServerDisconnected
from typing import ClassVar

from aiohttp import ClientConnectionError

from choreo.rehearse import Outside, stand_in
from contracts.travel import Leg
from sandboxes import airline, car, carrier, gateway, hotel
from services.notifications.mail import Mailer
from services.payments.gateway import DeclinedError, Gateway, GatewayError
from services.providers.outside import Booked, NotOfferedError, ProviderError, Providers
from services.shipping.carrier import Carrier, CarrierError, UndeliverableError


@dataclass(slots=True)
class Effect:
    """Something that was done outside, and how often it was ended: taken back, or collected."""

    #: The order or trip.
    about: str
    #: In cents; 0 where it is not about money.
    amount: int = 0
    #: Provider and offer, of a booking.
    offer: tuple[str, str] = ("", "")
    ends: list[str] = field(default_factory=list)


class Ledger:
    """What was done, by the ids that were given."""

    def __init__(self, outside: Outside, prefix: str) -> None:
        self.effects: dict[str, Effect] = {}
        self._outside = outside
        self._prefix = prefix

    def enter(self, effect: Effect) -> str:
        """Write down what is done now; gives its id."""
        identifier = f"{self._prefix}-{len(self.effects) + 1}"
        self.effects[identifier] = effect
        return identifier

    def end(self, identifier: str, how: str) -> None:
        """Write down that it is ended; to end it twice is wrong, whatever the key."""
        effect = self.effects.get(identifier)
        if effect is None:
            self._outside.wrong(f"{how} of {identifier}, which nobody knows")
            return
        effect.ends.append(how)
        if len(effect.ends) > 1:
            self._outside.wrong(f"{identifier} of {effect.about}: {' and '.join(effect.ends)}")


@stand_in(Gateway, fails=(GatewayError, ClientConnectionError))
class Bank:
    """The payment gateway."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        self.charges = Ledger(outside, "pay")

    async def charge(self, *, key: str, reference: str, card: str, amount: int) -> str:
        """Charge a card, unless it is one that is declined, or the bank feels so."""

        def act() -> str:
            if card == gateway.DECLINED or self.outside.perhaps("declined", 0.05):
                raise DeclinedError("the card was declined")
            return self.charges.enter(Effect(reference, amount))

        return await self.outside.once(key, ("charge", reference, card, amount), act)

    async def refund(self, *, key: str, payment_id: str) -> None:
        """Give a payment back."""
        request = ("refund", payment_id)
        await self.outside.once(key, request, lambda: self.charges.end(payment_id, "refunded"))


@stand_in(Carrier, fails=(CarrierError, ClientConnectionError))
class Parcels:
    """The carrier."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        self.shipments = Ledger(outside, "ship")

    async def book(self, *, key: str, order_id: str, address: str) -> str:
        """Book a parcel, unless nobody drives there."""

        def act() -> str:
            if address == carrier.UNDELIVERABLE or self.outside.perhaps("undeliverable", 0.05):
                raise UndeliverableError("nobody drives there")
            return self.shipments.enter(Effect(order_id))

        return await self.outside.once(key, ("book", order_id, address), act)

    async def recall(self, *, key: str, shipment_id: str) -> None:
        """Take a booking back."""
        request = ("recall", shipment_id)
        await self.outside.once(key, request, lambda: self.shipments.end(shipment_id, "recalled"))

    async def collect(self, *, key: str, shipment_id: str) -> None:
        """Collect a parcel."""
        request = ("collect", shipment_id)
        await self.outside.once(key, request, lambda: self.shipments.end(shipment_id, "collected"))


@stand_in(Providers, fails=(ProviderError, ClientConnectionError))
class Market:
    """Airline, hotel and car hire, with the offers of their sandboxes."""

    OFFERS: ClassVar = {
        (provider, name): offer
        for provider, offers in (
            ("airline", airline.OFFERS), ("hotel", hotel.OFFERS), ("car", car.OFFERS),
        )
        for name, offer in offers.items()
    }  # fmt: skip

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        self.bookings = Ledger(outside, "book")

    def taken(self) -> Counter[tuple[str, str]]:
        """How many places of each offer are taken now."""
        return Counter(one.offer for one in self.bookings.effects.values() if not one.ends)

    async def prices(self, legs: Sequence[Leg]) -> tuple[int, ...]:
        """Look up what each leg costs."""

        def answer() -> tuple[int, ...]:
            for number, leg in enumerate(legs, 1):
                if (leg.provider, leg.offer) not in self.OFFERS:
                    raise NotOfferedError(f"leg {number}: there is no {leg.provider} {leg.offer}")
            return tuple(self.OFFERS[leg.provider, leg.offer].price for leg in legs)

        return await self.outside.ask(answer)

    async def book(self, *, key: str, trip_id: str, leg_id: str, leg: Leg) -> Booked:
        """Book a place, while there are any."""
        wanted = (leg.provider, leg.offer)

        def act() -> Booked:
            offer = self.OFFERS[wanted]
            if self.taken()[wanted] >= offer.places or self.outside.perhaps("sold out", 0.05):
                raise NotOfferedError(f"{leg.provider}: {leg.offer} is sold out")
            booking_id = self.bookings.enter(Effect(trip_id, offer.price, wanted))
            return Booked(booking_id=booking_id, price=offer.price)

        return await self.outside.once(key, ("book", trip_id, leg_id, wanted), act)

    async def cancel(self, *, key: str, provider: str, booking_id: str) -> None:
        """Give a place back."""
        request = ("cancel", provider, booking_id)
        await self.outside.once(key, request, lambda: self.bookings.end(booking_id, "cancelled"))


@stand_in(Mailer, fails=(SMTPServerDisconnected, ConnectionError))
class Post:
    """The mail server: the Message-ID tells a repeated mail."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        #: The key of each mail, and to whom it went about what.
        self.mails: dict[str, tuple[str, str]] = {}

    async def send(self, *, key: str, at: datetime, to: str, subject: str, text: str) -> None:
        """Send a mail."""

        def act() -> None:
            self.mails[key] = (to, subject)

        await self.outside.once(key, ("mail", at, to, subject, text), act)
