"""What `choreo rehearse` needs of this project: the outside world, stories and invariants."""
