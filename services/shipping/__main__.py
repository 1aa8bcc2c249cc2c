"""Run this service: `python -m services.shipping`."""

from . import service

service.run()
