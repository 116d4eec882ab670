"""What workers do over and over: take what is due, woken by a notice on the bus or looking by themselves; and how long
to wait before something that failed is tried again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from core.bus import BusSubscription
from core.errors import SlowConsumer, Unavailable
from services.parts import parts

logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 30.0
LONGEST_RETRY_SECONDS = 3600.0

_RETRY_SECONDS = 5.0
_STOP_SECONDS = 5.0


class Loop:
    """Runs in a worker from `start` to `stop`: calls `once`, at once again while it says that it found something."""

    def __init__(
        self, name: str, once: Callable[[], Awaitable[int]], *, woken_by: str, poll_seconds: float = 2.0
    ) -> None:
        self._name, self._once, self._channel, self._poll_seconds = name, once, woken_by, poll_seconds
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Begin, as a task of the running loop. The database must be connected and the parts installed."""
        assert self._task is None, "it runs already"
        self._stopping.clear()
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """End when what is in hand is done, or after a few seconds: then its claims run out."""
        if self._task is not None:
            self._stopping.set()
            await asyncio.wait({self._task}, timeout=_STOP_SECONDS)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                async with parts().bus.subscribe(self._channel) as notices:
                    while not self._stopping.is_set():
                        if not await self._once():
                            await self._woken(notices)
            except SlowConsumer:
                continue  # so many notices say no more than one
            except Exception:
                logger.exception("The %s rests for a moment.", self._name)
                await self._pause(_RETRY_SECONDS)

    async def _woken(self, notices: BusSubscription) -> None:
        stopping = asyncio.ensure_future(self._stopping.wait())
        notice = asyncio.ensure_future(notices.next(self._poll_seconds))
        try:
            await asyncio.wait({stopping, notice}, return_when=asyncio.FIRST_COMPLETED)
            if notice.done() and isinstance(notice.exception(), Unavailable):
                await self._pause(self._poll_seconds)  # the bus is gone before us; what is due is not
            elif notice.done():
                notice.result()
        finally:
            for waiting in (stopping, notice):
                waiting.cancel()
            await asyncio.gather(stopping, notice, return_exceptions=True)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            pass


def retry_after(attempt: int) -> float:
    """Seconds until the next attempt: exponential, and spread, so that what failed together does not come together."""
    return min(FIRST_RETRY_SECONDS * 2.0 ** (attempt - 1), LONGEST_RETRY_SECONDS) * random.uniform(0.5, 1.5)
