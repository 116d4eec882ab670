"""Doing tests of templates, in every worker: claimed for a while, and another's where a worker is gone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from uuid import UUID

from core import db
from core.bus import BusMessage, BusSubscription
from core.errors import SlowConsumer, Unavailable
from core.ids import encode
from models.base import Row
from models.templates import TemplateTestRow
from services.parts import parts
from services.templates.putting_away import ENDING_SECONDS, put_away
from services.templates.reports import Lost, Report, test_channel
from services.templates.steps_of_tests import take_steps
from services.templates.testing import TESTS

logger = logging.getLogger(__name__)

AT_ONCE = 4
"""Tests that one worker has in hand: they wait for runs most of the time."""
OF_ORGANIZATION = 4
"""Tests of one organisation that are done at a time, by all workers together."""
LEASE_SECONDS = 15
BEAT_SECONDS = 4.0

_POLL_SECONDS = 2.0
_RETRY_SECONDS = 5.0
_STOP_SECONDS = 5.0
_CLAIM_LOCK = 0x74706C74
"""Advisory lock of whoever claims: two at it would take more than an organisation may have."""

# The oldest of each organisation first, as far as it has room; those whose worker is gone have their room already.
_CLAIM = """
WITH held AS (
    SELECT organization_id, count(*) AS number FROM template_tests
    WHERE status = 'RUNNING' AND lease_until >= now() GROUP BY organization_id
), free AS (
    SELECT id, organization_id, row_number() OVER (PARTITION BY organization_id ORDER BY id) AS place
    FROM template_tests WHERE status = 'QUEUED' OR (status = 'RUNNING' AND lease_until < now())
), chosen AS (
    SELECT free.id FROM free LEFT JOIN held USING (organization_id)
    WHERE free.place + coalesce(held.number, 0) <= $4 ORDER BY free.id LIMIT $3
)
UPDATE template_tests SET status = 'RUNNING', executor = $1, lease_until = now() + $2 * interval '1 second',
    started_at = coalesce(started_at, now()), attempt = greatest(attempt, 1), revision = revision + 1
FROM chosen WHERE template_tests.id = chosen.id AND template_tests.status IN ('QUEUED', 'RUNNING')
RETURNING template_tests.*
"""
_CLAIM_UNTIDY = """
UPDATE template_tests SET executor = $1, lease_until = now() + $2 * interval '1 second'
WHERE id IN (
    SELECT id FROM template_tests WHERE status NOT IN ('QUEUED', 'RUNNING') AND lease_until < now()
    ORDER BY lease_until LIMIT $3 FOR UPDATE SKIP LOCKED
) RETURNING id, organization_id, session_id
"""
_BEAT = """
UPDATE template_tests SET lease_until = now() + $3 * interval '1 second'
WHERE id = $1 AND executor = $2 AND status = 'RUNNING' RETURNING id
"""
_HAND_BACK = "UPDATE template_tests SET lease_until = now() WHERE id = $1 AND executor = $2 AND status = 'RUNNING'"
_HOLD_ENDED = """
UPDATE template_tests SET lease_until = now() + $3 * interval '1 second'
WHERE id = $1 AND executor = $2 AND status NOT IN ('QUEUED', 'RUNNING') RETURNING id
"""
_TIDY = "UPDATE template_tests SET lease_until = NULL WHERE id = $1 AND executor = $2 AND status <> 'RUNNING'"


class Tester:
    """Runs in every worker, from `start` to `stop`."""

    __test__ = False

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._under_way: dict[UUID, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begin, as a task of the running loop. The database must be connected and the parts installed."""
        assert self._task is None, "it runs already"
        self._stopping.clear()
        self._task = asyncio.create_task(self._run(), name="template tester")

    async def stop(self) -> None:
        """Take no more tests, and leave those under way to other workers."""
        if self._task is not None:
            self._stopping.set()
            self._task.cancel()
            tasks = [self._task, *self._under_way.values()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_STOP_SECONDS)
            self._task = None

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                async with parts().bus.subscribe(TESTS) as notices:
                    while True:
                        await self._take()
                        await _woken(notices)
            except SlowConsumer:
                continue  # so many notices say no more than one
            except Exception:
                logger.exception("Tests of templates are not done for a moment.")
                await asyncio.sleep(_RETRY_SECONDS)

    async def _take(self) -> None:
        room = AT_ONCE - len(self._under_way)
        if room <= 0:
            return
        executor = parts().executor_id
        for test in await _claimed(executor, room):
            self._begin(test["id"], self._test(test))
        for row in await db.fetch(_CLAIM_UNTIDY, executor, LEASE_SECONDS * 2, room, row=Row):
            self._begin(row["id"], _tidy(row["id"], executor, row["organization_id"], row["session_id"]))

    def _begin(self, test_id: UUID, work: Coroutine[Any, Any, None]) -> None:
        if test_id in self._under_way:  # our own, which took longer than its lease; it finds out by itself
            work.close()
            return
        task = asyncio.create_task(work, name=f"test {encode('tpt', test_id)}")
        self._under_way[test_id] = task
        task.add_done_callback(lambda done: self._done(test_id, done))

    def _done(self, test_id: UUID, task: asyncio.Task[None]) -> None:
        self._under_way.pop(test_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("Test %s was left; it is taken up again.", encode("tpt", test_id), exc_info=error)
        if not self._stopping.is_set() and parts().bus.connected:
            wake = asyncio.ensure_future(parts().bus.publish(TESTS, {}))
            wake.add_done_callback(lambda woken: woken.cancelled() or woken.exception())

    async def _test(self, test: TemplateTestRow) -> None:
        report = Report(test)
        executor = test["executor"]
        steps = asyncio.create_task(take_steps(test, report))
        beat = asyncio.create_task(_keep(test["id"], executor))
        try:
            await asyncio.wait({steps, beat}, return_when=asyncio.FIRST_COMPLETED)
            if not steps.done():
                logger.info("Test %s was cancelled, or is another worker's now.", encode("tpt", test["id"]))
                await _end(steps)
            else:
                with suppress(Lost):
                    steps.result()
                    await report.finish()
        except asyncio.CancelledError:
            # This worker stops. Another one need not wait until the lease has run out.
            await _end(steps, beat)
            await asyncio.shield(db.execute(_HAND_BACK, test["id"], executor))
            raise
        finally:
            await _end(steps, beat)
        session_id = await db.fetchval(
            "SELECT session_id FROM template_tests WHERE id = $1 AND executor = $2", test["id"], executor
        )
        await _tidy(test["id"], executor, test["organization_id"], session_id)


async def _claimed(executor: str, room: int) -> list[TemplateTestRow]:
    async with db.transaction() as tx:
        if not await tx.fetchval("SELECT pg_try_advisory_xact_lock($1)", _CLAIM_LOCK):
            return []
        # A statement of its own, so that it sees what the lock's last holder claimed.
        return await tx.fetch(_CLAIM, executor, LEASE_SECONDS, room, OF_ORGANIZATION, row=TemplateTestRow)


async def _tidy(test_id: UUID, executor: str, organization_id: UUID, session_id: UUID | None) -> None:
    """Put away the session of a test that is over. What does not work now is tried again when the lease has run out."""
    if await db.fetchval(_HOLD_ENDED, test_id, executor, 2 * ENDING_SECONDS) is None:
        return  # nothing has begun, or it is another worker's
    if session_id is not None:
        try:
            await put_away(organization_id, session_id)
        except TimeoutError:
            logger.warning("Runs of test %s have not ended yet; it is looked again.", encode("tpt", test_id))
            return
    await db.execute(_TIDY, test_id, executor)


async def _keep(test_id: UUID, executor: str) -> None:
    """Keep a test for as long as this worker lives; returns where it is lost, or was cancelled."""
    kept = time.monotonic()
    while time.monotonic() - kept < LEASE_SECONDS:
        try:
            async with parts().bus.subscribe(test_channel(test_id)) as notices:
                while True:
                    if await db.fetchval(_BEAT, test_id, executor, LEASE_SECONDS) is None:
                        return
                    kept = time.monotonic()
                    while time.monotonic() - kept < BEAT_SECONDS:
                        notice = await notices.next(BEAT_SECONDS - (time.monotonic() - kept))
                        if not (isinstance(notice, BusMessage) and not notice.data.get("cancelled")):
                            break
        except SlowConsumer:
            continue
        except Exception:
            logger.exception("Test %s could not be kept for a moment.", encode("tpt", test_id))
            await asyncio.sleep(1.0)


async def _woken(notices: BusSubscription) -> None:
    try:
        await notices.next(_POLL_SECONDS)
    except Unavailable:
        await asyncio.sleep(_POLL_SECONDS)  # the bus is gone before us; the tests are not


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
