"""Which queues a message reaches: exchanges, bindings and topic patterns, as RabbitMQ has them.

Source: AMQP 0-9-1, 3.1.3.3 "The topic exchange type"; the rest as the broker answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from choreo.rehearse.rabbit_queues import Queue


class Routing:
    """The exchanges, queues and bindings of a virtual host."""

    def __init__(self) -> None:
        #: "topic" or "direct", by name.
        self.exchanges: dict[str, str] = {}
        #: In the order in which they were declared.
        self.queues: dict[str, Queue] = {}
        #: Queue and key, by exchange.
        self._bindings: dict[str, dict[tuple[str, str], None]] = {}
        self._routes: dict[tuple[str, str], tuple[Queue, ...]] = {}

    def add_exchange(self, name: str, kind: str) -> None:
        """Have a new exchange."""
        self.exchanges[name] = kind
        self._bindings[name] = {}

    def add_queue(self, queue: Queue) -> None:
        """Have a new queue."""
        self.queues[queue.name] = queue
        self._routes.clear()

    def remove_queue(self, name: str) -> Queue:
        """Have it no more, nor what was bound to it."""
        for bindings in self._bindings.values():
            for binding in [one for one in bindings if one[0] == name]:
                del bindings[binding]
        self._routes.clear()
        return self.queues.pop(name)

    def bind(self, queue: str, exchange: str, key: str) -> None:
        """Give the queue what comes to the exchange with such a key."""
        bindings = self._bindings[exchange]
        if (queue, key) not in bindings:
            bindings[queue, key] = None
            self._routes.clear()

    def route(self, exchange: str, key: str) -> tuple[Queue, ...]:
        """The queues that get the message, once each; raises KeyError without the exchange."""
        found = self._routes.get((exchange, key))
        if found is None:
            names = dict.fromkeys(self._reached(exchange, key))
            found = self._routes[exchange, key] = tuple(self.queues[name] for name in names)
        return found

    def _reached(self, exchange: str, key: str) -> Iterator[str]:
        if not exchange:  # the default one leads to the queue that the key names
            if key in self.queues:
                yield key
            return
        is_topic = self.exchanges[exchange] == "topic"
        for queue, pattern in self._bindings[exchange]:
            if matches(pattern, key) if is_topic else pattern == key:
                yield queue


@lru_cache(maxsize=10_000)  # every schedule asks the same
def matches(pattern: str, key: str) -> bool:
    """Whether a topic pattern matches a routing key: `*` is one word, `#` any number of them."""
    return _match(_words(pattern), _words(key))


def _words(text: str) -> list[str]:
    """Empty words count; but an empty text has none."""
    return text.split(".") if text else []


def _match(pattern: Sequence[str], words: Sequence[str]) -> bool:
    if not pattern:
        return not words
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return any(_match(rest, words[at:]) for at in range(len(words) + 1))
    return bool(words) and first in ("*", words[0]) and _match(rest, words[1:])
