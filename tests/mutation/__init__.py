"""Deliberate faults in the services' code, each of which a check or a rehearsal must find."""
