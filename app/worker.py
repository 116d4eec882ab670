"""`quarterdeck worker`: executes runs until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal

from app.serve import tune_memory
from app.wiring import among_processes, connected, database_url, working
from core.settings import Settings

logger = logging.getLogger(__name__)


async def work(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT.

    Runs under way then get DRAIN_SECONDS to end; those that do not are INTERRUPTED (WORKER_STOPPED). Runs that wait
    in the queue are other workers', and this one claims no more of them.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    url = database_url(settings)
    async with connected(among_processes(settings, url), url) as program, working(program):
        tune_memory()
        logger.info("Worker %s is ready: %s runs at a time.", program.parts.executor_id, settings.worker_concurrency)
        await stop.wait()
        logger.info("Worker %s stops.", program.parts.executor_id)
