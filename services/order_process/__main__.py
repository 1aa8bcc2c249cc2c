"""Run this service: `python -m services.order_process`."""

from . import service

service.run()
