"""What was spent: written in the transaction of the usage itself, so that no budget ever lags behind.

Each stretch of a run's work is an entry of its own (`spend_entries`), and added to the ten minutes, the hour and the
day of its organisation, its user and its template (`spend_sums`), from which windows are added up (windows.py).
Template tests count as well: they cost money like everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from core import db
from integrations.agents.base import Usage
from models.sessions import RunRow, SessionRow
from services.costs.prices import Tokens, price_of
from services.costs.windows import MOST_TOKENS, NOBODY
from services.work import Work

SHARDS = 4
"""Rows that a sum of an organisation or a template is spread over: runs that end at once seldom wait for each other.
Those of a user have one: they are added up for all of a team."""

_MOST_USD, _MOST_USD_TOGETHER = 10**12, 10**20
"""Of an entry, and of a sum: telemetry and prices say any numbers, and what they come to has to fit."""

KEPT_DAYS = 400
"""Longer than any budget's window."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Usage that was paid for. `usage_id` and `part` say which: the stretch of a run, or a fact of usage."""

    usage_id: UUID
    part: int
    organization_id: UUID
    user_id: UUID
    """NOBODY where it is nobody's."""
    template_id: UUID
    """NOBODY where there is none."""
    at: datetime
    """When it happened: it counts in the windows that this lies in, however late it is noted."""
    cost_usd: Decimal | None
    """None where nobody knows it."""
    tokens: int


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
    template_id = None
    if session["template_version_id"] is not None:
        template_id = await work.tx.fetchval(
            "SELECT template_id FROM session_template_versions WHERE id = $1", session["template_version_id"]
        )
    entry = Entry(
        usage_id=run["id"],
        part=run["segment"],
        organization_id=run["organization_id"],
        user_id=run["started_by_id"],
        template_id=template_id or NOBODY,
        at=work.at,
        cost_usd=cost,
        tokens=sum(known.values()),
    )
    return entry.template_id if await enter(work.tx, [entry]) else None


async def enter(tx: db.Transaction, entries: Sequence[Entry]) -> int:
    """Put usage into the ledger, from whichever source; returns how many entries are new. What was entered before, by
    whichever process, is not counted again.

    Call it once in a transaction, with all that there is, and late: the sums that it adds to are held until the commit.
    They are taken in the order of their keys, so writers cannot wait for each other in a ring.
    """
    if not entries:
        return 0
    return await tx.fetchval(  # type: ignore[no-any-return]
        _ENTER,
        [entry.usage_id for entry in entries],
        [entry.part for entry in entries],
        [entry.organization_id for entry in entries],
        [entry.user_id for entry in entries],
        [entry.template_id for entry in entries],
        [entry.at for entry in entries],
        [entry.cost_usd for entry in entries],
        [entry.tokens for entry in entries],
        entries[0].usage_id.int % SHARDS,
    )


async def prune_spending() -> int:
    """Forget what no budget can look at any more; returns how many entries. Called by workers."""
    tag = await db.execute(f"DELETE FROM spend_entries WHERE at < now() - interval '{KEPT_DAYS} days'")
    await db.execute(f"DELETE FROM spend_sums WHERE at < now() - interval '{KEPT_DAYS + 1} days'")
    return int(tag.rpartition(" ")[2])


_ENTER = f"""
WITH entered AS (
    INSERT INTO spend_entries (usage_id, part, organization_id, user_id, template_id, at, cost_usd, tokens)
    SELECT usage_id, part, organization_id, user_id, template_id, at,
        CASE WHEN cost_usd > {_MOST_USD} THEN {_MOST_USD} ELSE cost_usd END, tokens
    FROM unnest($1::uuid[], $2::int[], $3::uuid[], $4::uuid[], $5::uuid[], $6::timestamptz[], $7::numeric[],
        $8::bigint[]) AS given (usage_id, part, organization_id, user_id, template_id, at, cost_usd, tokens)
    ORDER BY usage_id, part
    ON CONFLICT DO NOTHING RETURNING *
), added AS (
    INSERT INTO spend_sums (spender_id, unit, at, shard, cost_usd, tokens, unpriced)
    SELECT spenders.id, units.unit, date_bin(units.length, at, '2000-01-01T00:00:00Z') AS begins, spenders.shard,
        coalesce(sum(cost_usd), 0), least(sum(tokens), {MOST_TOKENS}), count(*) FILTER (WHERE cost_usd IS NULL)
    FROM entered
    CROSS JOIN LATERAL
        (VALUES (organization_id, $9::int), (user_id, 0), (template_id, $9)) AS spenders (id, shard)
    CROSS JOIN (VALUES (1, interval '10 minutes'), (2, '1 hour'), (3, '24 hours')) AS units (unit, length)
    WHERE spenders.id <> '{NOBODY}'
    GROUP BY spenders.id, units.unit, begins, spenders.shard
    ORDER BY spenders.id, units.unit, begins, spenders.shard
    ON CONFLICT (spender_id, unit, at, shard) DO UPDATE SET
        cost_usd = least(spend_sums.cost_usd + excluded.cost_usd, {_MOST_USD_TOGETHER}),
        tokens = least(spend_sums.tokens::numeric + excluded.tokens, {MOST_TOKENS}),
        unpriced = spend_sums.unpriced + excluded.unpriced
)
SELECT count(*)::int FROM entered
"""
