"""Recommendations in the graph."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from types import SimpleNamespace
from typing import Annotated, Any
from uuid import UUID

import strawberry

from core.ids import decode, encode
from core.permissions import Permission
from resolvers import recommendations as reads
from resolvers.identity import user_in
from schema.costs import From, To
from schema.fields import Info, column, enum_type, input_type, mutation, nested, object_type, query
from schema.metrics import MetricRowsBehind
from schema.prices import ModelPriceTable, Prices
from schema.sessions import LazyUser, Session
from services.costs import findings
from services.costs import recommendations as writes

RecommendationKind = enum_type(
    findings.RecommendationKind,
    {
        "CHEAPER_MODEL": "Short runs that a cheaper model, which is used already, may do as well: at least 10 finished "
        "runs of at most 500 tokens of output and without failed tools, which would have cost at most half.",
        "UNUSED_CACHE": "Requests that read at least 10,000 tokens on the average, mostly the same as in a request "
        "at most five minutes before, in sessions that use no cache.",
        "LARGE_SYSTEM_PROMPT": "A system prompt of at least 16,000 characters, which every request reads.",
        "IDLE_SESSIONS": "Open sessions with servers and without a run for 14 days. They cost no money, and say so.",
        "FAILED_RUNS": "A template version of whose cost at least a fifth went into failed runs, at least 5 of them.",
    },
)
Confidence = enum_type(
    findings.Confidence,
    {
        "HIGH": "It is as counted.",
        "MEDIUM": "The arithmetic is exact; whether the change does what it assumes has to be tried.",
        "LOW": "The arithmetic begins with an estimate.",
    },
)

_IDS = {"session": "ses", "template_version": "tpv"}


@object_type
class ArithmeticStep:
    """A line of the arithmetic behind a recommendation."""

    label: str = column("What is worked out.")
    formula: str = column("How.")
    value: Decimal = column("The result.")
    unit: str = column("Its unit: USD, tokens, runs, …")


@object_type
class DimensionValues:
    """Values of a dimension of metrics."""

    dimension: str = column("The dimension: `model`, `session`, …")
    values: list[str] = column("The values, ids as the graph has them.")


@object_type
class RecommendationDismissal:
    """That somebody wants to hear no more of a recommendation."""

    reason: str = column("Why not.")
    until: datetime | None = column("Until when; null for good.")
    created_at: datetime = column("When they said so.")

    @nested(user_in("dismissed_by_id"))
    def dismissed_by(self) -> LazyUser:
        """Who it was."""


def _of(name: str) -> Any:
    return attrgetter(name)


def _filter(finding: findings.Finding) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(dimension=dimension, values=[_shown(dimension, value) for value in values])
        for dimension, values in finding.filter.items()
    ]


def _shown(dimension: str, value: str) -> str:
    prefix = _IDS.get(dimension)
    return value if prefix is None else encode(prefix, UUID(value))


@object_type
class CostRecommendation:
    """Something that could be cheaper, with the arithmetic and the usage behind it."""

    kind: RecommendationKind = column("What it is about.", name="finding", show=_of("kind"))
    key: str = column("The same whenever the same is found again: dismiss it by this.", name="finding", show=_of("key"))
    title: str = column("What to do.", name="finding", show=_of("title"))
    explanation: str = column("Why, and what to look out for.", name="finding", show=_of("explanation"))
    steps: list[ArithmeticStep] = column("The arithmetic, line by line.", name="finding", show=_of("steps"))
    saving_usd: Decimal = column("What it saves in 30 days, in US dollars.", name="finding", show=_of("saving"))
    confidence: Confidence = column("How sure that is.", name="finding", show=_of("confidence"))
    price_table: ModelPriceTable = column("The prices that the arithmetic is made with.", name="table")
    since: datetime = column("Begin of the usage behind it.", name="start")
    until: datetime = column("End of the usage behind it.", name="end")
    filter: list[DimensionValues] = column(
        "Which usage it was found in: a filter for metrics, and for costs, over the same range.",
        name="finding",
        show=_filter,
    )
    rows: MetricRowsBehind | None = column(
        "What `metricRows` takes to list the usage, or the failed runs, that it was found in; null for idle sessions, "
        "which have none."
    )
    dismissal: RecommendationDismissal | None = column("Who dismissed it; null where nobody did.")

    @nested(reads.samples_of_recommendations)
    def sample_sessions(self) -> list[Session]:
        """Some of the sessions behind it, at most 10."""


@input_type
class DismissRecommendationInput:
    """A recommendation that you want to hear no more of."""

    key: str = strawberry.field(description="Its key.")
    reason: str = strawberry.field(description="Why, in 1 to 500 characters.")
    until: datetime | None = strawberry.field(default=None, description="Until when; left out, for good.")


@input_type
class RestoreRecommendationInput:
    """A dismissed recommendation to show again."""

    key: str = strawberry.field(description="Its key.")


@object_type
class RecommendationPayload:
    """The recommendation that was dismissed or brought back."""

    key: str = strawberry.field(description="Its key.")


@strawberry.type
class RecommendationQuery:
    @query(Permission.BUDGETS_MANAGE)
    async def cost_recommendations(
        info: Info,
        from_: From,
        to: To,
        price_table: Prices = None,
        with_dismissed: Annotated[bool, strawberry.argument(description="Also those that were dismissed.")] = False,
    ) -> list[CostRecommendation]:
        """What could be cheaper, by what was used in a range of at least a day; what saves most first. What has no
        price is left out, and so is what saves less than a dollar in 30 days, but for idle sessions."""
        return await reads.cost_recommendations(
            info.context.actor,
            from_,
            to,
            table_id=None if price_table is None else decode("mpt", price_table, field="priceTable"),
            with_dismissed=with_dismissed,
        )


@strawberry.type
class RecommendationMutation:
    @mutation(Permission.BUDGETS_MANAGE)
    async def dismiss_recommendation(info: Info, input: DismissRecommendationInput) -> RecommendationPayload:
        """Show a recommendation to your organisation no more, for good or until some time."""
        key = await writes.dismiss(info.context.actor, input.key, reason=input.reason, until=input.until)
        return RecommendationPayload(key=key)

    @mutation(Permission.BUDGETS_MANAGE)
    async def restore_recommendation(info: Info, input: RestoreRecommendationInput) -> RecommendationPayload:
        """Show a dismissed recommendation again."""
        return RecommendationPayload(key=await writes.restore(info.context.actor, input.key))
