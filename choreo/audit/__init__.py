"""The auditor: reads what every service and the journal keep, and says which promise was broken.

It shares no code with what delivers messages: it would share its mistakes.
"""

from choreo.audit.ends import ends
from choreo.audit.evidence import Announced, Evidence, Kept, Trace
from choreo.audit.finding import Finding, Severity
from choreo.audit.gather import gather
from choreo.audit.verdict import Verdict, judge, project_audits

__all__ = [
    "Announced",
    "Evidence",
    "Finding",
    "Kept",
    "Severity",
    "Trace",
    "Verdict",
    "ends",
    "gather",
    "judge",
    "project_audits",
]
