"""What was spent: written in the transaction of the usage itself, so that no budget ever lags behind.

Each stretch of a run's work is an entry of its own (`spend_entries`), and added to the hour of its organisation, its
user and its template (`spend_hours`), always in this order, so that writers cannot wait for each other in a ring. The
sum over a window is that of the whole hours in it and of the entries at its two ends: exact to the moment, and quick.
Template tests count as well: they cost money like everything else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from uuid import UUID

from core import db
from integrations.agents.base import Usage
from models.sessions import RunRow, SessionRow
from services.costs.prices import Tokens, price_of
from services.work import Work

NOBODY = UUID(int=0)
"""In place of a template, or of the user of an EACH_USER budget, where there is none."""

SHARDS = 16
"""Rows that the spending of an hour is spread over: runs that end at once seldom meet in one."""

KEPT_DAYS = 400
"""Longer than any budget's window."""

_SPEND = """
WITH entry AS (
    INSERT INTO spend_entries (run_id, segment, organization_id, user_id, template_id, at, cost_usd, tokens)
    SELECT $1, $2, $3, $4, coalesce((SELECT template_id FROM session_template_versions WHERE id = $5), $9), $6, $7, $8
    ON CONFLICT DO NOTHING RETURNING *
), hours AS (
    INSERT INTO spend_hours (subject_id, hour, shard, cost_usd, tokens, unpriced)
    SELECT subjects.id, date_trunc('hour', at, 'UTC'), $10, coalesce(cost_usd, 0), tokens, (cost_usd IS NULL)::int
    FROM entry
    CROSS JOIN LATERAL (VALUES (1, organization_id), (2, user_id), (3, template_id)) AS subjects (place, id)
    WHERE subjects.id <> $9 ORDER BY subjects.place
    ON CONFLICT (subject_id, hour, shard) DO UPDATE SET
        cost_usd = spend_hours.cost_usd + excluded.cost_usd, tokens = spend_hours.tokens + excluded.tokens,
        unpriced = spend_hours.unpriced + excluded.unpriced
)
SELECT template_id FROM entry
"""


async def spend(work: Work, session: SessionRow, run: RunRow, usage: Usage) -> UUID | None:
    """Note what a stretch of a run has used; the session's template (NOBODY: none), or None where nothing was used.

    Where the runtime does not know what it cost, the organisation's prices say it, as far as they do.
    """
    tokens = Tokens(usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens)
    known = tokens.known()
    if not usage.requests and usage.cost_usd is None and not any(known.values()):
        return None
    cost = usage.cost_usd
    if cost is None and session["model"] is not None:
        cost = await price_of(run["organization_id"], (None, session["model"]), tokens, usage.requests, work.at)
    return await work.tx.fetchval(  # type: ignore[no-any-return]
        _SPEND,
        run["id"],
        run["segment"],
        run["organization_id"],
        run["started_by_id"],
        session["template_version_id"],
        work.at,
        cost,
        sum(known.values()),
        NOBODY,
        run["id"].int % SHARDS,
    )


@dataclass(frozen=True, slots=True)
class Subject:
    """SQL of whose spending it is, over `spent`."""

    applies: str
    """When it is about this sort of subject."""
    hours: str
    """The condition on `spend_hours`."""
    entries: str
    """The same on `spend_entries`."""


def spent_sql(subjects: Collection[Subject], start: str, end: str, columns: Mapping[str, str]) -> str:
    """A SELECT over what was spent from `start` (inclusive) to `end`, both SQL, in one row.

    `columns` says what to add up: {name: SQL over `spent.cost_usd`, `spent.tokens`, `spent.unpriced`}.
    """
    hour = f"date_trunc('hour', {start}, 'UTC')"
    first_hour = f"({hour} + CASE WHEN {hour} < {start} THEN interval '1 hour' ELSE interval '0' END)"
    last_hour = f"greatest(date_trunc('hour', {end}, 'UTC'), {first_hour})"
    parts = []
    for subject in subjects:
        parts.append(
            "SELECT spent.cost_usd, spent.tokens, spent.unpriced FROM spend_hours AS spent WHERE "
            f"{subject.applies} AND {subject.hours} AND spent.hour >= {first_hour} AND spent.hour < {last_hour}"
        )
        parts += [
            "SELECT spent.cost_usd, spent.tokens, (spent.cost_usd IS NULL)::int FROM spend_entries AS spent "
            f"WHERE {subject.applies} AND {subject.entries} AND {edge}"
            for edge in (
                f"spent.at >= {start} AND spent.at < least({first_hour}, {end})",
                f"spent.at >= {last_hour} AND spent.at < {end}",
            )
        ]
    wanted = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    return f"SELECT {wanted} FROM ({' UNION ALL '.join(parts)}) AS spent"


async def prune_spending() -> int:
    """Forget what no budget can look at any more; returns how many entries. Called by workers."""
    tag = await db.execute(f"DELETE FROM spend_entries WHERE at < now() - interval '{KEPT_DAYS} days'")
    await db.execute(f"DELETE FROM spend_hours WHERE hour < now() - interval '{KEPT_DAYS} days'")
    return int(tag.rpartition(" ")[2])
