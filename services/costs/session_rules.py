"""What could be cheaper about sessions: large system prompts, runs that fail, sessions that nobody works in.

What has no price is left out. Nothing is guessed but the number of tokens of a prompt, which is called an estimate.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from core import db
from models.base import Query
from services.costs.findings import SAMPLES, USD, Confidence, Finding, Ground, RecommendationKind, Step, worthwhile
from services.costs.prices import JOIN_RATES, rates_sql
from services.metrics.questions import MOST_VALUES

CHARACTERS_PER_TOKEN = 4
"""An estimate, for text in English."""
LARGE_PROMPT = 16_000
"""Characters."""
PROMPT_TOKENS = 2_000
"""Tokens that a system prompt may have: what is over them counts."""
IDLE_DAYS = 14
FAILED_RUNS = 5
FAILED_SHARE = Decimal("0.2")


# -- system prompts that every request reads


async def large_prompts(ground: Ground) -> list[Finding]:
    """System prompts that every request reads."""
    query = Query()
    cte = rates_sql(query, ground.rates)
    range_ = ground.range(query)
    rows = await db.fetch(
        f"""
        WITH rates AS MATERIALIZED ({cte}), large AS (
            SELECT id, md5(system_prompt) AS prompt, length(system_prompt) AS characters,
                length(system_prompt) / {CHARACTERS_PER_TOKEN} AS tokens
            FROM sessions WHERE organization_id = {query.arg(ground.actor.organization_id)}
                AND length(system_prompt) >= {LARGE_PROMPT}
                AND id IN (SELECT session_id FROM usage_facts WHERE {range_} AND session_id IS NOT NULL)
        )
        SELECT large.prompt, large.characters, large.tokens, count(DISTINCT large.id) AS sessions,
            sum(facts.requests)::bigint AS requests,
            sum((large.tokens - {PROMPT_TOKENS}) * facts.requests
                * CASE WHEN facts.cache_read_tokens > 0 THEN rates.cache_read ELSE rates.input END) * 0.000001 AS usd,
            (array_agg(DISTINCT large.id))[1:{MOST_VALUES}] AS session_ids,
            array_agg(DISTINCT facts.template_version_id::text)
                FILTER (WHERE facts.template_version_id IS NOT NULL) AS versions
        FROM usage_facts AS facts JOIN large ON large.id = facts.session_id {JOIN_RATES}
        WHERE facts.{range_} AND rates.number IS NOT NULL AND rates.input IS NOT NULL
        GROUP BY large.prompt, large.characters, large.tokens
        """,
        *query.args,
    )
    found = []
    for row in rows:
        over = row["tokens"] - PROMPT_TOKENS
        last = ground.of_30_days(row["usd"])
        by_version = {"template_version": row["versions"][:MOST_VALUES]} if row["versions"] else None
        found.append(
            Finding(
                kind=RecommendationKind.LARGE_SYSTEM_PROMPT,
                key=f"system-prompt:{row['prompt']}",
                title=f"Shorten a system prompt of {row['characters']} characters",
                explanation=(
                    f"{row['sessions']} sessions have it, and each of their {row['requests']} requests reads it. What "
                    f"is over {PROMPT_TOKENS} tokens can often be a file or a tool that is read when it is needed. The "
                    f"number of tokens is an estimate: {CHARACTERS_PER_TOKEN} characters each."
                ),
                steps=[
                    Step(
                        "Tokens (estimate)",
                        f"{row['characters']} characters / {CHARACTERS_PER_TOKEN}",
                        Decimal(row["tokens"]),
                        "tokens",
                    ),
                    Step(f"Over {PROMPT_TOKENS}", f"{row['tokens']} - {PROMPT_TOKENS}", Decimal(over), "tokens"),
                    Step(
                        "They cost",
                        f"{over} * {row['requests']} requests * the input price, or the cache read price where a cache "
                        "was used",
                        row["usd"],
                        "USD",
                    ),
                    last,
                ],
                saving=last.value,
                confidence=Confidence.LOW,
                # All of its sessions where a filter takes so many; else the versions that most of them come from.
                filter=by_version
                if by_version and row["sessions"] > MOST_VALUES
                else {"session": [str(id_) for id_ in row["session_ids"]]},
                sessions=row["session_ids"][:SAMPLES],
            )
        )
    return worthwhile(found)


# -- money for runs that failed


async def failed_runs(ground: Ground) -> list[Finding]:
    """Template versions whose failed runs cost a good part of the money."""
    query = Query()
    cte = rates_sql(query, ground.rates)
    range_ = ground.range(query)
    rows = await db.fetch(
        f"""
        WITH rates AS MATERIALIZED ({cte}),
            failed AS (SELECT DISTINCT run_id FROM run_facts WHERE {range_} AND outcome = 'FAILED')
        SELECT facts.template_version_id AS version, session_templates.title, session_template_versions.number,
            count(DISTINCT facts.run_id) AS runs, count(DISTINCT failed.run_id) AS failed_runs, sum({USD}) AS usd,
            coalesce(sum({USD}) FILTER (WHERE failed.run_id IS NOT NULL), 0) AS failed_usd,
            (array_agg(DISTINCT facts.session_id) FILTER (WHERE failed.run_id IS NOT NULL))[1:{SAMPLES}] AS samples
        FROM usage_facts AS facts {JOIN_RATES} LEFT JOIN failed ON failed.run_id = facts.run_id
        JOIN session_template_versions ON session_template_versions.id = facts.template_version_id
        JOIN session_templates ON session_templates.id = session_template_versions.template_id
        WHERE facts.{range_} AND rates.number IS NOT NULL GROUP BY 1, 2, 3
        """,
        *query.args,
    )
    found = []
    for row in rows:
        if row["failed_runs"] < FAILED_RUNS or row["failed_usd"] < row["usd"] * FAILED_SHARE:
            continue
        last = ground.of_30_days(row["failed_usd"])
        found.append(
            Finding(
                kind=RecommendationKind.FAILED_RUNS,
                key=f"failed-runs:{row['version']}",
                title=f"Mend “{row['title']}” version {row['number']}: its failed runs cost money",
                explanation=(
                    f"{row['failed_runs']} of its {row['runs']} runs failed, and they cost at least "
                    f"{FAILED_SHARE:.0%} of all that the version has cost. Look at their errors, or roll back to a "
                    "version that fails less. The saving is what the failed runs cost."
                ),
                steps=[
                    Step("Runs", "with usage that has a price", Decimal(row["runs"]), "runs"),
                    Step("Failed", "of these", Decimal(row["failed_runs"]), "runs"),
                    Step("All of them cost", "tokens * prices", row["usd"], "USD"),
                    Step("The failed ones cost", "tokens * prices", row["failed_usd"], "USD"),
                    last,
                ],
                saving=last.value,
                confidence=Confidence.MEDIUM,
                filter={"template_version": [str(row["version"])], "outcome": ["FAILED"]},
                sessions=row["samples"] or [],
            )
        )
    return worthwhile(found)


# -- sessions that nobody works in


async def idle_sessions(ground: Ground) -> list[Finding]:
    """Open sessions with servers, in which nothing happens. They cost no money, and say so."""
    row = await db.fetchrow(
        f"""
        SELECT count(DISTINCT sessions.id) AS sessions, count(*) AS servers,
            (array_agg(DISTINCT sessions.id))[1:{MOST_VALUES}] AS session_ids
        FROM sessions JOIN session_mcp_servers ON session_mcp_servers.session_id = sessions.id
        WHERE sessions.organization_id = $1 AND sessions.purpose = 'WORK'
            AND sessions.status IN ('CREATED', 'ACTIVE', 'WAITING', 'PAUSED', 'FAILED')
            AND sessions.updated_at < $2::timestamptz - $3::interval
            AND NOT EXISTS (SELECT FROM runs WHERE runs.session_id = sessions.id
                AND (runs.status IN ('QUEUED', 'RUNNING') OR runs.queued_at >= $2::timestamptz - $3::interval))
        """,
        ground.actor.organization_id,
        ground.end,
        timedelta(days=IDLE_DAYS),
    )
    if not row["sessions"]:
        return []
    return [
        Finding(
            kind=RecommendationKind.IDLE_SESSIONS,
            key="idle-sessions",
            title=f"Complete or archive {row['sessions']} sessions that nobody works in",
            explanation=(
                f"They are open and have servers of their own, but no run in the {IDLE_DAYS} days before the end of "
                "the range. Servers run while a run needs them, so they cost no money while nobody does; they hold "
                "their working directories, and the servers that they name cannot be removed."
            ),
            steps=[
                Step(
                    "Idle sessions",
                    f"open, with servers, no run for {IDLE_DAYS} days",
                    Decimal(row["sessions"]),
                    "sessions",
                ),
                Step("Servers that they hold", "counted once for each session", Decimal(row["servers"]), "servers"),
                Step("In 30 days", "no tokens are used, so nothing is paid", Decimal(0), "USD"),
            ],
            saving=Decimal(0),
            confidence=Confidence.HIGH,
            filter={"session": [str(id_) for id_ in row["session_ids"]]},
            sessions=row["session_ids"][:SAMPLES],
        )
    ]
