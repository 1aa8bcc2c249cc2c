"""The command line as `python -m choreo`."""

from choreo.cli import main

main()
