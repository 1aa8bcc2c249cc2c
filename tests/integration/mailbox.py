"""The mails that went out of a test's system."""

from __future__ import annotations

import email
from pathlib import Path


def mails(var: Path) -> list[str]:
    """The Message-IDs of the mails that were sent."""
    files = (var / "mail").glob("*.eml")
    sent = (email.message_from_bytes(file.read_bytes())["Message-ID"] for file in files)
    return [one.removeprefix("<").removesuffix("@choreo>") for one in sent]
