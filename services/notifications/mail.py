"""Mail as notifications knows it: by SMTP where a server is set, else one `.eml` file for each."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from dataclasses import dataclass, field
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from choreo import CannotRunError

_DEFAULT_PORTS = {"smtp": 25, "starttls": 587, "smtps": 465}


class Settings(BaseSettings):
    """Read from `CHOREO_*`."""

    model_config = SettingsConfigDict(env_prefix="CHOREO_", env_ignore_empty=True)

    #: smtp://user:password@host:port, smtps://..., or smtp://...?starttls=1
    smtp_url: SecretStr | None = None
    mail_from: str = "orders@shop.example"
    #: Where the folder `mail` is when there is no server.
    var: Path = Path("var")


class Mailer:
    """Sends mail; the idempotency key is its Message-ID, by which a repeat can be told."""

    def __init__(self, settings: Settings) -> None:
        self._sender = Address(addr_spec=settings.mail_from)
        self._hand_over = (
            Server.at(settings.smtp_url.get_secret_value()).take
            if settings.smtp_url
            else Folder(settings.var / "mail").take
        )

    async def send(self, *, key: str, at: datetime, to: str, subject: str, text: str) -> None:
        """Send one mail; when this returns, the server or the folder has it."""
        mail = EmailMessage(policy=SMTP)
        # Quoted, a key of any form is a legal id and a legal file name.
        mail["Message-ID"] = f"<{quote(key, safe='')}@choreo>"
        mail["Date"] = at
        mail["From"] = self._sender
        mail["To"] = Address(addr_spec=to)
        mail["Subject"] = subject
        mail.set_content(text)
        await asyncio.to_thread(self._hand_over, mail)


@dataclass(frozen=True, slots=True)
class Server:
    """An SMTP server."""

    mode: str
    host: str
    port: int
    user: str | None = None
    password: str = field(default="", repr=False)

    @classmethod
    def at(cls, url: str) -> Server:
        """Read the server's URL; raises CannotRunError if it is none."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise _unusable(str(error)) from error
        options = parse_qs(parts.query, keep_blank_values=True)
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise _unusable("no smtp:// or smtps:// with a host")
        if options not in ({}, {"starttls": ["1"]}) or (options and parts.scheme == "smtps"):
            raise _unusable(f"cannot make sense of '?{parts.query}'")
        mode = "starttls" if options else parts.scheme
        return cls(
            mode=mode,
            host=parts.hostname,
            port=port or _DEFAULT_PORTS[mode],
            user=None if parts.username is None else unquote(parts.username),
            password=unquote(parts.password or ""),
        )

    def take(self, mail: EmailMessage) -> None:
        """Hand one mail over; a refusal is an exception."""
        with self._connect() as smtp:
            if self.mode == "starttls":
                smtp.starttls(context=ssl.create_default_context())
            if self.user is not None:
                smtp.login(self.user, self.password)
            smtp.send_message(mail)

    def _connect(self) -> smtplib.SMTP:
        if self.mode == "smtps":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(self.host, self.port, timeout=10, context=context)
        return smtplib.SMTP(self.host, self.port, timeout=10)


def _unusable(why: str) -> CannotRunError:
    return CannotRunError(
        f"CHOREO_SMTP_URL: {why}; write smtp://user:password@host:port, "
        "smtps://user:password@host:port or smtp://user:password@host:port?starttls=1"
    )


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of `.eml` files, for whoever has no server."""

    path: Path

    def take(self, mail: EmailMessage) -> None:
        """Write one file, whole or not at all; the same mail again takes its place."""
        self.path.mkdir(parents=True, exist_ok=True)
        name = str(mail["Message-ID"]).removeprefix("<").removesuffix("@choreo>")
        draft = self.path / f".{name}.draft"
        draft.write_bytes(bytes(mail))
        draft.replace(self.path / f"{name}.eml")
