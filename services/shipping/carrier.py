"""The carrier as shipping knows it: HTTP calls that carry an idempotency key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import AnyHttpUrl, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

# Some calls are also limited by their handlers; this holds for the recall as well.
_LIMIT = aiohttp.ClientTimeout(total=10)


class Settings(BaseSettings):
    """Where the carrier is: a fixed URL, or the file in which the sandbox announces its own."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    url: AnyHttpUrl | None = Field(default=None, validation_alias="SHIPPING_CARRIER_URL")
    var: Path = Field(default=Path("var"), validation_alias="CHOREO_VAR")


class UndeliverableError(Exception):
    """The carrier does not take the parcel, and never will to this address."""


class CarrierError(Exception):
    """The carrier is not there, or answered what nobody expects; try the same key again."""


class Carrier:
    """The carrier keeps each key: a repeated call has one effect and gets the first answer."""

    def __init__(self, http: aiohttp.ClientSession, settings: Settings) -> None:
        self._http = http
        self._settings = settings

    async def book(self, *, key: str, order_id: str, address: str) -> str:
        """Book a parcel and return the shipment's id; raises UndeliverableError if refused."""
        body = {"order_id": order_id, "address": address}
        match await self._post("/shipments", key, body):
            case 201, {"shipment_id": str(shipment_id)}:
                return shipment_id
            # A key that was used for another request is 422 as well, and no answer to this one.
            case 422, {"error": "undeliverable", "reason": str(reason)}:
                raise UndeliverableError(reason)
            case status, said:
                raise CarrierError(f"carrier: {status} for a booking: {said!s:.500}")

    async def recall(self, *, key: str, shipment_id: str) -> None:
        """Take a booking back."""
        await self._end("recall", key, shipment_id)

    async def collect(self, *, key: str, shipment_id: str) -> None:
        """Have the parcel collected."""
        await self._end("collect", key, shipment_id)

    async def _end(self, verb: str, key: str, shipment_id: str) -> None:
        status, said = await self._post(f"/shipments/{shipment_id}/{verb}", key, {})
        if status != 200:
            raise CarrierError(f"carrier: {status} for {verb} {shipment_id}: {said!s:.500}")

    async def _post(self, path: str, key: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Post JSON; return the status and what was said: JSON if it is, else the bare text."""
        url, headers = f"{self._base()}{path}", {"Idempotency-Key": key}
        async with self._http.post(url, json=body, headers=headers, timeout=_LIMIT) as answer:
            text = await answer.text()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def _base(self) -> str:
        """Look the URL up for each call: a sandbox that was started again has another one."""
        if self._settings.url:
            return str(self._settings.url).rstrip("/")
        file = self._settings.var / "carrier.url"
        try:
            return file.read_text().strip()
        except FileNotFoundError as error:
            raise CarrierError(
                f"no carrier: {file} is missing; run 'python -m sandboxes.carrier' or "
                "set SHIPPING_CARRIER_URL"
            ) from error
