"""Run this service: `python -m services.rewards`."""

from . import service

service.run()
