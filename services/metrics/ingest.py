"""Makes facts of the sessions' event log: each event once, whatever happens to the workers.

The log is read in the order of transactions, below the oldest one still open, so nothing that commits late is passed
by. A batch is one transaction: its facts, their place in line to be counted, and how far the log has been read. Any
number of workers run this; the row that says how far it is lets one at a time.

After an outage it goes on from where it was. `fill` reads a part of the log once more: what is there stays as it is.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from asyncpg import UniqueViolationError

from core import db
from models.base import Row
from services.metrics.kinds import AT_ONCE, FACTUAL, STORE_NEXT, STORE_NEXT_NEW, TABLES
from services.metrics.store import dropped_before

BATCH = 5000
LOG = "log"

_BEFORE_WORK_SECONDS = 2.0
"""A write takes its time before it takes its number, and hosts' clocks differ."""

_PLACE = f"""
SELECT p.xid::text AS xid, p.session_id, p.seq, p.until_xid::text AS until_xid, p.since, (
    SELECT true FROM session_events e
    WHERE {FACTUAL} AND (e.xid, e.session_id, e.seq) > (p.xid, p.session_id, p.seq)
      AND e.xid < pg_snapshot_xmin(pg_current_snapshot()) AND (p.until_xid IS NULL OR e.xid < p.until_xid)
    ORDER BY e.xid, e.session_id, e.seq LIMIT 1
) AS more
FROM metric_positions p WHERE p.reader = $1 FOR UPDATE SKIP LOCKED
"""


async def ingest(reader: str = LOG, *, batch: int = BATCH) -> int | None:
    """Make facts of the next events; returns how many events were read. None where another worker is at it."""
    if reader == LOG:
        # Only where a gap was filled beyond the place of the log are its facts there already.
        with suppress(UniqueViolationError):
            return await _ingest(reader, batch, STORE_NEXT_NEW)
    return await _ingest(reader, batch, STORE_NEXT)


async def _ingest(reader: str, batch: int, statement: str) -> int | None:
    async with db.transaction() as tx:
        at = await tx.fetchrow(_PLACE, reader, row=Row)
        if at is None:
            return None
        last = None
        if at.more:
            # The commit waits for no disk. What a crash takes is the end of what was committed: the facts and the
            # place together, never one of them, nor anything that was built on them; and the log, which was committed
            # before it was read, is read again from the place that is left.
            await tx.execute(f"SET LOCAL synchronous_commit = off; {AT_ONCE}")
            since = await dropped_before(tx.fetch, TABLES, "FOR SHARE")
            last = await tx.fetchrow(
                statement, at.xid, at.session_id, at.seq, at.until_xid, batch, at.since, *since, row=Row
            )
        if last is None:
            if reader != LOG:
                await tx.execute("DELETE FROM metric_positions WHERE reader = $1", reader)
            return 0
        await tx.execute(
            "UPDATE metric_positions SET xid = $2::text::xid8, session_id = $3, seq = $4 WHERE reader = $1",
            reader,
            last.xid,
            last.session_id,
            last.seq,
        )
        return int(last.events)


async def fill(since: datetime) -> str:
    """Have the log read once more from a time on; returns the name of the reader that does. A worker goes on with it
    where whoever began it is gone."""
    reader = f"fill {uuid4()}"
    await db.execute(
        "INSERT INTO metric_positions (reader, xid, session_id, seq, until_xid, since) "
        "SELECT $1, '0', $2, 0, pg_snapshot_xmin(pg_current_snapshot()), $3",
        reader,
        UUID(int=0),
        since,
    )
    return reader


async def readers() -> list[str]:
    """All who read the log: the one that follows it, first, and those that fill gaps."""
    rows = await db.fetch("SELECT reader FROM metric_positions ORDER BY reader <> $1, reader", LOG)
    return [row["reader"] for row in rows]


async def watermark(tx: db.Transaction | None = None) -> datetime:
    """Up to when the facts of our own sessions are complete: everything of before is stored."""
    fetchval = db.fetchval if tx is None else tx.fetchval
    found = await fetchval("SELECT nullif(up_to, '-infinity') FROM metric_positions WHERE reader = $1", LOG)
    return found or datetime.min.replace(tzinfo=UTC)


class Watermark:
    """Moves `watermark` on, each time that all of the log has been read."""

    def __init__(self) -> None:
        self._seen: tuple[int, datetime] | None = None
        """The next transaction's number at a time: once no older one is open, all of that time is there to be read."""

    async def look(self) -> tuple[int, int, datetime]:
        """The oldest open transaction, the next one, and the time; before the log is read to its end."""
        row = await db.fetchrow(
            "SELECT pg_snapshot_xmin(s)::text AS oldest, pg_snapshot_xmax(s)::text AS next, clock_timestamp() AS at "
            "FROM pg_current_snapshot() AS s"
        )
        return int(row["oldest"]), int(row["next"]), row["at"]

    async def move(self, looked: tuple[int, int, datetime]) -> None:
        """All that was below the oldest transaction when we looked has been read."""
        oldest, next_, at = looked
        if self._seen is None:
            self._seen = (next_, at)
        if oldest >= self._seen[0]:
            up_to = self._seen[1] - timedelta(seconds=_BEFORE_WORK_SECONDS)
            await db.execute(
                "UPDATE metric_positions SET up_to = $2 "
                "WHERE reader = $1 AND up_to < $2::timestamptz - interval '1 second'",
                LOG,
                up_to,
            )
            self._seen = (next_, at)
