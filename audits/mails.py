"""A mail is its Message-ID: one was sent for each that was announced, and none besides."""

from __future__ import annotations

from collections.abc import Iterator
from email.parser import BytesParser
from urllib.parse import unquote

from choreo.audit import Evidence, Finding
from contracts.notifications import EmailSent


def mails(evidence: Evidence) -> Iterator[Finding]:
    """Every mail that was announced was sent, and every one that was sent was announced."""
    folder = evidence.settings.var / "mail"
    if "notifications" not in evidence.kept or not folder.is_dir():
        return  # a mail server has them
    sent: set[str] = set()
    for file in folder.glob("*.eml"):
        with file.open("rb") as opened:
            said = str(BytesParser().parse(opened, headersonly=True)["Message-ID"])
        sent.add(unquote(said.removeprefix("<").removesuffix("@choreo>")))
    announced: set[str] = set()
    for message, mail in evidence.of(EmailSent):
        announced.add(str(message.envelope.causation))
        if message.envelope.causation not in sent and message.envelope.flow in evidence.ended:
            yield Finding(
                "mail",
                f"a mail to {mail.to} was announced, and is not in {folder}",
                flow=message.envelope.flow,
                message=message.envelope.causation,
                handler="notifications",
            )
    # It may have been sent before it was given up; a cancelled order then keeps it from being sent
    # again, and so from being announced. Its dead letter tells of it.
    given_up = {message for name, _, message in evidence.given_up if name == "notifications"}
    for key in sent - announced - given_up:
        about = evidence.messages.get(key)
        if about is not None and about.envelope.flow in evidence.ended:
            yield Finding(
                "mail",
                f"a mail was sent for this {about.envelope.type}, and not announced",
                flow=about.envelope.flow,
                message=key,
                handler="notifications",
            )
