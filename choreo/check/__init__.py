"""The check: what can be proved of a choreography without running any of it."""

from choreo.check.checking import check
from choreo.check.choreography import Choreography
from choreo.check.finding import Explored, Finding, Happening, Report, Rule

__all__ = ["Choreography", "Explored", "Finding", "Happening", "Report", "Rule", "check"]
