"""The outside providers as this service knows them: by name, over HTTP, with idempotency keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import aiohttp
from pydantic import AnyHttpUrl, BaseModel, Field, TypeAdapter, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contracts.money import Cents
from contracts.travel import Leg

# Some calls are also limited by their handlers; this holds for the cancellation as well.
_LIMIT = aiohttp.ClientTimeout(total=10)


class Settings(BaseSettings):
    """Which providers there are, and where: a fixed URL, or the file that the sandbox writes."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    #: Separated by commas. A further provider needs its name here, or its URL below.
    names: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("airline", "hotel", "car"), validation_alias="PROVIDERS_NAMES"
    )
    #: A JSON object, name to URL.
    urls: dict[str, AnyHttpUrl] = Field(default={}, validation_alias="PROVIDERS_URLS")
    var: Path = Field(default=Path("var"), validation_alias="CHOREO_VAR")
    #: How long the legs of a choreographed trip may take to be booked.
    answer_s: float = Field(
        default=45, gt=0, le=365 * 24 * 3600, validation_alias="PROVIDERS_ANSWER_S"
    )

    @field_validator("names", mode="before")
    @classmethod
    def _split(cls, names: object) -> object:
        if isinstance(names, str):
            return tuple(filter(None, map(str.strip, names.split(","))))
        return names


class Offer(BaseModel):
    """What a provider says of one of its offers."""

    offer: str
    price: Cents


class Booked(BaseModel):
    """What a provider says of a booking that it made."""

    booking_id: str
    price: Cents


_OFFERS = TypeAdapter(tuple[Offer, ...])


class NotOfferedError(Exception):
    """There is no such provider, no such offer, or no place left of it."""


class ProviderError(Exception):
    """A provider is not there, or answered what nobody expects; try the same key again."""


class Providers:
    """A provider keeps each key: a repeated call has one effect and gets the first answer."""

    def __init__(self, http: aiohttp.ClientSession, settings: Settings) -> None:
        self._http = http
        self._settings = settings
        self._names = tuple(dict.fromkeys([*settings.names, *settings.urls]))

    async def prices(self, legs: Sequence[Leg]) -> tuple[int, ...]:
        """Look up what each leg costs; raises NotOfferedError, which names the leg, if one cannot.

        Each provider is asked once, all at the same time.
        """
        for number, leg in enumerate(legs, 1):
            self._must_know(leg.provider, f"leg {number}: ")
        names = tuple(dict.fromkeys(leg.provider for leg in legs))
        answers = await asyncio.gather(*map(self._prices_of, names))
        prices = dict(zip(names, answers, strict=True))
        for number, leg in enumerate(legs, 1):
            if leg.offer not in prices[leg.provider]:
                there = ", ".join(prices[leg.provider]) or "nothing"
                raise NotOfferedError(
                    f"leg {number}: {leg.provider} does not offer {leg.offer!r}; "
                    f"it offers {there:.500}"
                )
        return tuple(prices[leg.provider][leg.offer] for leg in legs)

    async def book(self, *, key: str, trip_id: str, leg_id: str, leg: Leg) -> Booked:
        """Book a leg; raises NotOfferedError if the provider does not, and never will."""
        self._must_know(leg.provider)
        body = {
            "trip_id": trip_id,
            "leg_id": leg_id,
            **leg.model_dump(mode="json", exclude={"provider"}),
        }
        match await self._ask("POST", leg.provider, "/bookings", key, body):
            case 201, {"booking_id": str(booking_id), "price": int(price)}:
                return Booked(booking_id=booking_id, price=price)
            # A key that was used for another request is 422 as well, and no answer to this one.
            case 422, {"error": "sold_out" | "unknown_offer", "reason": str(reason)}:
                raise NotOfferedError(f"{leg.provider}: {reason}")
            case status, said:
                raise ProviderError(f"{leg.provider}: {status} for a booking: {said!s:.500}")

    async def cancel(self, *, key: str, provider: str, booking_id: str) -> None:
        """Give a booking back."""
        self._must_know(provider)
        status, said = await self._ask("POST", provider, f"/bookings/{booking_id}/cancel", key)
        if status != 200:
            raise ProviderError(f"{provider}: {status} for cancel {booking_id}: {said!s:.500}")

    async def _prices_of(self, provider: str) -> dict[str, int]:
        status, said = await self._ask("GET", provider, "/offers")
        try:
            if status == 200:
                return {one.offer: one.price for one in _OFFERS.validate_python(said)}
        except ValidationError:
            pass
        raise ProviderError(f"{provider}: {status} for its offers: {said!s:.500}")

    def _must_know(self, provider: str, where: str = "") -> None:
        if provider not in self._names:
            there = ", ".join(self._names) or "none"
            raise NotOfferedError(f"{where}there is no provider {provider!r}; there are {there}")

    async def _ask(
        self, method: str, provider: str, path: str, key: str = "", body: Any = None
    ) -> tuple[int, Any]:
        """Send JSON; return the status and what was said: JSON if it is, else the bare text."""
        url = f"{self._base(provider)}{path}"
        headers = {"Idempotency-Key": key} if key else {}
        async with self._http.request(
            method, url, json=body, headers=headers, timeout=_LIMIT
        ) as answer:
            text = await answer.text()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def _base(self, provider: str) -> str:
        """Look the URL up for each call: a sandbox that was started again has another one."""
        if url := self._settings.urls.get(provider):
            return str(url).rstrip("/")
        file = self._settings.var / f"{provider}.url"
        try:
            return file.read_text().strip()
        except FileNotFoundError as error:
            raise ProviderError(
                f"{provider}: {file} is missing; run 'python -m sandboxes.{provider}' or "
                "set its URL in PROVIDERS_URLS"
            ) from error
