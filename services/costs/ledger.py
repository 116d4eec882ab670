"""What was spent: written in the transaction of the usage itself, so that no budget ever lags behind.

Each stretch of a run's work is an entry of its own (`spend_entries`), and added to its hour (`spend_hours`). The sum
over a window is that of the whole hours in it and of the entries at its two ends: exact to the moment, and quick.
Template tests count as well: they cost money like everything else.
"""

from __future__ import annotations

from uuid import UUID

from core import db
from integrations.agents.base import Usage
from models.sessions import RunRow, SessionRow
from services.costs.prices import Tokens, price_of
from services.work import Work

NOBODY = UUID(int=0)
"""In place of a template, or of the user of an EACH_USER budget, where there is none."""

KEPT_DAYS = 400
"""Longer than any budget's window."""

_SPEND = """
WITH entry AS (
    INSERT INTO spend_entries (run_id, segment, organization_id, user_id, template_id, at, cost_usd, tokens)
    SELECT $1, $2, $3, $4, coalesce((SELECT template_id FROM session_template_versions WHERE id = $5), $9), $6, $7, $8
    ON CONFLICT DO NOTHING RETURNING *
)
INSERT INTO spend_hours (organization_id, hour, user_id, template_id, cost_usd, tokens, unpriced)
SELECT organization_id, date_trunc('hour', at, 'UTC'), user_id, template_id, coalesce(cost_usd, 0), tokens,
    (cost_usd IS NULL)::int
FROM entry
ON CONFLICT (organization_id, hour, user_id, template_id) DO UPDATE SET
    cost_usd = spend_hours.cost_usd + excluded.cost_usd, tokens = spend_hours.tokens + excluded.tokens,
    unpriced = spend_hours.unpriced + excluded.unpriced
RETURNING template_id
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
    )


def spent_sql(subjects: dict[str, tuple[str, str]], start: str, end: str, columns: dict[str, str]) -> str:
    """A SELECT over what was spent from `start` (inclusive) to `end`, both SQL, in one row.

    `subjects` are conditions: {one of a budget's subjects: (condition of when it applies, condition on `spent`)};
    `columns` what to add up: {name: SQL over `spent.cost_usd`, `spent.tokens`, `spent.unpriced`}.
    """
    first_hour = f"(date_trunc('hour', {start}, 'UTC') + CASE WHEN date_trunc('hour', {start}, 'UTC') < {start} "
    first_hour += "THEN interval '1 hour' ELSE interval '0' END)"
    last_hour = f"greatest(date_trunc('hour', {end}, 'UTC'), {first_hour})"
    parts = []
    for applies, belongs in subjects.values():
        parts.append(
            "SELECT spent.cost_usd, spent.tokens, spent.unpriced FROM spend_hours AS spent "
            f"WHERE {applies} AND {belongs} AND spent.hour >= {first_hour} AND spent.hour < {last_hour}"
        )
        parts += [
            "SELECT spent.cost_usd, spent.tokens, (spent.cost_usd IS NULL)::int FROM spend_entries AS spent "
            f"WHERE {applies} AND {belongs} AND {edge}"
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
