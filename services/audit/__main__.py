"""Run this service: `python -m services.audit`."""

from . import service

service.run()
