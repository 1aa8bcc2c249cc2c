"""Makes outside calls: concurrently, each under a time limit, never inside a transaction."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from pydantic import ValidationError

from choreo.errors import CannotRunError, ChoreoError, explain
from choreo.failpoint import reach
from choreo.log import in_hand
from choreo.service import AdapterFactory, Service
from choreo.settings import Settings
from choreo.signature import Context
from choreo.store.memory import Row
from choreo.work import Call, Finished, Item


class CallTimeoutError(ChoreoError):
    """An outside call took longer than its time limit."""


class Calls:
    """The outside calls of one service, and the adapters that they use."""

    def __init__(
        self,
        service: Service,
        settings: Settings,
        adapters: Mapping[type, AdapterFactory] | None = None,
    ) -> None:
        """`adapters`: in the place of those that the service declares."""
        self._factories = service.adapters if adapters is None else adapters
        self._limit_s = settings.call_timeout_s
        self._most = settings.calls
        self._closing = False
        self._adapters: dict[type, Any] = {}
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Every call whose result is not committed, by kind, handler and message id.
        self.under_way: dict[tuple[str, str, str], Call] = {}
        #: The handlers that make them.
        self.handlers = tuple(one.name for one in service.handlers.values() if one.is_async)
        self.on_finished: Callable[[Finished], None] = lambda _: None

    @property
    def room(self) -> int:
        """How many more may begin."""
        return self._most - len(self.under_way)

    @property
    def may_kill(self) -> bool:
        """Whether one is under way that was lost with its process before."""
        return any(call.row["crashes"] for call in self.under_way.values())

    async def open(self) -> None:
        """Open the service's adapters; raises CannotRunError if one cannot be."""
        for kind, factory in self._factories.items():
            try:
                self._adapters[kind] = await self._stack.enter_async_context(factory())
            except Exception as error:
                why = explain(error) if isinstance(error, ValidationError) else error
                raise CannotRunError(
                    f"the adapter {kind.__name__} cannot be opened: {why}"
                ) from error

    async def close(self) -> None:
        """Cancel what is still under way and close the adapters."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    def begin(self, calls: Sequence[Call]) -> None:
        """Make calls; those of one message and handler one after the other, as given."""
        for call in calls:
            self.under_way[key_of(call.row)] = call
        for _, group in itertools.groupby(calls, lambda one: (one.envelope.id, one.handler.name)):
            task = asyncio.create_task(self._make(list(group)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def settle(self, items: Sequence[Item]) -> None:
        """The results of these calls are committed."""
        for item in items:
            if isinstance(item, Finished):
                self.under_way.pop(key_of(item.call.row), None)

    async def _make(self, calls: Sequence[Call]) -> None:
        for call in calls:
            self.on_finished(await self._one(call))

    async def _one(self, call: Call) -> Finished:
        handler = call.handler
        limit_s = handler.timeout_s or self._limit_s
        finished = Finished(call)
        in_hand.set((handler.name, call.envelope))
        try:
            async with asyncio.timeout(limit_s) as limit:
                for messages, context in call.runs:
                    wants = {
                        name: context if kind is Context else self._adapters[kind]
                        for name, kind in handler.signature.wants.items()
                    }
                    reach("call_begun")
                    returned = await handler.fn(*messages, **wants)
                    reach("called")
                    finished.results += handler.signature.results(returned)
        except asyncio.CancelledError:
            if self._closing:
                raise
            finished.error = CallTimeoutError("it was cancelled from within")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is an attempt that failed
            finished.error = error
            if isinstance(error, TimeoutError) and limit.expired():
                finished.error = CallTimeoutError(f"no answer within {limit_s:g} s")
        return finished


def key_of(row: Row) -> tuple[str, str, str]:
    """What tells two calls apart."""
    return row["kind"], row["handler"], row["message_id"]
