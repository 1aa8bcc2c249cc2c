"""A customer, a context and a database, for the tests in this folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import create_engine

from choreo import Connection, Context, Service
from contracts.customers import Customer
from contracts.orders import Line

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANN = Customer(customer_id="ann", email="ann@example.org", address="1 High Street")
MEMBER = ANN.model_copy(update={"customer_id": "mia", "member": True})
TEA = (Line(sku="TEA-1", quantity=2),)


def context(key: str) -> Context:
    return Context(
        flow="flow",
        message_id="message",
        type="orders.placed.v1",
        source="/orders/place",
        time=NOON,
        subject=None,
        causation=None,
        key=key,
    )


@contextmanager
def database(service: Service) -> Iterator[Connection]:
    """An in-memory database as the service finds it after its start."""
    assert service.tables is not None
    engine = create_engine("sqlite://")
    with engine.begin() as db:
        service.tables.create_all(db)
        start(service, db)
        yield db
    engine.dispose()


def start(service: Service, db: Connection) -> None:
    for setup in service.setups:
        setup(db)
