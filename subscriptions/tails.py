"""Streams that many follow: each client gets what it has missed, and then what all get.

A tail is the end of one log in this process. It reads what is new once, whoever follows. A client that comes reads on
its own from its cursor until it stands where the tail stands; from there on the tail's events are its events.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

from core.errors import SlowConsumer

log = logging.getLogger(__name__)
E = TypeVar("E")
MOST_WAITING = 1000
"""Events that wait for one reader; what is more it reads from the log again."""


class Listener(Generic[E], ABC):
    """Who is told of a tail's events. Both are called at once and must not wait."""

    @abstractmethod
    def take(self, events: Sequence[E]) -> None:
        """What is new, in order."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """There will be no more."""


class Tail(Generic[E], ABC):
    """The living end of one log, as long as somebody follows it. `key` names it among those of this process."""

    _living: dict[Hashable, Tail[Any]] = {}

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self._listeners: dict[Listener[E], None] = {}
        self._users = 0
        self._error: Exception | None = None
        self._started = asyncio.Event()
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, key: Hashable, make: Callable[[], Tail[E]]) -> Tail[E]:
        """The tail of a log, which `make` makes where nobody follows it yet. Let go of it with `release`."""
        tail = cls._living.get(key)
        if tail is None:
            tail = cls._living[key] = make()
            tail._task = asyncio.create_task(tail._live())
        tail._users += 1
        return tail

    def release(self) -> None:
        """One that follows has left; with the last one the tail ends."""
        self._users -= 1
        if self._users == 0:
            if self._living.get(self.key) is self:
                del self._living[self.key]
            if self._task is not None:
                self._task.cancel()

    async def started(self) -> None:
        """Wait until the tail stands somewhere; raises what keeps it from it."""
        await self._started.wait()
        if self._error is not None:
            raise self._error

    async def moved(self) -> None:
        """Wait until something has changed; raises where nothing ever will."""
        if self._error is None:
            self._moved.clear()
            await self._moved.wait()
        if self._error is not None:
            raise self._error

    def join(self, listener: Listener[E]) -> None:
        """Tell this one from now on. What was told before, it has; so nothing is awaited since that was seen. Raises
        what the tail ended by."""
        if self._error is not None:
            raise self._error
        self._listeners[listener] = None

    def leave(self, listener: Listener[E]) -> None:
        """Tell it nothing more."""
        self._listeners.pop(listener, None)

    @abstractmethod
    async def follow(self) -> None:
        """Call `stand` once it is known where the log ends, and `tell` of what is new; never returns by itself."""

    def stand(self) -> None:
        """The tail stands somewhere."""
        self._started.set()

    def tell(self, events: Sequence[E]) -> None:
        """Something is new."""
        if events:
            for listener in list(self._listeners):
                listener.take(events)
        self._moved.set()

    async def _live(self) -> None:
        try:
            await self.follow()
        except Exception as error:
            # Whoever comes next begins anew.
            if self._living.get(self.key) is self:
                del self._living[self.key]
            self._error = error
            self._started.set()
            self._moved.set()
            for listener in list(self._listeners):
                try:
                    listener.fail(error)
                except Exception:
                    log.exception("One that followed %s could not be told of its end.", self.key)
            self._listeners.clear()


class Following(Generic[E], ABC):
    """One client's place in a log with a tail.

    following.open()
    async for event in following.missed(): …
    following.tail.join(listener)    # nothing awaited in between
    following.close()
    """

    tail: Tail[E]

    def __init__(self) -> None:
        self.ended: Callable[[Exception], None] = lambda error: None
        """Called once where the client's right to follow has ended."""
        self.state: Hashable = None
        """In what state the log is while `missed` is read: between equal ones, equal events have not changed."""

    @abstractmethod
    def open(self) -> None:
        """Begin to follow."""

    @abstractmethod
    def close(self) -> None:
        """Follow no more."""

    @abstractmethod
    def missed(self) -> AsyncIterator[E]:
        """What the client does not have, up to where the tail stands. Raises NotFound, CursorExpired, BadInput."""

    @abstractmethod
    def go_on_after(self, event: E) -> None:
        """The client has this event, which came from the tail."""

    async def __aiter__(self) -> AsyncGenerator[E, None]:
        """All of it: what was missed, and what comes, for as long as the client may follow."""
        self.open()
        try:
            while True:
                async for event in self.missed():
                    yield event
                queue = _Queue[E]()
                self.ended = queue.fail
                self.tail.join(queue)
                try:
                    while True:
                        event = await queue.next()
                        self.go_on_after(event)
                        yield event
                except SlowConsumer:
                    continue  # nothing is lost: the log has it
                finally:
                    self.tail.leave(queue)
        finally:
            self.close()


class _Queue(Listener[E]):
    def __init__(self) -> None:
        self._events: deque[E] = deque()
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def take(self, events: Sequence[E]) -> None:
        if self._error is None:
            self._events.extend(events)
            if len(self._events) > MOST_WAITING:
                self._events.clear()
                self._error = SlowConsumer("More events came than were read.")
        self._wake()

    def fail(self, error: Exception) -> None:
        if self._error is None or isinstance(self._error, SlowConsumer):
            self._error = error
            self._events.clear()
        self._wake()

    async def next(self) -> E:
        while not self._events:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._events.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
