"""RabbitMQ through aio-pika, which nothing outside this package knows."""

from choreo.rabbitmq import lenient
from choreo.rabbitmq.acks import Acks
from choreo.rabbitmq.broker import RabbitMQ, connected
from choreo.rabbitmq.declare import DELIVERY_LIMIT, declare
from choreo.rabbitmq.journal import PREFETCH, Past, journal, past
from choreo.rabbitmq.link import explain

__all__ = [
    "DELIVERY_LIMIT",
    "PREFETCH",
    "Acks",
    "Past",
    "RabbitMQ",
    "connected",
    "declare",
    "explain",
    "journal",
    "past",
]

lenient.install()
