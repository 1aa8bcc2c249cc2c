"""Stand-ins for the outside world: processes with books of their own, known only over HTTP."""
