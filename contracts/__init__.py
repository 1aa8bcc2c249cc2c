"""The agreement between the services: every event and command, and nothing else."""
