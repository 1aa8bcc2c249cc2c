"""RabbitMQ through aio-pika, which nothing outside this package knows."""

from choreo.rabbitmq import lenient
from choreo.rabbitmq.acks import Acks
from choreo.rabbitmq.broker import RabbitMQ, connected
from choreo.rabbitmq.declare import DELIVERY_LIMIT, declare
from choreo.rabbitmq.journal import journal
from choreo.rabbitmq.link import explain

__all__ = ["DELIVERY_LIMIT", "Acks", "RabbitMQ", "connected", "declare", "explain", "journal"]

lenient.install()
