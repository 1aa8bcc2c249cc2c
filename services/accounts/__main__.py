"""Run this service: `python -m services.accounts`."""

from . import service

service.run()
