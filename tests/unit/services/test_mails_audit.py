"""The audit of the mails: what was sent is what was announced."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from audits.mails import mails
from choreo.audit import Evidence, Kept
from choreo.audit.evidence import announced
from choreo.contract import encode
from choreo.envelope import Envelope, timestamp
from choreo.settings import Settings
from contracts.notifications import EmailSent
from services.notifications import service

NOW = 1_900_000_000.0


def letter(handler: str) -> Any:
    return SimpleNamespace(handler=handler, message_id="m", flow="m", status="parked", subject="o")


def evidence(var: Path, *, dead: bool, told: bool) -> Evidence:
    mail = EmailMessage()
    mail["Message-ID"] = "<m@choreo>"
    (var / "mail").mkdir()
    (var / "mail" / "m.eml").write_bytes(bytes(mail))
    paid = Envelope("m", "payments.captured.v1", "/payments/charge", timestamp(NOW - 3600), "m")
    said = EmailSent(
        about="order", reference="o", customer_id="ann", to="ann@example.org", subject_line="s"
    )
    source = "/notifications/confirm"
    tells = Envelope("t", "notifications.email_sent.v1", source, timestamp(NOW - 3600), "m", "m")
    messages = [announced(paid, b"{}"), *([announced(tells, encode(said))] if told else [])]
    kept = Kept(service, dead=[letter("confirm")] if dead else [])
    return Evidence(Settings(var=var), [kept], messages, began=NOW, is_settled=True)


@pytest.mark.parametrize(
    ("told", "dead", "wrong"), [(True, False, False), (False, False, True), (False, True, False)]
)
def test_a_mail_was_announced_or_given_up(
    tmp_path: Path, told: bool, dead: bool, wrong: bool
) -> None:
    """One that was sent, then given up, is kept from being announced where its order died."""
    found = [str(one) for one in mails(evidence(tmp_path, dead=dead, told=told))]
    assert [("not announced" in one) for one in found] == [True] * wrong
