"""The payment gateway as payments knows it: HTTP calls that carry an idempotency key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import AnyHttpUrl, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

# A charge is also limited by its handler; this holds for the refund as well.
_LIMIT = aiohttp.ClientTimeout(total=10)


class Settings(BaseSettings):
    """Where the gateway is: a fixed URL, or the file in which the sandbox announces its own."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    url: AnyHttpUrl | None = Field(default=None, validation_alias="PAYMENTS_GATEWAY_URL")
    var: Path = Field(default=Path("var"), validation_alias="CHOREO_VAR")


class DeclinedError(Exception):
    """The card was not charged, and never will be for this."""


class GatewayError(Exception):
    """The gateway is not there, or answered what nobody expects; try the same key again."""


class Gateway:
    """The gateway keeps each key: a repeated call has one effect and gets the first answer."""

    def __init__(self, http: aiohttp.ClientSession, settings: Settings) -> None:
        self._http = http
        self._settings = settings

    async def charge(self, *, key: str, reference: str, card: str, amount: int) -> str:
        """Charge the card and return the payment's id; raises DeclinedError if it is declined."""
        if not amount:
            raise DeclinedError("the amount is 0.00: there is nothing to charge")
        # The gateway calls it an order whatever it is.
        body = {"order_id": reference, "card": card, "amount": amount}
        match await self._post("/charges", key, body):
            case 201, {"payment_id": str(payment_id)}:
                return payment_id
            case 402, {"reason": str(reason)}:
                raise DeclinedError(reason)
            case status, said:
                raise GatewayError(f"payment gateway: {status} for a charge: {said!s:.500}")

    async def refund(self, *, key: str, payment_id: str) -> None:
        """Give a payment back in full."""
        status, said = await self._post("/refunds", key, {"payment_id": payment_id})
        if status != 201:
            raise GatewayError(f"payment gateway: {status} for a refund: {said!s:.500}")

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
        file = self._settings.var / "gateway.url"
        try:
            return file.read_text().strip()
        except FileNotFoundError as error:
            raise GatewayError(
                f"no payment gateway: {file} is missing; run 'python -m sandboxes.gateway' or "
                "set PAYMENTS_GATEWAY_URL"
            ) from error
