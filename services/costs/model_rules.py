"""What could be cheaper about models: another one for short runs, and caches that nobody uses.

What has no price is left out. Nothing is guessed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from core import db
from models.base import Query
from services.costs import built_in
from services.costs.findings import (
    SAMPLES,
    USD,
    Confidence,
    Finding,
    Ground,
    RecommendationKind,
    Step,
    plain,
    worthwhile,
)
from services.costs.prices import JOIN_RATES, Pair, rates_sql
from services.costs.rates import KINDS, Rate

SHORT_OUTPUT = 500
"""Tokens: a run that wrote no more is short."""
MANY_RUNS = 10
CHEAPER_BY = Decimal("0.5")
"""Another model must cost at most this part."""
MOST_FAILURES = Decimal("0.1")
"""Of the runs of a model that is proposed."""
LARGE_INPUT = 10_000
"""Tokens of a request that are worth a cache."""
CACHE_LIVES = timedelta(minutes=5)


# -- a cheaper model for short runs

_SHORT_RUNS = """
short AS (
    SELECT run_id, min(provider) AS provider, min(model) AS model FROM usage_facts
    WHERE {range} AND run_id IS NOT NULL AND model IS NOT NULL
        AND EXISTS (SELECT FROM run_facts WHERE run_facts.run_id = usage_facts.run_id AND run_facts.{range}
            AND run_facts.outcome = 'FINISHED')
        AND NOT EXISTS (SELECT FROM tool_facts WHERE tool_facts.run_id = usage_facts.run_id AND tool_facts.{range}
            AND tool_facts.outcome <> 'SUCCEEDED')
    GROUP BY run_id
    HAVING count(DISTINCT (provider, model)) = 1 AND sum(output_tokens) <= {most}
        AND bool_and(input_tokens IS NOT NULL AND output_tokens IS NOT NULL)
)
"""


async def cheaper_models(ground: Ground) -> list[Finding]:
    """Short runs of a model that another one, which is used already, would have done for half."""
    fit = await _fit_models(ground)
    if len(fit) < 2:
        return []
    own = await _short_runs(ground, ground.rates)
    found = []
    for pair, now in own.items():
        if now["runs"] < MANY_RUNS or now["unpriced"]:
            continue
        best: tuple[Pair, Any] | None = None
        for other in fit:
            if other == pair or not _same_provider(pair, other):
                continue
            # The same runs, at the other one's prices.
            then = (await _short_runs(ground, {pair: ground.rates[other]})).get(pair)
            if then is None or then["unpriced"] or then["usd"] > now["usd"] * CHEAPER_BY:
                continue
            if best is None or then["usd"] < best[1]["usd"]:
                best = (other, then)
        if best is not None:
            found.append(_cheaper(ground, pair, now, *best))
    return worthwhile(found)


def _cheaper(ground: Ground, pair: Pair, now: Any, other: Pair, then: Any) -> Finding:
    saving = now["usd"] - then["usd"]
    last = ground.of_30_days(saving)
    return Finding(
        kind=RecommendationKind.CHEAPER_MODEL,
        key=f"cheaper-model:{_name(pair)}:{_name(other)}",
        title=f"Use {other[1]} instead of {pair[1]} for short runs",
        explanation=(
            f"{now['runs']} runs of {pair[1]} wrote at most {SHORT_OUTPUT} tokens each, and none of their tools "
            f"failed. {other[1]}, which you use already, would have read and written the same tokens for less. Whether "
            "its answers are good enough you have to try: make it the model of the templates that such runs come from."
        ),
        steps=[
            Step(
                "Short runs", f"output ≤ {SHORT_OUTPUT} tokens, finished, no failed tool", Decimal(now["runs"]), "runs"
            ),
            Step(f"They cost with {pair[1]}", _tokens_formula(now), now["usd"], "USD"),
            Step(f"The same tokens with {other[1]}", "the same, at its prices", then["usd"], "USD"),
            Step("Saving", f"{plain(now['usd'])} - {plain(then['usd'])}", saving, "USD"),
            last,
        ],
        saving=last.value,
        confidence=Confidence.MEDIUM,
        filter={"model": [pair[1] or ""], **({"provider": [pair[0]]} if pair[0] else {})},
        sessions=now["sessions"] or [],
    )


async def _short_runs(ground: Ground, rates: Mapping[Pair, Sequence[Rate]]) -> dict[Pair, Any]:
    query = Query()
    cte = rates_sql(query, rates)
    short = _SHORT_RUNS.format(range=ground.range(query), most=SHORT_OUTPUT)
    tokens = ", ".join(f"coalesce(sum(facts.{kind}_tokens), 0)::bigint AS {kind}" for kind in KINDS)
    rows = await db.fetch(
        f"WITH rates AS MATERIALIZED ({cte}), {short} SELECT facts.provider, facts.model, "
        f"count(DISTINCT facts.run_id) AS runs, sum({USD}) AS usd, {tokens}, "
        "count(*) FILTER (WHERE rates.number IS NULL) AS unpriced, "
        f"(array_agg(DISTINCT facts.session_id) FILTER (WHERE facts.session_id IS NOT NULL))[1:{SAMPLES}] AS sessions "
        f"FROM usage_facts AS facts JOIN short ON short.run_id = facts.run_id {JOIN_RATES} "
        f"WHERE facts.{ground.range(query)} GROUP BY facts.provider, facts.model",
        *query.args,
    )
    return {(row["provider"], row["model"]): row for row in rows if (row["provider"], row["model"]) in rates}


async def _fit_models(ground: Ground) -> list[Pair]:
    """Models with a price, whose runs went well often enough to say so."""
    query = Query()
    rows = await db.fetch(
        "SELECT usage.provider, usage.model, count(*) AS runs, "
        "count(*) FILTER (WHERE ended.outcome = 'FAILED') AS failed "
        f"FROM (SELECT DISTINCT run_id, provider, model FROM usage_facts WHERE {ground.range(query)}) AS usage "
        f"JOIN (SELECT run_id, outcome FROM run_facts WHERE {ground.range(query)}) AS ended USING (run_id) "
        "WHERE usage.model IS NOT NULL GROUP BY usage.provider, usage.model",
        *query.args,
    )
    return [
        (row["provider"], row["model"])
        for row in rows
        if row["runs"] >= MANY_RUNS
        and row["failed"] <= row["runs"] * MOST_FAILURES
        and ground.rates.get((row["provider"], row["model"]))
    ]


# -- input that no cache is used for


async def unused_caches(ground: Ground) -> list[Finding]:
    """Sessions whose requests read the same again and again, and no cache."""
    query = Query()
    cte = rates_sql(query, ground.rates)
    range_ = ground.range(query)
    rows = await db.fetch(
        f"""
        WITH rates AS MATERIALIZED ({cte}), uncached AS (
            SELECT session_id FROM usage_facts WHERE {range_} AND session_id IS NOT NULL
            GROUP BY session_id HAVING sum(requests) >= 3 AND coalesce(sum(cache_read_tokens), 0) = 0
                AND coalesce(sum(cache_write_tokens), 0) = 0 AND sum(input_tokens) >= {LARGE_INPUT} * sum(requests)
        ), facts AS (
            SELECT *, input_tokens / greatest(requests, 1) AS size,
                lag(input_tokens / greatest(requests, 1)) OVER before AS size_before,
                at - coalesce(duration_ms, 0) * interval '1 millisecond' - lag(at) OVER before AS pause
            FROM usage_facts WHERE {range_} AND session_id IN (SELECT session_id FROM uncached)
            WINDOW before AS (PARTITION BY session_id, provider, model ORDER BY at, id)
        ), repeated AS (
            SELECT facts.provider, facts.model, facts.session_id, facts.input_tokens, rates.input, rates.cache_read,
                rates.cache_write, CASE WHEN facts.pause <= $1::interval
                    THEN least(facts.size, facts.size_before) * facts.requests ELSE 0 END AS again
            FROM facts {JOIN_RATES} WHERE rates.cache_read < rates.input
        )
        SELECT provider, model, count(DISTINCT session_id) AS sessions, sum(again)::bigint AS again,
            sum(input_tokens - again)::bigint AS fresh,
            sum(again * (input - cache_read)) * 0.000001 AS gained,
            sum((input_tokens - again) * greatest(cache_write - input, 0)) * 0.000001 AS paid,
            (array_agg(DISTINCT session_id))[1:{SAMPLES}] AS samples
        FROM repeated GROUP BY provider, model
        """.replace("$1::interval", f"{query.arg(CACHE_LIVES)}::interval"),
        *query.args,
    )
    found = []
    for row in rows:
        pair = (row["provider"], row["model"])
        saving = row["gained"] - row["paid"]
        last = ground.of_30_days(saving)
        found.append(
            Finding(
                kind=RecommendationKind.UNUSED_CACHE,
                key=f"unused-cache:{_name(pair)}",
                title=f"Let requests to {pair[1]} use the cache",
                explanation=(
                    f"In {row['sessions']} sessions every request read at least {LARGE_INPUT} tokens on the average "
                    "and none of them came from a cache, although most were the same as in the request before. Switch "
                    "prompt caching on in the options of the sessions or of their template."
                ),
                steps=[
                    Step(
                        "Repeated input",
                        "the smaller of a request's input and that of the one at most 5 minutes before it",
                        Decimal(row["again"]),
                        "tokens",
                    ),
                    Step("Cheaper from the cache", "repeated * (input - cache read price)", row["gained"], "USD"),
                    Step(
                        "Dearer to write",
                        f"{row['fresh']} new tokens * (cache write - input price)",
                        row["paid"],
                        "USD",
                    ),
                    Step("Saving", f"{plain(row['gained'])} - {plain(row['paid'])}", saving, "USD"),
                    last,
                ],
                saving=last.value,
                confidence=Confidence.MEDIUM,
                filter={"model": [pair[1] or ""], **({"provider": [pair[0]]} if pair[0] else {})},
                sessions=row["samples"],
            )
        )
    return worthwhile(found)


def _same_provider(one: Pair, other: Pair) -> bool:
    first, second = (built_in.split_name(model or "", provider)[0] for provider, model in (one, other))
    return first == second


def _name(pair: Pair) -> str:
    name = f"{pair[0] or ''}/{pair[1] or ''}"
    return name if len(name) <= 100 else hashlib.sha256(name.encode()).hexdigest()


def _tokens_formula(row: Any) -> str:
    words = {"input": "input", "output": "output", "cache_read": "from the cache", "cache_write": "to the cache"}
    parts = [f"{row[kind]} tokens {words[kind]}" for kind in KINDS if row[kind]]
    return ", ".join(parts) + ", each * its price"
