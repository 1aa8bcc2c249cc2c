"""Notifications: what is written, and that SMTP servers and files really get it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from smtplib import SMTPAuthenticationError, SMTPException, SMTPRecipientsRefused
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from service_samples import ANN, NOON, context

from choreo import CannotRunError
from contracts.accounts import AccountRegistered
from contracts.notifications import EmailSent
from contracts.orders import Line, OrderCancelled, OrderPaid
from contracts.payments import PaymentCaptured
from contracts.travel import Booking, TripCancelled, TripConfirmed
from services.notifications import (
    apologise,
    confirm,
    open_mailer,
    regret,
    send_itinerary,
    service,
    welcome,
)
from services.notifications.mail import Server

PAID = PaymentCaptured(
    order_id="o-1",
    customer=ANN,
    lines=(Line(sku="TEA-1", quantity=2), Line(sku="MUG-1", quantity=1)),
    payment_id="pay-1",
    amount=2105,
)
CANCELLED = OrderCancelled(order_id="o-1", customer=ANN, reason="the card was declined")


def sent(reference: str, subject: str, about: str = "order") -> EmailSent:
    return EmailSent.model_validate(
        {
            "about": about,
            "reference": reference,
            "customer_id": "ann",
            "to": ANN.email,
            "subject_line": subject,
        }
    )


CONFIRMED = sent("o-1", "Your order o-1: payment received")


@pytest.fixture(autouse=True)
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CHOREO_SMTP_URL", raising=False)
    monkeypatch.setenv("CHOREO_VAR", str(tmp_path / "var"))
    return tmp_path / "var"


def mail_in(var: Path) -> EmailMessage:
    """The only mail in the folder."""
    [file] = (var / "mail").iterdir()
    return read(file.read_bytes())


def read(raw: bytes) -> EmailMessage:
    message = message_from_bytes(raw, policy=default)
    assert isinstance(message, EmailMessage)
    return message


class Letterbox:
    """What the test's SMTP server does with mail."""

    def __init__(self) -> None:
        self.got: list[Envelope] = []

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: list[str]
    ) -> str:
        if address.startswith("gone"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, _: SMTP, __: Session, envelope: Envelope
    ) -> str:
        self.got.append(envelope)
        return "250 OK"


def authenticate(_: SMTP, __: Session, ___: Envelope, mechanism: str, data: Any) -> AuthResult:
    ok = isinstance(data, LoginPassword) and data == LoginPassword(b"us@er", b"p:w/d")
    return AuthResult(success=ok, handled=ok)


class SmtpServer(Controller):
    """A real SMTP server in a thread, on a free port."""

    def _trigger_server(self) -> None:
        # The base connects to the port it was given, to see that the server is up.
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


@contextmanager
def serving(**options: Any) -> Iterator[tuple[int, Letterbox]]:
    letterbox = Letterbox()
    server = SmtpServer(letterbox, hostname="127.0.0.1", port=0, ready_timeout=60, **options)
    server.start()
    try:
        yield server.port, letterbox
    finally:
        server.stop()


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's TLS, whose authority this process trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_a_confirmation_is_a_file_where_there_is_no_server(var: Path) -> None:
    async with open_mailer() as mailer:
        assert await confirm(PAID, context("0190-confirm"), mailer) == CONFIRMED
    [file] = (var / "mail").iterdir()
    assert file.name == "0190-confirm.eml"
    mail = read(file.read_bytes())
    assert mail["Message-ID"] == "<0190-confirm@choreo>"
    assert (mail["To"], mail["Subject"]) == (ANN.email, CONFIRMED.subject_line)
    assert mail["Date"].datetime == NOON
    assert mail.get_content().replace("\r\n", "\n") == (
        "Thank you. We have received 21.05 and will send you\n\n  2 x TEA-1\n  1 x MUG-1\n"
    )


async def test_an_apology_says_why(var: Path) -> None:
    async with open_mailer() as mailer:
        assert await apologise(CANCELLED, context("key"), mailer) == sent(
            "o-1", "Your order o-1: cancelled"
        )
    mail = mail_in(var)
    assert (mail["To"], mail["Subject"]) == (ANN.email, "Your order o-1: cancelled")
    assert "cancel your order (the card was declined)" in mail.get_content()


async def test_a_conducted_order_is_confirmed_in_the_same_words(var: Path) -> None:
    paid = OrderPaid(order_id="o-1", customer=ANN, lines=PAID.lines, amount=PAID.amount)
    async with open_mailer() as mailer:
        assert await confirm(paid, context("key"), mailer) == CONFIRMED
    assert "received 21.05 and will send you" in mail_in(var).get_content()


async def test_who_registers_is_welcome(var: Path) -> None:
    account = AccountRegistered(
        customer_id="ann",
        name="Ann Ägren\r\nBcc: eve@example.org",
        email=ANN.email,
        address=ANN.address,
        member=False,
        preferences=(),
    )
    subject = "Welcome: you have an account"
    async with open_mailer() as mailer:
        assert await welcome(account, context("key"), mailer) == sent("ann", subject, "account")
    mail = mail_in(var)
    assert (mail["To"], mail["Bcc"], mail["Subject"]) == (ANN.email, None, subject)
    assert mail.get_content().startswith("Welcome, Ann Ägren")
    assert "our customer ann" in mail.get_content()


async def test_an_itinerary_lists_every_booking(var: Path) -> None:
    booked = (("airline", "LIS-1", "b-1", 12_000), ("hotel", "SEA-2", "b-2", 8_005))
    trip = TripConfirmed(
        trip_id="t-1",
        customer=ANN,
        bookings=tuple(
            Booking(
                leg_id=f"t-1.{booking_id}",
                provider=provider,
                offer=offer,
                booking_id=booking_id,
                price=price,
            )
            for provider, offer, booking_id, price in booked
        ),
        payment_id="pay-1",
        amount=20_005,
    )
    async with open_mailer() as mailer:
        assert await send_itinerary(trip, context("key"), mailer) == sent(
            "t-1", "Your trip t-1: confirmed", "trip"
        )
    assert mail_in(var).get_content().replace("\r\n", "\n") == (
        "Thank you. We have received 200.05 and booked\n\n"
        "  airline LIS-1: b-1, 120.00\n  hotel SEA-2: b-2, 80.05\n"
    )


async def test_a_cancelled_trip_is_regretted_with_its_reason(var: Path) -> None:
    trip = TripCancelled(trip_id="t-1", customer=ANN, reason="no car is left")
    async with open_mailer() as mailer:
        assert await regret(trip, context("key"), mailer) == sent(
            "t-1", "Your trip t-1: cancelled", "trip"
        )
    assert "cancel your trip (no car is left)" in mail_in(var).get_content()


async def test_a_repeated_mail_takes_its_own_place(var: Path) -> None:
    async with open_mailer() as mailer:
        for key in ("one", "one", "two"):
            await confirm(PAID, context(key), mailer)
    assert sorted(file.name for file in (var / "mail").iterdir()) == ["one.eml", "two.eml"]


async def test_a_key_of_any_form_is_one_file_in_the_folder(var: Path) -> None:
    async with open_mailer() as mailer:
        await confirm(PAID, context("../a b/<c>:d"), mailer)
    [file] = (var / "mail").iterdir()
    assert file.name == "..%2Fa%20b%2F%3Cc%3E%3Ad.eml"
    assert read(file.read_bytes())["Message-ID"] == "<..%2Fa%20b%2F%3Cc%3E%3Ad@choreo>"


async def test_an_address_cannot_smuggle_in_another(var: Path) -> None:
    customer = ANN.model_copy(update={"email": "eve,ann@example.org"})
    async with open_mailer() as mailer:
        with pytest.raises(ValueError, match="eve"):
            await confirm(PAID.model_copy(update={"customer": customer}), context("key"), mailer)
    assert not (var / "mail").exists()


async def test_a_server_gets_the_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHOREO_MAIL_FROM", "tea@shop.example")
    with serving() as (port, letterbox):
        monkeypatch.setenv("CHOREO_SMTP_URL", f"smtp://127.0.0.1:{port}")
        async with open_mailer() as mailer:
            assert await confirm(PAID, context("0190-confirm"), mailer) == CONFIRMED
    [envelope] = letterbox.got
    assert (envelope.mail_from, envelope.rcpt_tos) == ("tea@shop.example", [ANN.email])
    assert isinstance(envelope.content, bytes)
    mail = read(envelope.content)
    assert (mail["Message-ID"], mail["From"]) == ("<0190-confirm@choreo>", "tea@shop.example")
    assert "21.05" in mail.get_content()


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
async def test_a_server_may_ask_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": False}
    with serving(**options) as (port, letterbox):
        monkeypatch.setenv("CHOREO_SMTP_URL", f"smtp://us%40er:p%3Aw%2Fd@127.0.0.1:{port}")
        async with open_mailer() as mailer:
            await confirm(PAID, context("key"), mailer)
        monkeypatch.setenv("CHOREO_SMTP_URL", f"smtp://us%40er:wrong@127.0.0.1:{port}")
        async with open_mailer() as mailer:
            with pytest.raises(SMTPAuthenticationError):
                await confirm(PAID, context("key"), mailer)
    assert len(letterbox.got) == 1


async def test_a_server_may_ask_for_tls(
    monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext
) -> None:
    with serving(tls_context=tls, require_starttls=True) as (port, letterbox):
        monkeypatch.setenv("CHOREO_SMTP_URL", f"smtp://127.0.0.1:{port}")
        async with open_mailer() as mailer:
            with pytest.raises(SMTPException, match="STARTTLS"):
                await confirm(PAID, context("key"), mailer)
        monkeypatch.setenv("CHOREO_SMTP_URL", f"smtp://127.0.0.1:{port}?starttls=1")
        async with open_mailer() as mailer:
            await confirm(PAID, context("key"), mailer)
    assert len(letterbox.got) == 1


async def test_a_server_may_speak_tls_from_the_start(
    monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext
) -> None:
    with serving(ssl_context=tls) as (port, letterbox):
        monkeypatch.setenv("CHOREO_SMTP_URL", f"smtps://127.0.0.1:{port}")
        async with open_mailer() as mailer:
            await confirm(PAID, context("key"), mailer)
    assert len(letterbox.got) == 1


async def test_a_server_that_nobody_vouches_for_gets_nothing(
    monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with serving(ssl_context=tls) as (port, letterbox):
        monkeypatch.setenv("CHOREO_SMTP_URL", f"smtps://127.0.0.1:{port}")
        async with open_mailer() as mailer:
            with pytest.raises(ssl.SSLCertVerificationError):
                await confirm(PAID, context("key"), mailer)
    assert letterbox.got == []


async def test_a_refused_recipient_is_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    customer = ANN.model_copy(update={"email": "gone@example.org"})
    with serving() as (port, letterbox):
        monkeypatch.setenv("CHOREO_SMTP_URL", f"smtp://127.0.0.1:{port}")
        async with open_mailer() as mailer:
            with pytest.raises(SMTPRecipientsRefused, match="no such mailbox"):
                await confirm(
                    PAID.model_copy(update={"customer": customer}), context("key"), mailer
                )
    assert letterbox.got == []


async def test_a_server_that_is_not_there_is_an_exception(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving() as (port, _):
        pass
    monkeypatch.setenv("CHOREO_SMTP_URL", f"smtp://127.0.0.1:{port}")
    async with open_mailer() as mailer:
        with pytest.raises(ConnectionRefusedError):
            await confirm(PAID, context("key"), mailer)


@pytest.mark.parametrize(
    ("url", "mode", "port"),
    [
        ("smtp://mail.example", "smtp", 25),
        ("smtps://mail.example", "smtps", 465),
        ("smtp://mail.example?starttls=1", "starttls", 587),
        ("smtp://mail.example:2525/?starttls=1", "starttls", 2525),
    ],
)
def test_each_form_of_url_has_its_port(url: str, mode: str, port: int) -> None:
    assert Server.at(url) == Server(mode=mode, host="mail.example", port=port)


@pytest.mark.parametrize(
    "url",
    [
        "http://mail.example",
        "mail.example:25",
        "smtp://",
        "smtp://mail.example:many",
        "smtp://[mail.example",
        "smtp://mail.example?starttls=yes",
        "smtp://mail.example?tls=1",
        "smtps://mail.example?starttls=1",
    ],
)
def test_a_wrong_url_says_how_to_write_it(url: str) -> None:
    with pytest.raises(CannotRunError, match=r"^CHOREO_SMTP_URL: .*write smtp://user:password@"):
        Server.at(url)


def test_a_password_is_not_shown() -> None:
    server = Server.at("smtp://ann:secret@mail.example")
    assert server.password == "secret"
    assert "secret" not in repr(server)


def test_a_confirmation_is_not_written_once_the_order_died() -> None:
    assert confirm.unless == (OrderCancelled,)


def test_every_mail_is_final_and_has_a_time_limit() -> None:
    assert [one.name for one in service.steps if not (one.final and one.timeout_s == 30)] == []
