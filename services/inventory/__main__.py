"""Run this service: `python -m services.inventory`."""

from . import service

service.run()
