"""Run this service: `python -m services.reservations`."""

from . import service

service.run()
