"""What the tests of costs and price tables share: the documents, and asking with them."""

from __future__ import annotations

from typing import Any

from tests.app.costing import LATER, PAST
from tests.clients_of_graph import Client, Json

AMOUNTS = """
  totalUsd inputUsd outputUsd cacheReadUsd cacheWriteUsd estimatedUsd unpricedTokens unpricedRequests
"""
GROUP = f"""
  keys {{ dimension value name hidden }} amounts {{ {AMOUNTS} }} compared {{ {AMOUNTS} }} differenceUsd share
  inputTokens outputTokens cacheReadTokens cacheWriteTokens requests unmeasuredRequests recordedUsd unrecordedRequests
  costOfRunsUsd rows {{ fact from to filter {{ dimension values }} }}
"""
BREAKDOWN = f"""
query ($from: DateTime!, $to: DateTime!, $by: [CostDimension!], $filter: CostFilter, $table: ID, $other: ID,
       $first: Int, $after: String, $top: Int! = 25) {{
  costBreakdown(from: $from, to: $to, groupBy: $by, filter: $filter, priceTable: $table, compareWith: $other) {{
    since until priceTable {{ number builtIn }} comparedWith {{ number builtIn }}
    total {{ {GROUP} }} others(top: $top) {{ {GROUP} }}
    groups(first: $first, after: $after) {{
      totalCount pageInfo {{ hasNextPage endCursor }} nodes {{ {GROUP} }}
    }}
  }}
}}
"""
ROWS = """
query ($fact: String!, $from: DateTime!, $to: DateTime!, $filter: [MetricConditionInput!]) {
  metricRows(fact: $fact, from: $from, to: $to, filter: $filter, first: 100) {
    nodes { fact measures { name value } }
  }
}
"""
TABLE = "id number builtIn note publishedAt author { id } base { builtIn }"
CREATE = f"""
mutation ($input: CreatePriceTableInput!) {{ createPriceTable(input: $input) {{ priceTable {{ {TABLE} }} }} }}
"""
UPDATE = f"""
mutation ($input: UpdatePriceTableInput!) {{ updatePriceTable(input: $input) {{ priceTable {{ {TABLE} }} }} }}
"""
PUBLISH = f"""
mutation ($input: PublishPriceTableInput!) {{ publishPriceTable(input: $input) {{ priceTable {{ {TABLE} }} }} }}
"""
POLICY = """
mutation ($input: UpdateAnalyticsPolicyInput!) { updateAnalyticsPolicy(input: $input) { __typename } }
"""
RATES = """
query ($model: String!, $provider: String, $table: ID) {
  modelRates(model: $model, provider: $provider, priceTable: $table) {
    input output cacheRead cacheWrite effectiveFrom effectiveTo dailyFrom dailyTo above upTo
  }
}
"""
UNPRICED = """
query ($from: DateTime!, $to: DateTime!, $table: ID) {
  unpricedModels(from: $from, to: $to, priceTable: $table) {
    priceTable { builtIn } models { provider model tokens requests }
  }
}
"""


async def facts_behind(client: Client, of: Json) -> list[dict[str, Any]]:
    """The facts that something says are behind it, the measures of each by name."""
    nodes = (await client(ROWS, **of["rows"]))["metricRows"]["nodes"]
    return [
        {"fact": node["fact"]} | {measure["name"]: measure["value"] for measure in node["measures"]} for node in nodes
    ]


async def costs(client: Client, **variables: Any) -> Json:
    given = {"from": PAST.isoformat(), "to": LATER.isoformat()} | variables
    return (await client(BREAKDOWN, **given))["costBreakdown"]  # type: ignore[no-any-return]


async def published(client: Client, *rows: Json, note: str = "") -> Json:
    made = (await client(CREATE, input={"rows": list(rows), "note": note}))["createPriceTable"]["priceTable"]
    return (await client(PUBLISH, input={"priceTableId": made["id"]}))["publishPriceTable"]["priceTable"]  # type: ignore[no-any-return]


def keyed(breakdown: Json) -> list[tuple[Json, Json]]:
    return [(group["keys"][0], group) for group in breakdown["groups"]["nodes"]]


def labels(breakdown: Json) -> dict[str | None, Json]:
    return {group["keys"][0]["value"]: group for group in breakdown["groups"]["nodes"]}
