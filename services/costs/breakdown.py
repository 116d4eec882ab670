"""What was spent on what: usage facts priced with a table, by kind of token, in exact decimals.

Every token of a fact is priced by the rate that held at its time; a fact with a kind of token that has no price is not
priced at all, and counted as such. The groups of a breakdown add up to its total:

- a person's spending counts for the one of their teams that they joined first; who may not be named is in one group
  with all others who may not be (services/costs/whose.py);
- a run's spending is split among the tools that it called, by their numbers of calls. What a run without calls has
  spent is in the group without a tool. `runs_usd` is the other way to look at it: all that the runs cost which called
  the tool, so that a run counts for each of its tools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from core import db
from core.permissions import Actor
from models.base import Query, Row
from models.costs import ModelPriceTableRow
from services.costs.prices import ESTIMATED, JOIN_RATES, Pair, price_table, rates_of, rates_sql
from services.costs.questions import CostQuestion, among, conditions, joins, tools_of_runs
from services.costs.rates import KINDS, Rate
from services.costs.whose import Shown, who_is_shown
from services.metrics.people import PEOPLE_DIMENSIONS

MOST_GROUPS = 10_000
"""What comes after them is in the total, and in `others`."""
_USD = tuple(f"{kind}_usd" for kind in KINDS)
_TOKENS = tuple(f"{kind}_tokens" for kind in KINDS)
# Amounts may be split among tools to 15 digits after the point, counts only as a whole.
_SCALES = dict.fromkeys((*_USD, "estimated_usd", "recorded_usd"), 15) | dict.fromkeys(
    (*_TOKENS, "requests", "priced", "unpriced_tokens", "unpriced_requests", "unmeasured_requests", "unrecorded"), 0
)
_NO_TOKENS = " AND ".join(f"facts.{name} IS NULL" for name in _TOKENS)
_DROPPED = """
SELECT dropped_before FROM metric_retention WHERE facts = 'usage' AND level = 'RAW' AND dropped_before > $1
"""


class _GroupRow(Row):
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Amounts:
    """What tokens cost by a table: exact US dollars by kind of token, of all that the table has a price for."""

    usd: Mapping[str, Decimal]
    estimated_usd: Decimal
    """The part whose price depends on how much single requests read, where only their sum is known."""
    priced: int
    """Facts that are in it."""
    unpriced_tokens: int
    unpriced_requests: int

    @property
    def total(self) -> Decimal | None:
        """None where nothing is known."""
        total = sum(self.usd.values(), Decimal(0))
        # Of a fact that several tools share, all but one have money and no fact.
        return total if self.priced or total else None

    def __add__(self, other: Amounts) -> Amounts:
        return self._with(other, 1)

    def __sub__(self, other: Amounts) -> Amounts:
        return self._with(other, -1)

    def _with(self, other: Amounts, sign: int) -> Amounts:
        return Amounts(
            {kind: self.usd[kind] + sign * other.usd[kind] for kind in KINDS},
            self.estimated_usd + sign * other.estimated_usd,
            self.priced + sign * other.priced,
            self.unpriced_tokens + sign * other.unpriced_tokens,
            self.unpriced_requests + sign * other.unpriced_requests,
        )


@dataclass(frozen=True, slots=True)
class CostGroup:
    """A group of usage and its costs. Labels are in the order of the dimensions, ids as text."""

    labels: tuple[str | None, ...]
    amounts: Amounts
    compared: Amounts | None
    tokens: Mapping[str, int]
    requests: int
    unmeasured_requests: int
    """Requests whose tokens the provider did not tell."""
    recorded_usd: Decimal
    """What was said to have cost when it happened."""
    unrecorded: int
    """Requests of which that was not said."""
    runs_usd: Decimal | None
    """Of a tool: what the runs that called it cost altogether."""

    def minus(self, others: Sequence[CostGroup]) -> CostGroup:
        """What is left of a total without these groups of it."""
        left = self
        for other in others:
            left = CostGroup(
                (),
                left.amounts - other.amounts,
                left.compared - other.compared if left.compared and other.compared else None,
                {kind: left.tokens[kind] - other.tokens[kind] for kind in KINDS},
                left.requests - other.requests,
                left.unmeasured_requests - other.unmeasured_requests,
                left.recorded_usd - other.recorded_usd,
                left.unrecorded - other.unrecorded,
                None,
            )
        return left


@dataclass(frozen=True, slots=True)
class UnpricedModel:
    """A model that has no price in the table, at least for a part of the time or of the kinds of tokens."""

    provider: str | None
    model: str | None
    tokens: int
    requests: int


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The answer: groups by what they cost, the dearest first, and the total of all."""

    question: CostQuestion
    table: ModelPriceTableRow
    compared: ModelPriceTableRow | None
    total: CostGroup
    groups: Sequence[CostGroup]
    count: int
    """Groups there are, also those beyond MOST_GROUPS."""
    complete_since: datetime | None
    """Where facts of the range have been dropped: those of before this."""


async def break_down(actor: Actor, question: CostQuestion) -> Breakdown:
    """What was spent, in groups. Raises NotFound, IllegalTransition for the tables."""
    table = await price_table(actor, question.table_id, field="priceTable")
    other = None
    if question.compare_id is not None:
        other = await price_table(actor, question.compare_id, field="compareWith")
    shown = await who_is_shown(actor, question)
    used = await _used(actor, question)
    rates = await rates_of(table, used)
    other_rates = await rates_of(other, used) if other is not None else None
    async with db.transaction() as tx:
        # Both sides are of the same facts, whatever is stored in the meantime.
        await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        rows = await _groups(tx, actor, question, rates, shown)
        others = (
            {}
            if other_rates is None
            else {_key(row, question): _amounts(row) for row in await _groups(tx, actor, question, other_rates, shown)}
        )
    total = _group(next(row for row in rows if row["is_total"]), question, others)
    groups = [_group(row, question, others) for row in rows if not row["is_total"]]
    if shown is not None and not shown.by_amount:
        groups.sort(key=lambda group: [_by_name(label, shown) for label in group.labels])
    count = next(row["groups"] for row in rows if row["is_total"])
    dropped = await db.fetchval(_DROPPED, question.start)
    return Breakdown(question, table, other, total, groups, count, dropped)


async def unpriced_models(actor: Actor, question: CostQuestion) -> tuple[ModelPriceTableRow, list[UnpricedModel]]:
    """The models that the table has no price for, those with the most tokens first."""
    await who_is_shown(actor, question)
    table = await price_table(actor, question.table_id, field="priceTable")
    rates = await rates_of(table, await _used(actor, question))
    query = Query()
    cte = rates_sql(query, rates)
    where = conditions(query, actor, question)
    tokens = " + ".join(f"coalesce(facts.{name}, 0)" for name in _TOKENS)
    rows = await db.fetch(
        f"WITH rates AS MATERIALIZED ({cte}) SELECT facts.provider, facts.model, sum({tokens})::bigint AS tokens, "
        f"sum(facts.requests)::bigint AS requests FROM usage_facts AS facts "
        f"{joins(query, actor, question)} {JOIN_RATES} WHERE {where} AND rates.number IS NULL AND NOT ({_NO_TOKENS}) "
        f"GROUP BY facts.provider, facts.model ORDER BY tokens DESC, facts.model, facts.provider LIMIT {MOST_GROUPS}",
        *query.args,
    )
    return table, [UnpricedModel(row["provider"], row["model"], row["tokens"], row["requests"]) for row in rows]


async def _used(actor: Actor, question: CostQuestion) -> list[Pair]:
    """The models that were used in the range, whatever the filter: there are few."""
    rows = await db.fetch(
        "SELECT provider, model FROM usage_facts WHERE organization_id = $1 AND at >= $2 AND at < $3 "
        "GROUP BY provider, model",
        actor.organization_id,
        question.start,
        question.end,
    )
    return [(row["provider"], row["model"]) for row in rows]


async def _groups(
    tx: db.Transaction, actor: Actor, question: CostQuestion, rates: Mapping[Pair, Sequence[Rate]], shown: Shown | None
) -> list[_GroupRow]:
    query = Query()
    by_tool = "tool" in question.group_by or "tool" in question.filter
    ctes = {"rates": rates_sql(query, rates)}
    keys = [
        (f"d{number}", sql if shown is None or name not in PEOPLE_DIMENSIONS else shown.label(query, name))
        for number, (name, sql) in enumerate(question.dimensions.items())
        if name != "tool"
    ]
    if by_tool:
        keys.append(("run_id", "facts.run_id"))
    named = "".join(f"{sql} AS {name}, " for name, sql in keys)
    names = "".join(f"{name}, " for name, _ in keys)
    ctes["summed"] = (
        f"SELECT {named}rates.number AS rate, {ESTIMATED} AS estimated, count(*) AS facts, "
        + ", ".join(f"sum(coalesce(facts.{name}, 0)) AS {name}" for name in _TOKENS)
        + ", sum(facts.requests) AS requests, "
        f"coalesce(sum(facts.requests) FILTER (WHERE {_NO_TOKENS}), 0) AS unmeasured_requests, "
        f"count(*) FILTER (WHERE {_NO_TOKENS}) AS unmeasured, "
        "coalesce(sum(facts.cost_usd), 0) AS recorded_usd, "
        "coalesce(sum(facts.requests) FILTER (WHERE facts.cost_usd IS NULL), 0) AS unrecorded "
        f"FROM usage_facts AS facts {joins(query, actor, question)} {JOIN_RATES} "
        f"WHERE {conditions(query, actor, question)} "
        f"GROUP BY {names}rates.number, estimated"
    )
    usd = [f"coalesce(summed.{kind}_tokens * rates.{kind} * 0.000001, 0)" for kind in KINDS]
    tokens = " + ".join(f"summed.{name}" for name in _TOKENS)
    ctes["priced"] = (
        f"SELECT {names}"
        + ", ".join(f"{sql} AS {name}" for sql, name in zip(usd, _USD, strict=True))
        + f", CASE WHEN summed.estimated THEN {' + '.join(usd)} ELSE 0 END AS estimated_usd, "
        + ", ".join(f"summed.{name}" for name in _TOKENS)
        + ", summed.requests, summed.unmeasured_requests, summed.recorded_usd, summed.unrecorded, "
        "CASE WHEN rates.number IS NULL THEN 0 ELSE summed.facts - summed.unmeasured END AS priced, "
        f"CASE WHEN rates.number IS NULL THEN {tokens} ELSE 0 END AS unpriced_tokens, "
        "CASE WHEN rates.number IS NULL THEN summed.requests - summed.unmeasured_requests ELSE 0 END "
        "AS unpriced_requests FROM summed LEFT JOIN rates ON rates.number = summed.rate"
    )
    if by_tool:
        ctes |= _by_tool(query, actor, question)
    dimensions = [f"d{number}" for number in range(len(question.group_by))]
    sets = f"(({', '.join(dimensions)}), ())" if dimensions else "(())"
    is_total = f"grouping({', '.join(dimensions)}) > 0" if dimensions else "true"
    runs = f"sum({' + '.join(f'whole_{name}' for name in _USD)})" if by_tool else "NULL::numeric"
    added = ", ".join(
        f"coalesce(sum({name}), 0){'' if scale else '::bigint'} AS {name}" for name, scale in _SCALES.items()
    )
    total = " + ".join(f"coalesce(sum({name}), 0)" for name in _USD)
    ordered = "".join(f", {name}" for name in dimensions)
    statement = (
        "WITH "
        + ", ".join(f"{name} AS {'MATERIALIZED ' if name == 'rates' else ''}({sql})" for name, sql in ctes.items())
        + f" SELECT {''.join(f'{name}, ' for name in dimensions)}{is_total} AS is_total, {added}, {runs} AS runs_usd, "
        f"count(*) OVER () - 1 AS groups FROM {'split' if by_tool else 'priced'} GROUP BY GROUPING SETS {sets} "
        f"ORDER BY is_total DESC, {total} DESC, coalesce(sum(unpriced_tokens), 0) DESC{ordered} LIMIT {MOST_GROUPS + 1}"
    )
    return await tx.fetch(statement, *query.args, row=_GroupRow)


def _by_tool(query: Query, actor: Actor, question: CostQuestion) -> dict[str, str]:
    """Splits each run's figures among its tools. What a tool gets is the difference of two running totals, so that the
    parts add up to the whole, to the last digit."""
    number = next((str(n) for n, name in enumerate(question.group_by) if name == "tool"), None)
    names = "".join(f"priced.d{n}, " for n, name in enumerate(question.group_by) if name != "tool")
    tool = f"calls.tool AS d{number}, " if number is not None else ""
    parts = ", ".join(
        f"CASE WHEN calls.total IS NULL THEN priced.{name} ELSE "
        f"CASE WHEN calls.up_to = calls.total THEN priced.{name} "
        f"ELSE trunc(priced.{name} * calls.up_to / calls.total, {scale}) END "
        f"- trunc(priced.{name} * (calls.up_to - calls.number) / calls.total, {scale}) END AS {name}"
        for name, scale in _SCALES.items()
    )
    whole = ", ".join(f"priced.{name} AS whole_{name}" for name in _USD)
    where = "true" if "tool" not in question.filter else among(query, "calls.tool", question.filter["tool"])
    return {
        "calls": (
            "SELECT *, sum(number) OVER (PARTITION BY run_id ORDER BY tool) AS up_to, "
            "sum(number) OVER (PARTITION BY run_id) AS total "
            f"FROM ({tools_of_runs(query, actor, question)}) AS counted"
        ),
        "split": (
            f"SELECT {names}{tool}{parts}, {whole} FROM priced LEFT JOIN calls ON calls.run_id = priced.run_id "
            f"WHERE {where}"
        ),
    }


def _by_name(label: str | None, shown: Shown) -> tuple[bool, str]:
    """Those without a name, and those who are hidden, come last."""
    return not label, shown.names.get(label or "", label or "")


def _key(row: _GroupRow, question: CostQuestion) -> tuple[Any, ...]:
    return (row["is_total"], *(row[f"d{number}"] for number in range(len(question.group_by))))


def _amounts(row: _GroupRow) -> Amounts:
    return Amounts(
        {kind: row[f"{kind}_usd"] for kind in KINDS},
        row["estimated_usd"],
        row["priced"],
        row["unpriced_tokens"],
        row["unpriced_requests"],
    )


def _group(row: _GroupRow, question: CostQuestion, others: Mapping[tuple[Any, ...], Amounts]) -> CostGroup:
    return CostGroup(
        labels=() if row["is_total"] else tuple(row[f"d{number}"] for number in range(len(question.group_by))),
        amounts=_amounts(row),
        compared=others.get(_key(row, question)),
        tokens={kind: row[f"{kind}_tokens"] for kind in KINDS},
        requests=row["requests"],
        unmeasured_requests=row["unmeasured_requests"],
        recorded_usd=row["recorded_usd"],
        unrecorded=row["unrecorded"],
        runs_usd=None if row["is_total"] or "tool" not in question.group_by else row["runs_usd"],
    )
