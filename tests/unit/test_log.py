"""The log for people: what an error shows, and what it must not show."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from test_docs import ROOT

#: Logs an error by choreo's logger and by the library's, with secrets in reach.
FAILS = """
import logging
from choreo import log
from choreo.settings import load

def work(settings, body):
    raise KeyError("no such door")

settings = load()
log.configure(settings, "shop")
try:
    work(settings, "a secret body".upper())
except KeyError:
    url = settings.amqp_url
    log.logger("shop").exception("died")
    logging.getLogger("library").exception("failed")
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_an_error_shows_where_and_why_and_no_values(form: str) -> None:
    env = os.environ | {
        "CHOREO_AMQP_URL": "amqp://shop:PASSWORD@host/",
        "CHOREO_LOG_FORMAT": form,
    }
    done = subprocess.run(
        [sys.executable, "-c", FAILS], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert done.stderr.count("KeyError: 'no such door'") == 2
    assert done.stderr.count("Traceback") == 2
    assert "PASSWORD" not in done.stderr
    assert "SECRET" not in done.stderr
