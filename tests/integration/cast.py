"""Which services a test can have run, and which of the outside world's processes they need."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from choreo import Service

ORDERS = ("orders", "inventory", "payments", "shipping", "rewards", "notifications")
CONDUCTED_ORDERS = (*ORDERS, "order_process")
TRAVEL = ("reservations", "providers", "payments", "notifications", "rewards", "crm")
ACCOUNTS = ("accounts", "notifications", "crm", "audit")
ALL = tuple(dict.fromkeys((*CONDUCTED_ORDERS, *TRAVEL, *ACCOUNTS)))

PROVIDERS = ("airline", "hotel", "car")
_NEEDED = {"payments": ("gateway",), "shipping": ("carrier",), "providers": PROVIDERS}


def services(names: Iterable[str]) -> dict[str, Service]:
    """The services of these names, as their own processes know them."""
    return {name: import_module(f"services.{name}").service for name in names}


def sandboxes(names: Iterable[str]) -> list[str]:
    """What these services call outside."""
    return [sandbox for name in names for sandbox in _NEEDED.get(name, ())]
