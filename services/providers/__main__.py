"""Run this service: `python -m services.providers`."""

from . import service

service.run()
