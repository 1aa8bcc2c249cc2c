"""Notifications: write to the customer when money came in, and when the order died."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta

from choreo import Context, Service
from contracts.notifications import EmailSent
from contracts.orders import OrderCancelled
from contracts.payments import PaymentCaptured

from .mail import Mailer, Settings

service = Service("notifications")


@service.adapter
async def open_mailer() -> AsyncGenerator[Mailer]:
    """Send by SMTP where a server is set, else into files."""
    yield Mailer(Settings())


@service.on(
    final="a sent mail cannot be unsent", unless=OrderCancelled, timeout=timedelta(seconds=30)
)
async def confirm(paid: PaymentCaptured, context: Context, mailer: Mailer) -> EmailSent:
    """Tell the customer that the payment came in."""
    lines = "\n".join(f"  {line.quantity} x {line.sku}" for line in paid.lines)
    subject = f"Your order {paid.order_id}: payment received"
    amount = f"{paid.amount // 100}.{paid.amount % 100:02d}"
    text = f"Thank you. We have received {amount} and will send you\n\n{lines}\n"
    await mailer.send(
        key=context.key, at=context.time, to=paid.customer.email, subject=subject, text=text
    )
    return EmailSent(order_id=paid.order_id, to=paid.customer.email, subject_line=subject)


@service.on(final="a sent mail cannot be unsent", timeout=timedelta(seconds=30))
async def apologise(order: OrderCancelled, context: Context, mailer: Mailer) -> EmailSent:
    """Tell the customer that the order died, and why."""
    subject = f"Your order {order.order_id}: cancelled"
    text = (
        f"We are sorry: we had to cancel your order ({order.reason}).\n"
        "If you have paid, you get the money back in full.\n"
    )
    await mailer.send(
        key=context.key, at=context.time, to=order.customer.email, subject=subject, text=text
    )
    return EmailSent(order_id=order.order_id, to=order.customer.email, subject_line=subject)
