"""Stopping a segment of work from outside while it waits for something."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class StopRequestedError(Exception):
    """The segment was told to stop; what it was waiting for has been cancelled."""


class Interruption:
    """A request to stop, valid for one segment."""

    def __init__(self) -> None:
        self._requested = asyncio.Event()

    @property
    def requested(self) -> bool:
        return self._requested.is_set()

    def request(self) -> None:
        """Stop whatever is awaited under `watch`, now and from now on."""
        self._requested.set()

    async def watch(self, work: Awaitable[T]) -> T:
        """The result of `work`; raises StopRequestedError once a stop is requested and `work` has been cancelled."""
        task = asyncio.ensure_future(work)
        request = asyncio.ensure_future(self._requested.wait())
        try:
            await asyncio.wait({task, request}, return_when=asyncio.FIRST_COMPLETED)
            if task.done() and not (task.cancelled() and self.requested):
                return task.result()
        finally:
            request.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        raise StopRequestedError
