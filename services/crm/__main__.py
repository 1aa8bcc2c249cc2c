"""Run this service: `python -m services.crm`."""

from . import service

service.run()
