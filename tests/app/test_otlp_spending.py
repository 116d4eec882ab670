"""What agents that run elsewhere use is spent from budgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from app.wiring import Program
from core import db
from core.ids import encode
from core.permissions import Role
from services.identity.accounts import create_service_account
from services.identity.actors import actor_of_user
from services.identity.tokens import create_access_token
from tests.app.budgeting import budget, status, told
from tests.clients_of_graph import Client
from tests.services.identity_help import HERE
from tests.talking import SEND, create
from tests.telemetry import CHAT, NOW, Door, a_door, attributes, spans, total

pytestmark = pytest.mark.anyio


@pytest.fixture
async def door(database: Program) -> AsyncIterator[Door]:
    async with a_door(database) as found:
        yield found


async def spent_tokens(door: Door, of: Mapping[str, Any], user: str | None = None) -> int:
    document = (
        "query ($id: ID!, $user: ID) { node(id: $id) { ... on Budget { status(userId: $user) { spentTokens } } } }"
    )
    return (await door.graph(document, id=of["id"], user=user))["node"]["status"]["spentTokens"]  # type: ignore[no-any-return]


async def test_what_is_used_elsewhere_uses_budgets_up_once_however_late_and_often_it_comes(door: Door) -> None:
    member = encode("usr", door.house.users[Role.MEMBER]["id"])
    whole = await budget(door.graph, name="Whole", limitUsd="0.5", limitTokens=100_000)
    each = await budget(door.graph, name="Each", subject="EACH_USER", limitTokens=100_000, action="WARN")
    last_hour = await budget(door.graph, name="Hour", window="HOURS", limitTokens=100_000)
    late = NOW - 7200 * 10**9
    body = spans(CHAT, start=late - 10**9, end=late)
    for _ in range(3):
        await asyncio.gather(door.post("traces", body), door.post("traces", body))
    # 200 of input at 3 dollars a million, 50 of output at 15, 700 read at 0.3, 100 written at 3.75.
    price = Decimal("0.001935")
    found = await status(door.graph, whole["id"])
    assert (Decimal(found["spentUsd"]), found["usedUp"]) == (price, False)
    assert await spent_tokens(door, each, member) == 1050
    assert await spent_tokens(door, last_hour) == 0, "it was used before"
    costs = await door.graph(
        "query($from: DateTime!, $to: DateTime!) {"
        " costBreakdown(from: $from, to: $to) { total { amounts { totalUsd } } } }",
        **{"from": "2026-01-01T00:00:00Z", "to": "2035-01-01T00:00:00Z"},
    )
    assert Decimal(costs["costBreakdown"]["total"]["amounts"]["totalUsd"]) == price

    # Claude Code tells its tokens and what they cost: the one is not priced besides the other.
    told_tokens = total(
        "claude_code.token.usage", 1_000_000, NOW + 1, temporality=1, type="output", model="claude-opus-4-5"
    )
    told_cost = total("claude_code.cost.usage", 0.25, NOW + 1, temporality=1, model="claude-opus-4-5")
    both = ExportMetricsServiceRequest()
    both.MergeFromString(told_tokens)
    both.MergeFromString(told_cost)
    for _ in range(2):
        await door.post("metrics", both.SerializeToString())
    await door.post("metrics", total("claude_code.token.usage", 50, NOW + 2, temporality=1, type="input", model="m"))
    found = await status(door.graph, whole["id"])
    assert (Decimal(found["spentUsd"]), found["usedUp"]) == (price + Decimal("0.25"), True), "by its tokens"
    assert await spent_tokens(door, last_hour) == 1_000_050
    assert sorted(one["title"] for one in await told(door.graph)) == [
        "The budget “Each” of Demo Member is used up",
        "The budget “Hour” is used up",
        "The budget “Whole” is used up",
    ]
    client = Client(f"{door.base}/graphql", door.tokens[Role.MEMBER])
    session = (await create(client))["id"]
    refused = await client.refused(SEND, input={"sessionId": session, "text": "/tool time.now {}"})
    assert refused.codes == ["LIMIT_EXCEEDED"]

    # Of nobody, and of a model without a price: the organisation's, and not each user's.
    account = await create_service_account(door.house.actor(Role.ADMIN), name="Collector", role=Role.MEMBER)
    actor = actor_of_user(account, None, HERE)
    secret = (await create_access_token(actor, name="otlp", scopes=["METRICS_INGEST"])).secret
    for email in ({}, {"user.email": door.house.users[Role.VIEWER]["email"]}):
        await door.post(
            "traces",
            spans({**CHAT, "gen_ai.request.model": "own", **email}),
            role=None,
            authorization=f"Bearer {secret}",
        )
    assert await spent_tokens(door, last_hour) == 1_000_050 + 2 * 1050
    assert await spent_tokens(door, each, encode("usr", door.house.users[Role.VIEWER]["id"])) == 1050
    assert await spent_tokens(door, each, member) == 1050 + 1_000_050
    assert await spent_tokens(door, each) == 0, "nobody has no budget"
    sums = await db.fetch(
        "SELECT unit, sum(tokens) AS tokens, sum(unpriced) AS unpriced FROM spend_sums "
        "WHERE spender_id = $1 GROUP BY unit",
        door.house.organization_id,
    )
    assert {(row["tokens"], row["unpriced"]) for row in sums} == {(1050 + 1_000_050 + 2 * 1050, 2)}


async def test_tokens_are_priced_again_when_nobody_has_told_a_cost_for_an_hour(door: Door) -> None:
    whole = await budget(door.graph, name="Whole", limitUsd="100")

    async def spent() -> Decimal:
        return Decimal((await status(door.graph, whole["id"]))["spentUsd"])

    async def use(at: int) -> None:
        of_point = {"type": "output", "model": "claude-opus-4-5"}
        await door.post("metrics", total("claude_code.token.usage", 1_000_000, at, temporality=1, **of_point))

    await door.post("metrics", total("claude_code.cost.usage", 0.5, NOW, temporality=1, model="claude-opus-4-5"))
    await use(NOW + 1)
    assert await spent() == Decimal("0.5")
    for minutes, usd in ((59, "0.5"), (2, "25.5"), (0, "50.5")):
        # Tokens alone do not make it any later.
        await db.execute(
            "UPDATE telemetry_services SET cost_told_at = cost_told_at - $1 * interval '1 minute'", minutes
        )
        await use(NOW + 1000 + minutes)
        assert await spent() == Decimal(usd)


async def test_usage_of_many_requests_has_the_price_of_their_size(door: Door) -> None:
    whole = await budget(door.graph, name="Whole", limitUsd="100")
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    of_resource.resource.attributes.extend(attributes({"service.name": "agent"}))
    metric = of_resource.scope_metrics.add().metrics.add(name="gen_ai.client.token.usage")
    metric.histogram.aggregation_temporality = 1  # type: ignore[assignment]
    for kind in ("input", "output"):
        of_point = {
            "gen_ai.token.type": kind,
            "gen_ai.provider.name": "google",
            "gen_ai.request.model": "gemini-2.5-pro",
        }
        metric.histogram.data_points.add(
            start_time_unix_nano=NOW,
            time_unix_nano=NOW + 1,
            sum=300_000 if kind == "input" else 0,
            count=10,
            attributes=attributes(of_point),
        )
    await door.post("metrics", request.SerializeToString())
    # At 1.25 dollars a million; it would be 2.5 for a request of more than 200,000.
    assert Decimal((await status(door.graph, whole["id"]))["spentUsd"]) == Decimal("0.375")


async def test_each_budget_is_told_of_for_all_whose_usage_came_together(door: Door) -> None:
    account = await create_service_account(door.house.actor(Role.ADMIN), name="Collector", role=Role.MEMBER)
    secret = (
        await create_access_token(actor_of_user(account, None, HERE), name="otlp", scopes=["METRICS_INGEST"])
    ).secret
    await budget(door.graph, name="Whole", limitTokens=1000, action="WARN", warnAt=[])
    await budget(door.graph, name="Each", subject="EACH_USER", limitTokens=1000, action="WARN", warnAt=[])
    people = [{"user.email": door.house.users[role]["email"]} for role in (Role.MEMBER, Role.VIEWER, Role.ADMIN)]
    body = spans(*({**CHAT, **person} for person in people))
    await door.post("traces", body, role=None, authorization=f"Bearer {secret}")
    alerts = await db.fetch(
        "SELECT name, budget_alerts.user_id FROM budget_alerts JOIN budgets ON budgets.id = budget_id"
    )
    assert sorted(row["name"] for row in alerts) == ["Each", "Each", "Each", "Whole"]
    assert len({row["user_id"] for row in alerts}) == 4
