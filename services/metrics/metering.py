"""What every worker does for metrics: make facts of the log, count them, and drop what is too old."""

from __future__ import annotations

import asyncio
import logging

from services.metrics import ingest, rollups

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""The log is looked at so often: a look costs less than a notice with every write would."""
RETRY_SECONDS = 5.0


class Metering:
    """Runs in every worker, from `start` to `stop`. Killed at any moment, another one goes on from where it was."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._watermark = ingest.Watermark()

    def start(self) -> None:
        """Begin, as tasks of the running loop. The database must be connected."""
        self._tasks = [
            asyncio.create_task(self._ingest(), name="facts of metrics"),
            asyncio.create_task(self._roll(), name="rollups of metrics"),
        ]

    async def stop(self) -> None:
        """End. What is not done is rolled back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _ingest(self) -> None:
        while True:
            try:
                await self.follow()
                await asyncio.sleep(POLL_SECONDS)
            except Exception:
                logger.exception("No facts are made of the log; it is tried again.")
                await asyncio.sleep(RETRY_SECONDS)

    async def follow(self) -> None:
        """Read the log to its end, and go on with gaps that somebody began to fill."""
        for reader in await ingest.readers():
            looked = await self._watermark.look()
            while (events := await ingest.ingest(reader)) == ingest.BATCH:
                await asyncio.sleep(0)
            if reader == ingest.LOG and events is not None:
                await self._watermark.move(looked)

    async def _roll(self) -> None:
        while True:
            try:
                if await rollups.roll() < rollups.BATCH:
                    await asyncio.sleep(POLL_SECONDS)
            except Exception:
                logger.exception("Facts are not counted; it is tried again.")
                await asyncio.sleep(RETRY_SECONDS)
