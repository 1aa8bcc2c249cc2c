"""Run this service: `python -m services.orders`."""

from . import service

service.run()
