"""Looks at a running system, and says what is wrong and what to do about it."""

from choreo.doctor.checks import CHECKS, examine
from choreo.doctor.facts import Facts, look
from choreo.doctor.findings import Check, Finding, State
from choreo.doctor.stale import Stale, prune, stale

__all__ = ["CHECKS", "Check", "Facts", "Finding", "Stale", "State", "examine", "look", "prune",
           "stale"]  # fmt: skip
