"""choreo: a service as anybody writes one, run as `choreo run` runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from pydantic import BaseModel

from benchmark import hop
from choreo import Connection, Event, Service, process
from choreo import log as logs
from choreo.rabbitmq import RabbitMQ, broker
from choreo.seams import Outgoing
from choreo.settings import load


class Line(BaseModel):
    """One line of an order."""

    sku: str
    quantity: int
    unit_price: str


class Placed(Event, topic=f"{hop.NAME}.placed", subject="order_id"):
    """What comes in."""

    order_id: str
    customer_id: str
    lines: list[Line]
    total: str


class Reserved(Event, topic=f"{hop.NAME}.reserved", subject="order_id"):
    """What goes out."""

    order_id: str


class Cancelled(Event, topic=f"{hop.NAME}.cancelled", subject="order_id"):
    """What would take it back."""

    order_id: str


service = Service(hop.NAME, tables=hop.tables)


@service.setup
def fill(db: Connection) -> None:
    """Have enough of everything."""
    if not db.execute(hop.stock.select().limit(1)).first():
        db.execute(hop.stock.insert(), hop.FULL_STOCK)


@service.on
def reserve(order: Placed, db: Connection) -> Reserved:
    """Hold the first line."""
    line = order.lines[0]
    db.execute(hop.TAKE, {"k_sku": line.sku, "n": line.quantity})
    hold = {"order_id": order.order_id, "sku": line.sku, "quantity": line.quantity}
    db.execute(hop.HOLD, hold)
    return Reserved(order_id=order.order_id)


@reserve.undo
def release(cause: Cancelled, held: Reserved, db: Connection) -> None:
    """Give it back: declared so that steps are remembered, as in a real service."""
    db.execute(hop.holds.delete().where(hop.holds.c.order_id == held.order_id))


async def run(job: hop.Job, watch: hop.Stopwatch) -> None:
    """Run the service until everything that it says is confirmed."""

    class Watched(RabbitMQ):
        """The broker seam, with an eye on what comes first and last."""

        async def _consume(self, channel: Any) -> None:
            watch.start()
            await super()._consume(channel)

        async def publish(self, messages: Sequence[Outgoing]) -> dict[str, str]:
            failures = await super().publish(messages)
            watch.count(len(messages) - len(failures))
            return failures

    async def declared_already(*_: object) -> None:
        """The bench has declared it all, with the journal bound for everybody or for nobody."""

    settings = load(
        amqp_url=job.amqp_url, database_url=job.database_url, var=job.path, log_level="warning"
    )
    logs.configure(settings)
    with (
        patch.object(process, "RabbitMQ", Watched),
        patch.object(broker, "declare", declared_already),
    ):
        await process.run(service, settings, watch.done)


if __name__ == "__main__":
    hop.measure(run)
