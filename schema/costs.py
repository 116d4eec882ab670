"""Costs in the graph."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from operator import attrgetter
from typing import Annotated, Any

import strawberry

from core.permissions import Permission
from resolvers import costs as reads
from schema.connections import After, Connection, First
from schema.fields import (
    Info,
    column,
    decode_ids,
    enum_type,
    input_type,
    nested,
    object_type,
    query,
)
from schema.metrics import MetricRowsBehind
from schema.prices import ModelPriceTable, Prices, table_id
from schema.scalars import BigInt
from services.costs.questions import CostQuestion


class CostDimension(StrEnum):
    """What costs are told apart by."""

    MODEL = "MODEL"
    PROVIDER = "PROVIDER"
    USER = "USER"
    TEAM = "TEAM"
    TEMPLATE = "TEMPLATE"
    TEMPLATE_VERSION = "TEMPLATE_VERSION"
    SESSION = "SESSION"
    TOOL = "TOOL"
    RUNTIME = "RUNTIME"
    SERVICE = "SERVICE"
    SOURCE = "SOURCE"


enum_type(
    CostDimension,
    {
        "MODEL": "The model, as it was named.",
        "PROVIDER": "The provider, where the usage says it.",
        "USER": "Who started the runs.",
        "TEAM": "The team of whoever started the runs: of several, the one that they joined first.",
        "TEMPLATE": "The template that the sessions were started from.",
        "TEMPLATE_VERSION": "The version of the template.",
        "SESSION": "The session.",
        "TOOL": "The tool: a run's cost is split among the tools that it called, by their numbers of calls. What runs "
        "without calls have cost is in the group without a tool.",
        "RUNTIME": "What ran the agent.",
        "SERVICE": "The service that reported the usage from outside.",
        "SOURCE": "Whether it happened in a session here (QUARTERDECK) or was reported from outside (OTLP).",
    },
)


def _amount(kind: str) -> Any:
    return lambda usd: usd[kind]


def _of(name: str) -> Any:
    return attrgetter(name)


def _tokens(kind: str) -> Any:
    return lambda group: group.tokens[kind]


@object_type
class CostAmounts:
    """What usage costs by a price table, in exact US dollars. What has no price there is counted and not guessed."""

    total_usd: Decimal | None = column("All kinds of tokens together; null where nothing has a price.", name="total")
    input_usd: Decimal = column(
        "Input that was neither read from a cache nor written to one.", name="usd", show=_amount("input")
    )
    output_usd: Decimal = column("Output.", name="usd", show=_amount("output"))
    cache_read_usd: Decimal = column("Input that was read from a cache.", name="usd", show=_amount("cache_read"))
    cache_write_usd: Decimal = column("Input that was written to a cache.", name="usd", show=_amount("cache_write"))
    estimated_usd: Decimal = column(
        "The part of the total where the price depends on how much single requests read, and only their average is "
        "known."
    )
    unpriced_tokens: BigInt = column("Tokens that have no price in the table: `unpricedModels` lists their models.")
    unpriced_requests: BigInt = column("Requests that these tokens are of.")


@object_type
class CostKey:
    """What a group of costs is a group of."""

    dimension: CostDimension = column(
        "Of which dimension.", name="dimension", show=lambda name: CostDimension(name.upper())
    )
    value: str | None = column("The value: a name, or the id of what it is; null for what has none.")
    name: str | None = column("What it is called, where it has an id and you may see it.")
    hidden: bool = column(
        "Whether these are all people, or teams, together who may not be told apart: the policy of your organisation "
        "says who may be."
    )


@object_type
class CostGroup:
    """Usage and what it costs."""

    @nested(reads.keys_of_groups)
    def keys(self) -> list[CostKey]:
        """What it is a group of, in the order of `groupBy`; empty for a total, and for all others together."""

    amounts: CostAmounts = column("What it costs by the price table.", name="group", show=_of("amounts"))
    compared: CostAmounts | None = column("What it costs by the table of `compareWith`; null where none is given.")
    difference_usd: Decimal | None = column(
        "`compared` less `amounts`, of the totals: what more the other table would have cost."
    )
    share: float | None = column("The part of the breakdown's total that it is, 0 to 1; null where that is not known.")
    input_tokens: BigInt = column(
        "Input tokens that were neither read from a cache nor written to one.", name="group", show=_tokens("input")
    )
    output_tokens: BigInt = column("Output tokens.", name="group", show=_tokens("output"))
    cache_read_tokens: BigInt = column("Tokens that were read from a cache.", name="group", show=_tokens("cache_read"))
    cache_write_tokens: BigInt = column(
        "Tokens that were written to a cache.", name="group", show=_tokens("cache_write")
    )
    requests: BigInt = column("Requests to models.", name="group", show=_of("requests"))
    unmeasured_requests: BigInt = column(
        "Requests whose tokens the provider did not tell: they are in no amount.",
        name="group",
        show=_of("unmeasured_requests"),
    )
    recorded_usd: Decimal = column(
        "What was recorded as the cost when it happened, by the provider or by the prices of that time.",
        name="group",
        show=_of("recorded_usd"),
    )
    unrecorded_requests: BigInt = column(
        "Requests for which no cost was recorded.", name="group", show=_of("unrecorded")
    )
    cost_of_runs_usd: Decimal | None = column(
        "Of a tool: what the runs that called it have cost altogether. A run counts for each of its tools, so these do "
        "not add up to the total; null for other groups.",
        name="group",
        show=_of("runs_usd"),
    )
    rows: MetricRowsBehind | None = column(
        "What `metricRows` takes to list the usage behind it; of a tool, its calls. Null for all others together, for "
        "people and teams who may not be told apart, for teams, and for what has no tool."
    )


@object_type
class CostBreakdown:
    """What was spent on what."""

    since: datetime = column("Begin.", name="question", show=_of("start"))
    until: datetime = column("End, not in it any more.", name="question", show=_of("end"))
    complete_since: datetime | None = column(
        "Set where usage of before that moment is not kept one by one any more: it is not in the figures."
    )
    price_table: ModelPriceTable = column("The prices that it was made with.", name="table")
    compared_with: ModelPriceTable | None = column("The other prices.", name="compared")

    @nested(reads.totals_of_breakdowns)
    def total(self) -> CostGroup:
        """All of it."""

    @nested(reads.groups_of_breakdowns)
    def groups(self, first: First = None, after: After = None) -> Connection[CostGroup]:
        """The groups, the dearest first, at most 10,000; by name where your organisation does not let people and teams
        be ordered by their figures. Together with `others` they add up to the total."""

    @nested(reads.others_of_breakdowns)
    def others(
        self,
        top: Annotated[int, strawberry.argument(description="How many groups not to count, 0 to 1,000.")] = 25,
    ) -> CostGroup | None:
        """All groups after the first `top` ones together; null where there are none."""


@object_type
class UnpricedModel:
    """A model that was used, and has no price."""

    provider: str | None = column("The provider, where the usage says it.")
    model: str | None = column("The model; null where the usage does not name it.")
    tokens: BigInt = column("Tokens of all kinds without a price.")
    requests: BigInt = column("Requests that these are of.")


@object_type
class UnpricedModels:
    """Models that were used, and that a price table has no price for."""

    price_table: ModelPriceTable = column("The table.", name="table")
    models: list[UnpricedModel] = column("The models, those with the most tokens first; at most 10,000.")


@input_type
class CostFilter:
    """Which usage to look at. Conditions that are left out take everything; each takes at most 1,000 values."""

    models: list[str] | None = strawberry.field(default=None, description="Of one of these models.")
    providers: list[str] | None = strawberry.field(default=None, description="Of one of these providers.")
    user_ids: list[strawberry.ID] | None = strawberry.field(default=None, description="Started by one of these users.")
    team_ids: list[strawberry.ID] | None = strawberry.field(default=None, description="By somebody of these teams.")
    template_ids: list[strawberry.ID] | None = strawberry.field(default=None, description="Of one of these templates.")
    template_version_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Of one of these template versions."
    )
    session_ids: list[strawberry.ID] | None = strawberry.field(default=None, description="In one of these sessions.")
    tools: list[str] | None = strawberry.field(
        default=None, description="The parts of runs that fall to one of these tools."
    )
    runtimes: list[str] | None = strawberry.field(default=None, description="By one of these runtimes.")
    services: list[str] | None = strawberry.field(default=None, description="Reported by one of these services.")
    sources: list[str] | None = strawberry.field(default=None, description="QUARTERDECK or OTLP.")

    def checked(self) -> dict[str, list[str | None]]:
        """By dimension."""
        found: dict[str, Any] = {
            "model": self.models,
            "provider": self.providers,
            "tool": self.tools,
            "runtime": self.runtimes,
            "service": self.services,
            "source": self.sources,
        }
        for name, kind, ids, place in (
            ("user", "User", self.user_ids, "userIds"),
            ("team", "Team", self.team_ids, "teamIds"),
            ("template", "SessionTemplate", self.template_ids, "templateIds"),
            ("template_version", "SessionTemplateVersion", self.template_version_ids, "templateVersionIds"),
            ("session", "Session", self.session_ids, "sessionIds"),
        ):
            decoded = decode_ids(kind, ids, f"filter.{place}")
            found[name] = None if decoded is None else [str(id_) for id_ in decoded]
        return {name: values for name, values in found.items() if values is not None}


From = Annotated[datetime, strawberry.argument(name="from", description="Begin.")]
To = Annotated[datetime, strawberry.argument(description="End, not in it any more: at most ten years later.")]
Which = Annotated[CostFilter | None, strawberry.argument(description="Which usage.")]


@strawberry.type
class CostQuery:
    @query(Permission.METRICS_READ)
    async def cost_breakdown(
        info: Info,
        from_: From,
        to: To,
        group_by: Annotated[
            list[CostDimension] | None, strawberry.argument(description="What to tell apart, at most 3.")
        ] = None,
        filter: Which = None,
        price_table: Prices = None,
        compare_with: Annotated[
            strawberry.ID | None,
            strawberry.argument(description="Another price table, `mpt_…`, to work the same out with, side by side."),
        ] = None,
    ) -> CostBreakdown:
        """What was spent on what, in exact US dollars, by a price table. Admins see their organisation's costs;
        everybody else those of their own runs."""
        question = CostQuestion(
            from_,
            to,
            [dimension.value.lower() for dimension in group_by or ()],
            filter.checked() if filter else {},
            table_id(price_table, "priceTable"),
            table_id(compare_with, "compareWith"),
        )
        return await reads.cost_breakdown(info.context.actor, question)

    @query(Permission.METRICS_READ)
    async def unpriced_models(
        info: Info, from_: From, to: To, filter: Which = None, price_table: Prices = None
    ) -> UnpricedModels:
        """The models that were used and have no price in the table: what they cost is not known, and in no amount."""
        question = CostQuestion(from_, to, (), filter.checked() if filter else {}, table_id(price_table, "priceTable"))
        return await reads.models_without_price(info.context.actor, question)
