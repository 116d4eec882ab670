"""A worker whose jobs take as many milliseconds as their segment's number."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

import asyncpg

from integrations.durable import lease
from integrations.durable.base import Job
from integrations.durable.dbos_queue import DurableQueue

GRACE_SECONDS = 2


async def main(url: str, per_worker: int, per_organization: int, silent_seconds: int) -> None:
    lease.SILENT_SECONDS = silent_seconds
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    pool = await asyncpg.create_pool(url, min_size=1, max_size=5)

    async def execute(job: Job) -> None:
        number = await pool.fetchval(
            "INSERT INTO executions (key, organization, process, attempt) VALUES ($1, $2, $3, $4) RETURNING number",
            job.key,
            str(job.organization_id),
            os.getpid(),
            job.attempt,
        )
        outcome = "cut off"
        try:
            await work(job.segment / 1000)
            outcome = "done"
        finally:
            await pool.execute(
                "UPDATE executions SET ended_at = clock_timestamp(), outcome = $2 WHERE number = $1", number, outcome
            )

    queue = DurableQueue(url)
    await queue.work(execute, per_worker=per_worker, per_organization=per_organization)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await stopping.wait()
    await queue.stop(GRACE_SECONDS)
    await pool.close()


async def work(seconds: float) -> None:
    """Counts only the time in which the process was awake, as real work does."""
    while seconds > 0:
        before = time.thread_time()
        await asyncio.sleep(min(seconds, 0.05))
        seconds -= max(min(seconds, 0.05), time.thread_time() - before)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *(int(argument) for argument in sys.argv[2:])))
