"""Making reports: claimed by any worker, written to the database in pieces, finished by whoever claimed it last.

A worker that dies leaves its claim, which runs out; another one makes the report anew. A schedule makes one report for
each of its moments, however many workers there are; of moments that were missed the latest is made.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from core import clock, db
from core.errors import Conflict, ErrorCode, NotFound, QuarterdeckError, TooLarge, new_error_id
from core.ids import encode, new_id
from core.permissions import Actor, Permission
from models.notifications import NotificationKind
from models.reports import ReportDefinitionRow, ReportFormat, ReportKind, ReportRunRow, ReportSchedule, ReportStatus
from services.identity.actors import active_actor, system_actor
from services.metrics.charts import chart
from services.metrics.series import Series
from services.parts import parts
from services.reports import pdf
from services.reports.content import metrics_of, table_of
from services.reports.questions import load_question
from services.reports.schedules import next_moment
from services.reports.tables import Written, as_csv, as_json
from services.work import write

logger = logging.getLogger(__name__)

AT_ONCE = 2
LEASE_SECONDS = 120.0
MOST_ATTEMPTS = 3
LARGEST_BYTES = 2 * 1024**3
KEPT_DAYS = 90
PIECE = 512 * 1024
"""Bytes of a row of `report_pieces`."""

_POLL_SECONDS = 2.0
_STOP_SECONDS = 5.0

_CLAIM = """
UPDATE report_runs SET status = 'RUNNING', attempt = attempt + 1, started_at = coalesce(started_at, now()),
    lease_until = now() + $1 * interval '1 second'
WHERE id = (
    SELECT id FROM report_runs WHERE status = 'QUEUED' OR (status = 'RUNNING' AND lease_until < now())
    ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING *
"""


class Reporter:
    """Runs in every worker, from `start` to `stop`."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, as tasks of the running loop. The database must be connected and the parts installed."""
        self._tasks = [asyncio.create_task(self._run(), name=f"reporter {number}") for number in range(AT_ONCE)]

    async def stop(self) -> None:
        """End at once: what is under way is made anew by another worker."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _run(self) -> None:
        while True:
            try:
                await queue_due()
                if not await make_one():
                    await asyncio.sleep(_POLL_SECONDS)
            except Exception:
                logger.exception("Reports are not made for a moment.")
                await asyncio.sleep(_STOP_SECONDS)


async def queue_due(now: datetime | None = None) -> int:
    """Queue a report for each definition whose moment has come; returns how many."""
    at = now or clock.now()
    queued = 0
    async with db.transaction() as tx:
        for row in await tx.fetch(
            "SELECT * FROM report_definitions WHERE next_at <= $1 AND removed_at IS NULL "
            "ORDER BY next_at LIMIT 50 FOR UPDATE SKIP LOCKED",
            at,
            row=ReportDefinitionRow,
        ):
            try:
                zone = ZoneInfo(row["timezone"])
            except (ZoneInfoNotFoundError, ValueError):
                # Another host may know zones that this one does not; the others' reports shall not wait for it.
                await tx.execute(
                    "UPDATE report_definitions SET next_at = NULL, problem = $2 WHERE id = $1",
                    row["id"],
                    f"Its time zone {row['timezone']} is not known here. Give it another one.",
                )
                continue
            schedule, moment = ReportSchedule(row["schedule"]), row["next_at"]
            # Of what was missed the latest moment counts.
            while (later := next_moment(schedule, row["schedule_hour"], row["schedule_day"], zone, moment)) <= at:
                moment = later
            await tx.execute("UPDATE report_definitions SET next_at = $2 WHERE id = $1", row["id"], later)
            start, end = load_question(row["question"]).span(zone, moment)
            queued += await insert_run(tx, row, new_id(), start, end, scheduled_for=moment, at=at)
    return queued


async def insert_run(
    tx: db.Transaction,
    row: ReportDefinitionRow,
    run_id: UUID,
    start: datetime,
    end: datetime,
    *,
    scheduled_for: datetime | None,
    at: datetime,
) -> int:
    """Queue a report of a definition as it is now; returns 0 where there is one for this moment already."""
    done = await tx.execute(
        "INSERT INTO report_runs (id, organization_id, definition_id, owner_id, name, kind, format, timezone, "
        'question, start, "end", recipients, scheduled_for, status, attempt, created_at) '
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'QUEUED', 0, $14) ON CONFLICT DO NOTHING",
        run_id,
        row["organization_id"],
        row["id"],
        row["owner_id"],
        row["name"],
        row["kind"],
        row["format"],
        row["timezone"],
        row["question"],
        start,
        end,
        row["recipients"],
        scheduled_for,
        at,
    )
    return int(done.rpartition(" ")[2])


async def make_one() -> bool:
    """Make a report that waits; False where none does."""
    run = await db.fetchrow(_CLAIM, LEASE_SECONDS, row=ReportRunRow)
    if run is None:
        return False
    keeping = asyncio.create_task(_keep(run["id"], run["attempt"]))
    try:
        if run["attempt"] > MOST_ATTEMPTS:
            raise NotFound("The report could not be made: the workers that tried did not come to its end.")
        actor = await _actor(run)
        rows, size, digest = await _store(run, await _written(run, actor))
    except QuarterdeckError as error:
        await _end(run, ReportStatus.FAILED, error_code=error.code.value, error_message=error.message)
    except Exception:
        error_id = new_error_id()
        logger.exception("The report %s could not be made (%s).", encode("rpr", run["id"]), error_id)
        await _end(
            run,
            ReportStatus.FAILED,
            error_code=ErrorCode.INTERNAL.value,
            error_message=f"Something went wrong on our side; tell your administrator {error_id}.",
        )
    else:
        await _end(run, ReportStatus.READY, rows=rows, size=size, sha256=digest)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    return True


async def prune_reports() -> None:
    """Remove reports that were made long ago."""
    await db.execute("DELETE FROM report_runs WHERE ended_at < now() - $1 * interval '1 day'", KEPT_DAYS)


async def _written(run: ReportRunRow, actor: Actor) -> Written:
    """The report, to be read once. Raises what its question raises, also while it is read."""
    zone = ZoneInfo(run["timezone"])
    if run["format"] == ReportFormat.PDF:
        return await _pdf(run, actor, zone)
    question = load_question(run["question"])
    table = await table_of(actor, ReportKind(run["kind"]), question, run["start"], run["end"], zone)
    table.head["report"] = run["name"]
    return Written.of(table, as_csv if run["format"] == ReportFormat.CSV else as_json)


async def _store(run: ReportRunRow, written: Written) -> tuple[int, int, str]:
    """Write the report piece by piece; returns rows, bytes and SHA-256. Raises Conflict where another worker has it."""
    await db.execute("DELETE FROM report_pieces WHERE run_id = $1 AND attempt <= $2", run["id"], run["attempt"])
    digest, size, number = hashlib.sha256(), 0, 0
    waiting = bytearray()

    async def flush(piece: bytes) -> None:
        nonlocal number
        done = await db.execute(
            "INSERT INTO report_pieces (run_id, attempt, number, content) SELECT id, attempt, $3, $4 FROM report_runs "
            "WHERE id = $1 AND attempt = $2 AND status = 'RUNNING'",
            run["id"],
            run["attempt"],
            number,
            piece,
        )
        if done != "INSERT 0 1":
            raise Conflict("Another worker makes this report.")
        number += 1

    async for chunk in written.chunks:
        digest.update(chunk)
        size += len(chunk)
        if size > LARGEST_BYTES:
            raise TooLarge(f"It has more than {LARGEST_BYTES} bytes. Take a shorter range, or a filter.")
        waiting += chunk
        while len(waiting) >= PIECE:
            await flush(bytes(waiting[:PIECE]))
            del waiting[:PIECE]
    if waiting:
        await flush(bytes(waiting))
    return written.rows, size, digest.hexdigest()


async def _pdf(run: ReportRunRow, actor: Actor, zone: ZoneInfo) -> Written:
    question, start, end = load_question(run["question"]), run["start"], run["end"]
    if run["kind"] == ReportKind.METRICS:
        sections = [await _section(one) for one in await metrics_of(actor, question, start, end, zone)]
    else:
        table = await table_of(actor, ReportKind(run["kind"]), question, start, end, zone)
        # Money, and not each kind of token: a page is only so wide.
        places = [place for place, name in enumerate(table.columns) if not name.endswith("_tokens")]
        rows = [[row[place] for place in places] async for batch in table.batches for row in batch]
        columns = [table.columns[place].replace("_", " ") for place in places]
        sections = [pdf.Section("Costs", "In US dollars.", None, columns, rows)]
    content = await asyncio.to_thread(pdf.write, pdf.Page(run["name"], start, end, zone, clock.now()), sections)
    written = Written()
    written.rows, written.chunks = sum(len(section.rows) for section in sections), _once(content)
    return written


async def _section(one: Series) -> pdf.Section:
    drawn = await parts().draw_chart(chart(one))
    columns = [*(name.replace("_", " ") for name in one.group_by), f"Total ({one.metric.unit})"]
    return pdf.Section(one.metric.title, one.metric.description, drawn, columns, _totals(one))


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _totals(one: Series) -> list[list[object]]:
    rows: list[list[object]] = [
        [*(label.name or label.value for label in group.labels), group.total] for group in one.groups
    ]
    if one.rest is not None:
        rows.append([*["Others"] * len(one.group_by), one.rest.total])
    return rows


async def _actor(run: ReportRunRow) -> Actor:
    """The owner, as they are now: a report tells what they may see when it is made."""
    actor = await active_actor(run["owner_id"])
    if actor is None:
        if run["definition_id"] is not None:
            await db.execute(
                "UPDATE report_definitions SET next_at = NULL, problem = 'Its owner has been deactivated.' "
                "WHERE id = $1",
                run["definition_id"],
            )
        raise NotFound("The report's owner has been deactivated. Whoever needs it defines it anew.")
    actor.require(Permission.REPORTS_MANAGE)
    return actor


async def _keep(run_id: UUID, attempt: int) -> None:
    """Hold on to the claim while the report is made."""
    while True:
        await asyncio.sleep(LEASE_SECONDS / 4)
        await db.execute(
            "UPDATE report_runs SET lease_until = now() + $3 * interval '1 second' WHERE id = $1 AND attempt = $2",
            run_id,
            attempt,
            LEASE_SECONDS,
        )


async def _end(
    run: ReportRunRow,
    status: ReportStatus,
    *,
    rows: int | None = None,
    size: int | None = None,
    sha256: str | None = None,
    error_code: str | None = None,
    error_message: str | None = None,
) -> None:
    """Say how it ended, and tell those whom it is for; nothing where another worker has it."""
    async with write(system_actor(run["organization_id"]), "report.make") as work:
        done = await work.tx.execute(
            "UPDATE report_runs SET status = $3, rows = $4, size = $5, sha256 = $6, error_code = $7, "
            "error_message = $8, ended_at = $9, lease_until = NULL "
            "WHERE id = $1 AND attempt = $2 AND status = 'RUNNING'",
            run["id"],
            run["attempt"],
            status.value,
            rows,
            size,
            sha256,
            error_code,
            error_message,
            work.at,
        )
        if done != "UPDATE 1":
            work.entry.action = ""
            return
        if status is ReportStatus.FAILED:
            await work.tx.execute("DELETE FROM report_pieces WHERE run_id = $1", run["id"])
        work.target("Report", run["id"], run["name"])
        work.changed(after={"status": status.value, "rows": rows, "bytes": size, "errorCode": error_code})
        people = [run["owner_id"], *run["recipients"]] if status is ReportStatus.READY else [run["owner_id"]]
        said = "is ready" if status is ReportStatus.READY else "could not be made"
        work.notify(
            NotificationKind.REPORT,
            people,
            f"The report “{run['name']}” {said}",
            body=error_message or "",
            subject=("Report", run["id"]),
        )


def expires_at(ended_at: datetime) -> datetime:
    """When a report that has ended is removed."""
    return ended_at.astimezone(UTC) + timedelta(days=KEPT_DAYS)
