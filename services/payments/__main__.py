"""Run this service: `python -m services.payments`."""

from . import service

service.run()
