"""Reads of metrics: series, figures of now, and the facts behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from core import db
from core.paging import Page, cut, decode_cursor, encode_cursor, page_size
from core.permissions import Actor, Permission
from models.identity import Team, TeamRow
from models.metrics import FACTS, FactRow
from resolvers import reading
from resolvers.identity import user_in
from services.metrics import rows
from services.metrics.activity import Activity, Of
from services.metrics.definitions import METRICS, Metric
from services.metrics.families import Level
from services.metrics.labels import Label, Names
from services.metrics.policy import AnalyticsPolicy, policies
from services.metrics.retention import kept
from services.metrics.rows import RowsQuestion

MEASURES = frozenset(
    {
        "duration_ms",
        "queue_ms",
        "requests",
        "input_tokens",
        "output_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "cost_usd",
        "characters",
        "value",
    }
)
"""Columns of facts that are amounts; the other ones are labels."""


@dataclass(frozen=True, slots=True)
class KeptLevel:
    """A level, and how many days it is kept; None for ever."""

    level: str
    kept_days: int | None


@dataclass(frozen=True, slots=True)
class Measure:
    """An amount of a fact."""

    name: str
    value: float


def metrics() -> list[Metric]:
    """All metrics, by name."""
    return [METRICS[name] for name in sorted(METRICS)]


def levels_of(metric: Metric) -> list[KeptLevel]:
    """What a metric is read from, and how long that is kept."""
    found = []
    for level in Level:
        lasts = kept(level)
        found.append(KeptLevel(level, None if lasts is None else lasts.days))
    return found


async def metric_rows(actor: Actor, question: RowsQuestion, *, first: int | None, after: str | None) -> Page[FactRow]:
    """The facts of a kind in a range that fulfil a filter, the latest first: those that the actor's figures are made
    of, in sessions that the actor may see. Raises BadInput, Forbidden."""
    filter_ = await rows.checked(actor, question)
    # The facts of our own tool calls have their ids.
    tool = "CASE WHEN source = 'QUARTERDECK' THEN id END" if question.fact == "tool" else "NULL::uuid"
    return await reading.page(
        f"{question.fact}_facts",
        FactRow,
        partial(rows.conditions, actor, question, filter_),
        first=first,
        after=after,
        order="at",
        columns=f"*, '{question.fact}' AS fact, {tool} AS tool_execution_id",
        search=True,
    )


async def labels_of_rows(actor: Actor, facts: Sequence[FactRow], args: dict[str, Any]) -> list[list[Label]]:
    """What each fact is told apart by, without its ids of people."""
    ids = [row["template_version_id"] for row in facts]
    names = await Names.of(actor, ["template_version"], {(str(id_),) for id_ in ids if id_ is not None})
    found = []
    for row, version in zip(facts, ids, strict=True):
        labels = [Label(name, row[name], row[name]) for name in ("source", "runtime", "service") if row[name]]
        labels += [
            Label("error" if name in rows.ERRORS.values() else name, row[name], row[name])
            for name in FACTS[row["fact"]]
            if name not in MEASURES and row[name] is not None
        ]
        if version is not None:
            labels.append(names.label("template_version", str(version)))
        found.append(labels)
    return found


def measures_of(row: FactRow) -> list[Measure]:
    """The amounts of a fact that are known."""
    return [Measure(name, float(value)) for name, value in row.items() if name in MEASURES and value is not None]


async def analytics_policies_of(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[AnalyticsPolicy]:
    """The policy of each organisation."""
    found = await policies(db.fetch, [parent["id"] for parent in parents])
    return [found[parent["id"]] for parent in parents]


async def is_named(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[bool]:
    """Whether the actor lets their figures be shown under their name."""
    opted_out = await db.fetchval("SELECT count(*) FROM analytics_opt_outs WHERE user_id = $1", actor.user_id)
    return [not opted_out] * len(parents)


async def shown_in_activity(actor: Actor, parents: Sequence[Activity], args: dict[str, Any]) -> list[Page[Of]]:
    """A page of those whom an answer shows, in its order."""
    size = page_size(args["first"])
    pages = []
    for parent in parents:
        begin = 0
        if args["after"] is not None:
            [place] = decode_cursor(args["after"], 1)
            begin = next((n + 1 for n, of in enumerate(parent.shown) if str(of.id) == place), len(parent.shown))
        cursor_of = lambda of: encode_cursor(str(of.id))  # noqa: E731
        found = parent.shown[begin : begin + size + 1]
        pages.append(cut(found, size, cursor_of, partial(_count, parent), after=args["after"]))
    return pages


async def _count(activity: Activity) -> int:
    return len(activity.shown)


users_of = user_in("id")
teams_of = reading.needing(Permission.MEMBERS_READ, reading.parent("teams", TeamRow, "id", Team.visible_to))
