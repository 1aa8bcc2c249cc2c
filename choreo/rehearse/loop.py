"""An event loop whose time is simulated, and whose order between processes a schedule decides."""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from inspect import CORO_CLOSED, getcoroutinestate
from types import CoroutineType
from typing import Any, NoReturn, cast

#: More is run at one moment only by who goes round in circles; the busiest schedule needs hundreds.
_MOST_AT_ONCE = 100_000
#: So many waits of its clean-up are broken off when a coroutine is closed.
_MOST_CLOSES = 100


class KilledError(BaseException):
    """The simulated process is gone: raised where it stood, and caught by nobody but the loop."""


class LivelockError(Exception):
    """A process has something to do again and again, and time does not go on."""


class NoNetworkError(Exception):
    """A handler wants a connection, and there is nothing that it could lead to."""


class Actor:
    """One simulated process: what it has to do is done in order, or dropped when it is killed."""

    def __init__(self, name: str, place: Any = None) -> None:
        """`place`: where it runs, for whoever asks while its code runs."""
        self.name = name
        self.place = place
        self.is_alive = True
        #: While it is suspended what it has to do waits.
        self.is_suspended = False
        self.ready: deque[Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []

    def unnoticed(self) -> Iterator[str]:
        """The errors that its tasks ended with, and that nobody asked for."""
        for task in self.tasks:
            if task.done() and not task.cancelled() and getattr(task, "_log_traceback", False):
                error = task.exception()
                if error is not None and not isinstance(error, KilledError | SystemExit):
                    yield f"{self.name}: a task failed, and nobody noticed: {error!r}"

    def close(self) -> None:
        """Let go of what never comes to an end, without letting it act any more."""
        self.is_alive = False
        self.ready.clear()
        for task in self.tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
                coroutine = task.get_coro()
                if isinstance(coroutine, CoroutineType) and not coroutine.cr_running:
                    _close(coroutine)
        self.tasks.clear()


def _close(coroutine: CoroutineType[Any, Any, Any]) -> None:
    """Close it, although its clean-up may wait, which a closed one must not, or fail."""
    for _ in range(_MOST_CLOSES):
        with suppress(Exception):
            coroutine.close()
        if getcoroutinestate(coroutine) == CORO_CLOSED:
            return


#: Whose code runs; each task inherits it.
actor: ContextVar[Actor] = ContextVar("actor")


class Handle:
    """Something to be called, at once or at a time."""

    __slots__ = ("_args", "_callback", "_cancelled", "_when", "context")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context, when: float
    ) -> None:
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._when = when
        self.context = context

    def run(self) -> None:
        """Call it, unless it was cancelled."""
        if not self._cancelled:
            self.context.run(self._callback, *self._args)

    def __str__(self) -> str:
        task = getattr(self._callback, "__self__", None)
        if isinstance(task, asyncio.Task):
            return str(getattr(task.get_coro(), "__qualname__", task))
        return str(getattr(self._callback, "__qualname__", self._callback))

    def when(self) -> float:
        """The time of the loop at which it is called."""
        return self._when

    def cancel(self) -> None:
        """Have it not called."""
        self._cancelled = True

    def cancelled(self) -> bool:
        """Whether that was said."""
        return self._cancelled


class Loop:
    """What of an event loop asyncio's tasks want; no threads, no sockets, no time but its own."""

    def __init__(
        self,
        choose: Callable[[int], int],
        on_error: Callable[[str], None],
        on_exit: Callable[[Actor, SystemExit], None],
    ) -> None:
        """`choose`: of so many processes that can go on, which does; `on_error`: told of errors.

        `on_exit`: told of who leaves by itself.
        """
        self._choose = choose
        self._on_error = on_error
        self._on_exit = on_exit
        self._now = 0.0
        self._timers: list[tuple[float, int, Handle]] = []
        self._numbers = 0
        #: Processes with something to do, each once, in the order in which they came to have it.
        self._waiting: list[Actor] = []
        #: As asyncio knows it.
        self._itself = cast("asyncio.AbstractEventLoop", self)

    # What the rehearsal does with it.

    @contextmanager
    def running(self) -> Generator[None]:
        """Let asyncio know that this is the loop that runs."""
        events._set_running_loop(self._itself)  # noqa: SLF001 - as every event loop does
        try:
            yield
        finally:
            events._set_running_loop(None)  # noqa: SLF001

    def drain(self) -> None:
        """Run what is ready, until nothing is: one process after the other, as chosen.

        Raises LivelockError if that never comes.
        """
        waiting = self._waiting
        left = _MOST_AT_ONCE
        while waiting:
            many = len(waiting)
            one = waiting.pop(self._choose(many) if many > 1 else 0)
            ready = one.ready
            while ready and not one.is_suspended:
                handle = ready.popleft()
                try:
                    handle.run()
                except KilledError:
                    pass
                except SystemExit as left_by:
                    self._on_exit(one, left_by)
                except Exception as error:  # noqa: BLE001 - it would be lost otherwise
                    self._on_error(f"{one.name}: a callback failed: {error!r}")
                left -= 1
                if not left:
                    raise LivelockError(f"{one.name} goes round in circles: {handle}")

    def next_time(self) -> float | None:
        """When the next timer is due; None if there is none."""
        timers = self._timers
        while timers and (timers[0][2].cancelled() or not timers[0][2].context[actor].is_alive):
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def advance(self, at_least: float = 0.0) -> bool:
        """Let time go on to the next timer, and to this time; False if there is none."""
        time = self.next_time()
        if time is None:
            return False
        self._now = max(self._now, time, at_least)
        while self._timers and self._timers[0][0] <= self._now:
            self._ready(heapq.heappop(self._timers)[2])
        return True

    def resume(self, one: Actor) -> None:
        """Let a process go on that was suspended, with all that came due in the meantime."""
        one.is_suspended = False
        if one.ready:
            self._waiting.append(one)

    def spawn(self, whose: Actor, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin a task of a process."""
        context = copy_context()
        context.run(actor.set, whose)
        return context.run(self.create_task, work)

    # What asyncio wants of it.

    def time(self) -> float:  # noqa: D102
        return self._now

    def get_debug(self) -> bool:  # noqa: D102
        return False

    def is_running(self) -> bool:  # noqa: D102
        return True

    def is_closed(self) -> bool:  # noqa: D102
        return False

    def create_future(self) -> asyncio.Future[Any]:  # noqa: D102
        return asyncio.Future(loop=self._itself)

    def create_task(  # noqa: D102
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **_: Any
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(
            coro, loop=self._itself, name=name or "", context=context
        )
        (context[actor] if context is not None else actor.get()).tasks.append(task)
        return task

    def call_soon(  # noqa: D102
        self,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Handle:
        handle = Handle(callback, args, context or copy_context(), self._now)
        self._ready(handle)
        return handle

    def call_later(  # noqa: D102
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Handle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # noqa: D102
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Handle:
        handle = Handle(callback, args, context or copy_context(), when)
        self._numbers += 1
        heapq.heappush(self._timers, (when, self._numbers, handle))
        return handle

    async def run_in_executor(  # noqa: D102
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> Any:
        return func(*args)  # in this thread: there is no other

    def _no_network(self, *_: object, **__: object) -> NoReturn:
        raise NoNetworkError(
            "a rehearsal has no network: call it through an adapter, and declare a @stand_in"
        )

    create_connection = create_datagram_endpoint = create_server = _no_network
    create_unix_connection = create_unix_server = connect_accepted_socket = _no_network
    getaddrinfo = getnameinfo = start_tls = add_reader = add_writer = _no_network
    sock_connect = sock_accept = sock_recv = sock_recv_into = sock_sendall = _no_network

    def call_exception_handler(self, context: dict[str, Any]) -> None:  # noqa: D102
        error = context.get("exception")
        if not isinstance(error, KilledError):
            self._on_error(f"{context.get('message')}: {error!r}")

    def _ready(self, handle: Handle) -> None:
        one = handle.context[actor]
        if one.is_alive:
            if not one.ready and not one.is_suspended and one not in self._waiting:
                self._waiting.append(one)
            one.ready.append(handle)
