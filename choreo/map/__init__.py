"""The choreography as the signatures tell it: who says what, who hears it, and how that looks."""

from __future__ import annotations

from choreo.map.drawn import Json, draw
from choreo.map.reach import find, flow, leave_out, reach

__all__ = ["Json", "draw", "find", "flow", "leave_out", "reach"]
