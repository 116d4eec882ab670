"""What subscribers read from the bus, and the bounded queue they read it from."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from core.errors import SlowConsumer, Unavailable

JSON = Any  # what orjson writes: None, bool, int, float, str, list and dict of these


@dataclass(frozen=True, slots=True)
class BusMessage:
    """One published message. Several subscribers share the object: do not change `data`."""

    channel: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages may have been missed before this point: read the current state from the database again."""

    reason: str


Notice = BusMessage | Gap


class BusSubscription(AsyncIterator[Notice]):
    """The notices of some channels, in the order in which each channel carried them. For one reading task.

    Iteration ends when the bus is closed.
    """

    def __init__(self, queue_size: int) -> None:
        self._queue_size = queue_size
        self._queue: deque[Notice] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._lagging = False
        self._closed = False

    async def next(self, timeout: float | None = None) -> Notice | None:
        """The next notice, or None when none came for `timeout` seconds (None: wait for ever).

        Raises SlowConsumer when more than the queue's size waited to be read: this subscription is over, the
        reader starts again from its cursor. Raises Unavailable when the bus is closed.
        """
        if not self._ready():
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout):
                    await self._waiter
            except TimeoutError:
                return None
            finally:
                self._waiter = None
        if self._lagging:
            raise SlowConsumer(f"more than {self._queue_size} events waited to be read; reconnect from the last cursor")
        if not self._queue:
            raise Unavailable("the event bus is closed: the service is stopping; reconnect")
        return self._queue.popleft()

    def __aiter__(self) -> BusSubscription:
        return self

    async def __anext__(self) -> Notice:
        if self._closed and not self._queue and not self._lagging:
            raise StopAsyncIteration
        try:
            notice = await self.next()
        except Unavailable:
            raise StopAsyncIteration from None
        assert notice is not None  # only a timeout gives None
        return notice

    def offer(self, notice: Notice) -> None:
        """Put a notice into the queue; never blocks."""
        if self._lagging:
            return
        if isinstance(notice, Gap) and self._queue and isinstance(self._queue[-1], Gap):
            return
        if len(self._queue) >= self._queue_size:
            self._lagging = True
            self._queue.clear()
        else:
            self._queue.append(notice)
        self._wake()

    def end(self) -> None:
        """No more notices will come. For the bus only."""
        self._closed = True
        self._wake()

    def _ready(self) -> bool:
        return bool(self._queue) or self._lagging or self._closed

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
