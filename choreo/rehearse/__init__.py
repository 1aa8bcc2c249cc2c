"""Rehearses the choreography: the real services in a simulated world, schedule by schedule.

A project's module of rehearsals takes what it needs from here: see `docs/rehearse.md`.
"""

from choreo.rehearse.outside import Outside
from choreo.rehearse.project import Story, invariant, stand_in, start
from choreo.rehearse.world import World

__all__ = ["Outside", "Story", "World", "invariant", "stand_in", "start"]
