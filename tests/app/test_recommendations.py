"""Recommendations: what could be cheaper, with its arithmetic."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from core import db
from core.ids import encode
from core.permissions import Role
from services.costs import built_in
from tests.app.costing import LATER, PAST, Costing, Household, costing
from tests.app.pricing import facts_behind
from tests.clients_of_graph import Client, Json
from tests.databases import TestServer
from tests.talking import create

pytestmark = pytest.mark.anyio

FIND = """
query ($from: DateTime!, $to: DateTime!, $all: Boolean!, $table: ID) {
  costRecommendations(from: $from, to: $to, withDismissed: $all, priceTable: $table) {
    kind key title explanation savingUsd confidence since until
    steps { label formula value unit } filter { dimension values }
    rows { fact from to filter { dimension values } } sampleSessions { id }
    priceTable { number builtIn } dismissal { reason until dismissedBy { id } }
  }
}
"""
DISMISS = """
mutation ($input: DismissRecommendationInput!) { dismissRecommendation(input: $input) { key } }
"""
RESTORE = """
mutation ($input: RestoreRecommendationInput!) { restoreRecommendation(input: $input) { key } }
"""
SONNET = {"provider": "anthropic", "model": "claude-sonnet-4-0"}
"""3 dollars per million tokens in, 15 out, 0.3 from the cache and 3.75 to it, whatever the size of requests."""
HAIKU = {"provider": "anthropic", "model": "claude-haiku-4-5"}
"""1 dollar in, 5 out."""


@pytest.fixture(scope="module")
async def process(
    postgres: TestServer, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Costing]:
    url = postgres.create_database(template=migrated)
    async with costing(url, Path(tmp_path_factory.mktemp("recommendations"))) as found:
        yield found
    postgres.drop_database(url)


@pytest.fixture
async def home(process: Costing) -> Household:
    return await process.house()


async def found(client: Client, *, all: bool = False, **more: Any) -> list[Json]:
    given = {"from": PAST.isoformat(), "to": LATER.isoformat(), "all": all} | more
    return (await client(FIND, **given))["costRecommendations"]  # type: ignore[no-any-return]


async def ran(home: Household, number: int, outcome: str = "FINISHED", **fact: Any) -> list[UUID]:
    """Runs that ended, each with its usage."""
    runs = [uuid4() for _ in range(number)]
    for place, run in enumerate(runs):
        at = PAST + timedelta(hours=place)
        await db.execute(
            "INSERT INTO run_facts (at, organization_id, id, source, run_id, outcome, template_version_id) "
            "VALUES ($1, $2, $3, 'QUARTERDECK', $3, $4, $5)",
            at,
            home.organization_id,
            run,
            outcome,
            fact.get("template_version_id"),
        )
        await home.facts({"at": at, "run_id": run, "input_tokens": 1, "output_tokens": 1} | fact)
    return runs


def step(recommendation: Json, label: str) -> Decimal:
    [value] = [Decimal(each["value"]) for each in recommendation["steps"] if each["label"] == label]
    return value


async def test_short_runs_of_a_dear_model_could_use_a_cheaper_one_that_is_used_already(home: Household) -> None:
    session = (await create(home.member))["id"]
    session_id = await db.fetchval("SELECT id FROM sessions WHERE owner_id = $1", home.user_id(Role.MEMBER))
    await ran(home, 10, **SONNET, input_tokens=100_000, output_tokens=100, session_id=session_id)
    long = await ran(home, 3, **SONNET, input_tokens=100_000, output_tokens=501)
    [failing] = await ran(home, 1, **SONNET, input_tokens=100_000, output_tokens=100)
    await home.calls(failing, "write_file", outcome="FAILED")
    assert await found(home.admin) == []
    await ran(home, 12, **HAIKU)
    [one] = await found(home.admin)
    assert (one["kind"], one["confidence"]) == ("CHEAPER_MODEL", "MEDIUM")
    assert "claude-haiku-4-5" in one["title"]
    # Ten runs of 100,000 tokens in and 100 out.
    assert one["priceTable"] == {"number": None, "builtIn": built_in.NAME}
    assert step(one, "Short runs") == 10
    assert step(one, "They cost with claude-sonnet-4-0") == Decimal("3.015")
    assert step(one, "The same tokens with claude-haiku-4-5") == Decimal("1.005")
    assert step(one, "Saving") == Decimal("2.01")
    assert Decimal(one["savingUsd"]) == step(one, "In 30 days") == Decimal("2.01")
    assert {each["dimension"]: each["values"] for each in one["filter"]} == {
        "model": ["claude-sonnet-4-0"],
        "provider": ["anthropic"],
    }
    assert [each["id"] for each in one["sampleSessions"]] == [session]
    # All usage of the model, of which the short runs are most.
    behind = await facts_behind(home.admin, one)
    assert len(behind) == 10 + len(long) + 1
    assert {fact["input_tokens"] for fact in behind} == {100_000}
    half = await found(home.admin, to=(PAST + timedelta(days=15)).isoformat())
    assert Decimal(half[0]["savingUsd"]) == Decimal("4.02")


async def test_nothing_is_recommended_where_prices_are_unknown_or_little_is_saved(home: Household) -> None:
    await ran(home, 12, provider="nobody", model="house-made-7b", input_tokens=10_000_000, output_tokens=1)
    await ran(home, 12, provider="nobody", model="house-made-1b")
    await ran(home, 12, **SONNET, input_tokens=100, output_tokens=1)
    await ran(home, 12, **HAIKU)
    assert await found(home.admin) == []


async def test_sessions_that_read_the_same_again_should_use_the_cache(home: Household) -> None:
    session = uuid4()
    base = {"session_id": session, "input_tokens": 200_000, "output_tokens": 1, "duration_ms": 60_000.0} | SONNET
    await home.facts(
        *(base | {"at": PAST + timedelta(minutes=4 * n), "input_tokens": 200_000 + 1000 * n} for n in range(4)),
        # By then the cache would be gone.
        base | {"at": PAST + timedelta(hours=2), "input_tokens": 300_000},
        # A session that uses one.
        base | {"session_id": uuid4(), "cache_read_tokens": 5},
    )
    [one] = await found(home.admin)
    assert one["kind"] == "UNUSED_CACHE"
    again = 200_000 + 201_000 + 202_000
    fresh = 200_000 + 201_000 + 202_000 + 203_000 + 300_000 - again
    assert step(one, "Repeated input") == again
    assert step(one, "Cheaper from the cache") == again * Decimal("2.7") / 1_000_000
    assert step(one, "Dearer to write") == fresh * Decimal("0.75") / 1_000_000
    assert Decimal(one["savingUsd"]) == step(one, "Saving")


async def test_a_large_system_prompt_is_paid_for_with_every_request(home: Household) -> None:
    session = (await create(home.member, systemPrompt="Be careful. " * 4000))["id"]
    session_id = await db.fetchval("SELECT id FROM sessions WHERE owner_id = $1", home.user_id(Role.MEMBER))
    await home.facts(
        {"session_id": session_id, "requests": 50, "input_tokens": 700_000} | SONNET,
        {"session_id": session_id, "requests": 100, "input_tokens": 10, "cache_read_tokens": 900_000} | SONNET,
    )
    [one] = [each for each in await found(home.admin) if each["kind"] == "LARGE_SYSTEM_PROMPT"]
    assert (one["confidence"], step(one, "Tokens (estimate)"), step(one, "Over 2000")) == ("LOW", 12_000, 10_000)
    assert step(one, "They cost") == Decimal("1.5") + Decimal("0.3")
    assert sum(fact["requests"] for fact in await facts_behind(home.admin, one)) == 150
    assert [each["id"] for each in one["sampleSessions"]] == [session]


async def test_versions_of_templates_whose_failed_runs_cost_much_are_named(home: Household) -> None:
    version = await _a_template_version(home)
    await ran(home, 5, "FAILED", **SONNET, input_tokens=100_000, output_tokens=600, template_version_id=version)
    await ran(home, 10, **SONNET, input_tokens=100_000, output_tokens=600, template_version_id=version)
    [one] = await found(home.admin)
    assert (one["kind"], step(one, "Runs"), step(one, "Failed")) == ("FAILED_RUNS", 15, 5)
    assert Decimal(one["savingUsd"]) == step(one, "The failed ones cost") == Decimal("1.545")
    assert [fact["fact"] for fact in await facts_behind(home.admin, one)] == ["run"] * 5
    assert one["filter"][0] == {"dimension": "template_version", "values": [encode("tpv", version)]}


async def test_idle_sessions_save_no_money_and_say_so(home: Household) -> None:
    server = (
        await home.admin(
            "mutation ($input: RegisterMcpServerInput!) { registerMcpServer(input: $input) { mcpServer { id } } }",
            input={"name": "idle", "transport": "STDIO", "command": ["true"], "check": False},
        )
    )["registerMcpServer"]["mcpServer"]["id"]
    session = (await create(home.member, mcpServerIds=[server]))["id"]
    assert await found(home.admin) == []
    await db.execute(
        "UPDATE sessions SET updated_at = $2 WHERE organization_id = $1",
        home.organization_id,
        LATER - timedelta(days=15),
    )
    [one] = await found(home.admin)
    assert (one["kind"], Decimal(one["savingUsd"]), one["confidence"]) == ("IDLE_SESSIONS", 0, "HIGH")
    assert "no money" in one["explanation"]
    assert one["rows"] is None
    assert [each["id"] for each in one["sampleSessions"]] == [session]


async def test_what_is_dismissed_comes_back_when_its_time_is_over(home: Household) -> None:
    await ran(home, 12, **SONNET, input_tokens=100_000, output_tokens=100)
    await ran(home, 12, **HAIKU)
    [one] = await found(home.admin)
    await home.admin(DISMISS, input={"key": one["key"], "reason": "We  tried"})
    assert await found(home.admin) == []
    [dismissed] = await found(home.admin, all=True)
    assert dismissed["dismissal"] == {"reason": "We tried", "until": None, "dismissedBy": {"id": home.user(Role.ADMIN)}}
    await home.admin(RESTORE, input={"key": one["key"]})
    assert [each["key"] for each in await found(home.admin)] == [one["key"]]
    assert (await home.admin.refused(RESTORE, input={"key": one["key"]})).codes == ["NOT_FOUND"]
    until = "2999-01-01T00:00:00Z"
    await home.admin(DISMISS, input={"key": one["key"], "reason": "Later", "until": until})
    assert await found(home.admin) == []
    await db.execute(
        "UPDATE recommendation_dismissals SET until = now() WHERE organization_id = $1", home.organization_id
    )
    assert len(await found(home.admin)) == 1


async def test_recommendations_are_for_admins_and_bad_input_is_named(process: Costing, home: Household) -> None:
    refused = await home.member.refused(FIND, **{"from": PAST.isoformat(), "to": LATER.isoformat(), "all": False})
    assert refused.codes == ["FORBIDDEN"]
    for end in (PAST + timedelta(hours=1), PAST, PAST + timedelta(days=4000)):
        refused = await home.admin.refused(FIND, **{"from": PAST.isoformat(), "to": end.isoformat(), "all": False})
        assert (refused.codes, refused.extensions["field"]) == (["BAD_INPUT"], "to")
    refused = await home.admin.refused(
        DISMISS, input={"key": "anything", "reason": " ", "until": "2020-01-01T00:00:00Z"}
    )
    assert [problem["field"] for problem in refused.extensions["fields"]] == ["key", "reason", "until"]
    await ran(home, 12, **SONNET, input_tokens=100_000, output_tokens=100)
    await ran(home, 12, **HAIKU)
    assert await found((await process.house()).admin) == []


async def _a_template_version(home: Household) -> UUID:
    template = await db.fetchval(
        "INSERT INTO session_templates (id, organization_id, name, title, summary, category, labels, owner_id, "
        "draft, draft_digest, draft_revision, draft_updated_at, draft_updated_by_id, created_by_id, created_at, "
        "updated_at, latest_version, use_count, rating_count, rating_sum) VALUES (gen_random_uuid(), $1, 'nightly', "
        "'Nightly', '', 'coding', '{}', $2, '{}', 'x', 1, now(), $2, $2, now(), now(), 1, 0, 0, 0) RETURNING id",
        home.organization_id,
        home.user_id(Role.ADMIN),
    )
    return await db.fetchval(  # type: ignore[no-any-return]
        "INSERT INTO session_template_versions (id, organization_id, template_id, number, spec, digest, message, "
        "author_id, created_at, use_count) VALUES (gen_random_uuid(), $1, $2, 1, '{}', 'x', '', $3, now(), 0) "
        "RETURNING id",
        home.organization_id,
        template,
        home.user_id(Role.ADMIN),
    )
