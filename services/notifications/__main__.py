"""Run this service: `python -m services.notifications`."""

from . import service

service.run()
