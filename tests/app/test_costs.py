"""Price tables and costs, through the graph."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest

from core import db
from core.ids import encode
from core.permissions import Role
from services.costs import built_in
from tests.app.costing import LATER, MODEL, PAST, Costing, Household, costing
from tests.app.pricing import (
    BREAKDOWN,
    CREATE,
    POLICY,
    PUBLISH,
    RATES,
    UNPRICED,
    UPDATE,
    costs,
    facts_behind,
    keyed,
    labels,
    published,
)
from tests.clients_of_graph import Json
from tests.databases import TestServer
from tests.talking import create, eventually, history, talk

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def process(
    postgres: TestServer, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Costing]:
    url = postgres.create_database(template=migrated)
    async with costing(url, Path(tmp_path_factory.mktemp("costs"))) as found:
        yield found
    postgres.drop_database(url)


@pytest.fixture
async def home(process: Costing) -> Household:
    return await process.house()


# -- amounts


async def test_tokens_of_each_kind_are_priced_by_the_built_in_table(home: Household) -> None:
    await home.facts(
        {"input_tokens": 1000, "output_tokens": 200, "cache_read_tokens": 3000, "cache_write_tokens": 50},
        {"model": "gpt-4o", "provider": "openai", "input_tokens": 7, "output_tokens": 3, "cost_usd": Decimal("0.5")},
    )
    found = await costs(home.admin, by=["MODEL"])
    assert found["priceTable"] == {"number": None, "builtIn": built_in.NAME}
    claude, gpt = labels(found)[MODEL], labels(found)["gpt-4o"]
    # 3, 15, 0.3 and 3.75 dollars per million.
    assert {name: Decimal(claude["amounts"][name]) for name in ("inputUsd", "outputUsd", "cacheReadUsd")} == {
        "inputUsd": Decimal("0.003"),
        "outputUsd": Decimal("0.003"),
        "cacheReadUsd": Decimal("0.0009"),
    }
    assert Decimal(claude["amounts"]["cacheWriteUsd"]) == Decimal("0.0001875")
    assert Decimal(claude["amounts"]["totalUsd"]) == Decimal("0.0070875")
    assert Decimal(gpt["amounts"]["totalUsd"]) == Decimal("0.0000475")
    assert (gpt["recordedUsd"], gpt["unrecordedRequests"]) == ("0.5", 0)
    assert Decimal(found["total"]["amounts"]["totalUsd"]) == Decimal("0.007135")
    assert claude["share"] == pytest.approx(0.0070875 / 0.007135)
    assert found["others"] is None


async def test_runs_cost_here_what_they_cost_when_they_ran(home: Household) -> None:
    session = (await create(home.member, runtime="pydantic_ai", model=MODEL))["id"]
    await talk(home.member, session, "hello")
    await talk(home.member, session, 'TOOL list_files {"path": "."}')
    cost = Decimal((await history(home.member, session))["usage"]["costUsd"])
    now = datetime.now(UTC)
    around = {"from": (now - timedelta(hours=1)).isoformat(), "to": (now + timedelta(hours=1)).isoformat()}

    async def counted() -> Json | None:
        found = await costs(home.admin, by=["SESSION", "TOOL"], **around)
        return found if found["total"]["requests"] == 3 else None

    found = await eventually(counted)
    assert Decimal(found["total"]["amounts"]["totalUsd"]) == Decimal(found["total"]["recordedUsd"]) == cost
    by_tool = {group["keys"][1]["value"]: group for group in found["groups"]["nodes"]}
    assert by_tool.keys() == {None, "list_files"}
    assert {group["keys"][0]["value"] for group in by_tool.values()} == {session}
    assert Decimal(by_tool["list_files"]["amounts"]["totalUsd"]) > Decimal(by_tool[None]["amounts"]["totalUsd"])


async def test_what_no_table_knows_costs_null_and_is_listed(home: Household) -> None:
    await home.facts(
        {"model": "house-made-7b", "input_tokens": 100, "output_tokens": 5},
        {"model": None, "provider": "nobody", "input_tokens": 4},
        {"input_tokens": 1_000_000, "requests": 10},
        {"model": "gpt-4o"},
    )
    found = labels(await costs(home.admin, by=["MODEL"]))
    own = found["house-made-7b"]
    assert (own["amounts"]["totalUsd"], own["amounts"]["unpricedTokens"], own["share"]) == (None, 105, None)
    assert (found["gpt-4o"]["unmeasuredRequests"], found["gpt-4o"]["amounts"]["unpricedTokens"]) == (1, 0)
    total = (await costs(home.admin))["total"]["amounts"]
    assert (Decimal(total["totalUsd"]), total["unpricedTokens"], total["unpricedRequests"]) == (Decimal(3), 109, 2)
    listed = (await home.admin(UNPRICED, **{"from": PAST.isoformat(), "to": LATER.isoformat()}))["unpricedModels"]
    assert listed["models"] == [
        {"provider": None, "model": "house-made-7b", "tokens": 105, "requests": 1},
        {"provider": "nobody", "model": None, "tokens": 4, "requests": 1},
    ]


async def test_long_requests_have_the_price_of_their_size_and_averages_are_called_estimated(home: Household) -> None:
    await home.facts(
        {"input_tokens": 200_000},  # 3 dollars per million up to here
        {"input_tokens": 200_001},  # 6 from here on
        {"input_tokens": 300_000, "requests": 2},  # 150,000 each on the average
        {"input_tokens": 400_000, "requests": 0},  # of nobody knows how many
    )
    found = (await costs(home.admin))["total"]["amounts"]
    assert Decimal(found["inputUsd"]) == Decimal("0.6") + Decimal("1.200006") + Decimal("0.9") + Decimal("1.2")
    assert Decimal(found["estimatedUsd"]) == Decimal("0.9") + Decimal("1.2")


async def test_a_price_is_that_of_its_time(home: Household) -> None:
    change = PAST + timedelta(days=10)
    table = await published(
        home.admin,
        {"model": "claude-sonnet-*", "input": "1", "output": "1", "effectiveTo": change.isoformat()},
        {"model": "claude-sonnet-*", "input": "2", "output": "1", "effectiveFrom": change.isoformat()},
    )
    assert (table["number"], table["base"]) == (1, {"builtIn": built_in.NAME})
    for at in (change - timedelta(microseconds=1), change):
        await home.facts({"at": at, "input_tokens": 1_000_000})
    assert Decimal((await costs(home.admin))["total"]["amounts"]["totalUsd"]) == 3
    rates = (await home.admin(RATES, model=MODEL))["modelRates"]
    assert [(rate["input"], rate["effectiveFrom"], rate["cacheRead"]) for rate in rates] == [
        ("1.000000000", None, "1.000000000"),
        ("2.000000000", change.isoformat(), "2.000000000"),
    ]


async def test_own_prices_lie_over_the_built_in_ones_and_both_can_be_seen_side_by_side(home: Household) -> None:
    million = {"input_tokens": 1_000_000, "requests": 10}
    await home.facts(million, million | {"model": "gpt-4o", "provider": "openai"})
    before = await costs(home.admin)
    assert Decimal(before["total"]["amounts"]["totalUsd"]) == Decimal("5.5")
    tables = (await home.admin("{ priceTables { nodes { id builtIn } } }"))["priceTables"]["nodes"]
    library = next(table["id"] for table in tables if table["builtIn"])
    own = await published(home.admin, {"provider": "anthropic", "model": "*", "input": "10", "output": "0"})
    found = await costs(home.admin, by=["MODEL"], other=library)
    assert (found["priceTable"], found["comparedWith"]) == (
        {"number": 1, "builtIn": None},
        {"number": None, "builtIn": built_in.NAME},
    )
    claude, gpt = labels(found)[MODEL], labels(found)["gpt-4o"]
    assert (Decimal(claude["amounts"]["totalUsd"]), Decimal(claude["compared"]["totalUsd"])) == (10, 3)
    assert (Decimal(claude["differenceUsd"]), Decimal(gpt["differenceUsd"])) == (-7, 0)
    assert Decimal(found["total"]["differenceUsd"]) == -7
    again = await costs(home.admin, table=library, other=own["id"])
    assert Decimal(again["total"]["differenceUsd"]) == 7


async def test_a_tool_has_its_part_of_the_runs_that_called_it(home: Household) -> None:
    one, two, three = (uuid4() for _ in range(3))
    await home.facts(
        {"run_id": one, "input_tokens": 1_000_000, "output_tokens": 10},
        {"run_id": two, "input_tokens": 2_000_000},
        {"run_id": three, "input_tokens": 4_000_000},
    )
    await home.calls(one, "read", "read", "write")
    await home.calls(two, "read")
    found = await costs(home.admin, by=["TOOL"])
    by_tool = labels(found)
    total = sum(Decimal(group["amounts"]["totalUsd"]) for group in by_tool.values())
    assert total == Decimal(found["total"]["amounts"]["totalUsd"]) == Decimal("42.000225")
    # 4,000,000 tokens are over the size from which they cost twice as much.
    assert Decimal(by_tool[None]["amounts"]["totalUsd"]) == 24
    # A third of the first run's 6.00015 dollars.
    assert Decimal(by_tool["write"]["amounts"]["totalUsd"]) == Decimal("2.000075")
    assert sum(group["inputTokens"] for group in by_tool.values()) == 7_000_000
    assert Decimal(by_tool["read"]["costOfRunsUsd"]) == Decimal(by_tool["write"]["costOfRunsUsd"]) + 12
    assert Decimal(by_tool["write"]["costOfRunsUsd"]) > Decimal(by_tool["write"]["amounts"]["totalUsd"])


async def test_every_group_says_what_lists_the_usage_behind_it(home: Household) -> None:
    one, version = uuid4(), uuid4()
    await home.facts(
        {"run_id": one, "input_tokens": 500, "template_version_id": version},
        {"input_tokens": 30, "service": "outside"},
        {"input_tokens": 4, "model": "gpt-4o", "provider": "openai", "user_id": home.user_id(Role.ADMIN)},
        {"input_tokens": 1, "user_id": home.user_id(Role.VIEWER), "at": LATER},
    )
    await home.calls(one, "read", "read", "write", template_version_id=version)
    for dimensions in (["MODEL"], ["PROVIDER", "SERVICE"], ["SERVICE", "TEMPLATE_VERSION"], ["SOURCE"]):
        found = await costs(home.admin, by=dimensions)
        for group in [found["total"], *found["groups"]["nodes"]]:
            behind = await facts_behind(home.admin, group)
            assert {fact["fact"] for fact in behind} == {"usage"}
            assert sum(fact["input_tokens"] for fact in behind) == group["inputTokens"], (dimensions, group)
    found = await costs(home.admin, by=["MODEL"], filter={"services": ["outside"]})
    assert [fact["input_tokens"] for fact in await facts_behind(home.admin, found["total"])] == [30]
    assert (await costs(home.admin, by=["MODEL"], top=1))["others"]["rows"] is None
    by_tool = labels(await costs(home.admin, by=["TOOL"], filter={"templateVersionIds": [encode("tpv", version)]}))
    assert [fact["fact"] for fact in await facts_behind(home.admin, by_tool["read"])] == ["tool", "tool"]
    assert labels(await costs(home.admin, by=["TOOL"]))[None]["rows"] is None
    people = {group["keys"][0]["hidden"]: group for group in (await costs(home.admin, by=["USER"]))["groups"]["nodes"]}
    assert people[True]["rows"] is None
    assert [fact["input_tokens"] for fact in await facts_behind(home.admin, people[False])] == [4]


async def test_teams_count_each_person_once_and_only_crowds_are_shown(home: Household) -> None:
    teams = {}
    for name, roles in (
        ("Red", (Role.MEMBER, Role.ADMIN)),
        ("Blue", (Role.MEMBER, Role.VIEWER)),
        ("Green", (Role.MEMBER, Role.VIEWER)),
    ):
        teams[name] = await db.fetchval(
            "INSERT INTO teams (id, organization_id, name, slug, created_at) "
            "VALUES (gen_random_uuid(), $1, $2::text, lower($2::text), now()) RETURNING id",
            home.organization_id,
            name,
        )
        for role in roles:
            await db.execute(
                "INSERT INTO team_members (id, team_id, user_id, created_at) VALUES (gen_random_uuid(), $1, $2, "
                "clock_timestamp())",
                teams[name],
                home.user_id(role),
            )
    another = await db.fetchval(
        "WITH another AS (INSERT INTO users (id, organization_id, kind, name, role, created_at) "
        "VALUES (gen_random_uuid(), $1, 'HUMAN', 'Another', 'MEMBER', now()) RETURNING id) "
        "INSERT INTO team_members (id, team_id, user_id, created_at) "
        "SELECT gen_random_uuid(), $2, id, now() FROM another RETURNING user_id",
        home.organization_id,
        teams["Red"],
    )
    await home.facts(
        {"input_tokens": 1_000},
        {"input_tokens": 50_000, "user_id": another},
        {"input_tokens": 200, "user_id": home.user_id(Role.ADMIN)},
        {"input_tokens": 30, "user_id": home.user_id(Role.VIEWER)},
        {"input_tokens": 4, "user_id": home.user_id(Role.OWNER)},
        {"input_tokens": 500_000, "user_id": None},
    )
    await home.admin(POLICY, input={"floor": 2})
    found = await costs(home.admin, by=["TEAM"])
    # Of Blue only one person counts, who is with those without a team; of Green nobody does. Of Red there are
    # two beside the admin who asks.
    assert {(key["name"], key["hidden"]): group["inputTokens"] for key, group in keyed(found)} == {
        ("Red", False): 51_200,
        (None, True): 34,
        (None, False): 500_000,
    }
    assert found["total"]["inputTokens"] == 551_234
    red, blue = (encode("team", teams[name]) for name in ("Red", "Blue"))
    assert (await costs(home.admin, filter={"teamIds": [red]}))["total"]["inputTokens"] == 51_200
    given = {"from": PAST.isoformat(), "to": LATER.isoformat(), "filter": {"teamIds": [blue]}}
    assert (await home.admin.refused(BREAKDOWN, **given)).codes == ["FORBIDDEN"]
    window = {"from": PAST.isoformat(), "to": LATER.isoformat()}
    assert (await home.admin.refused(BREAKDOWN, **window, by=["TEAM", "USER"])).codes == ["BAD_INPUT"]


async def test_people_are_named_where_the_organisation_says_so_and_in_the_order_it_allows(home: Household) -> None:
    await home.facts(
        {"input_tokens": 1_000},
        {"input_tokens": 20, "user_id": home.user_id(Role.ADMIN)},
        {"input_tokens": 300, "user_id": home.user_id(Role.VIEWER)},
    )
    window = {"from": PAST.isoformat(), "to": LATER.isoformat()}
    shy = await costs(home.admin, by=["USER"])
    assert [(key["value"], key["hidden"], group["inputTokens"]) for key, group in keyed(shy)] == [
        (home.user(Role.ADMIN), False, 20),
        (None, True, 1300),
    ]
    one = {"userIds": [home.user(Role.MEMBER)]}
    assert (await home.admin.refused(BREAKDOWN, **window, filter=one)).codes == ["FORBIDDEN"]
    await home.admin(POLICY, input={"individuals": "ADMINS"})
    by_name = await costs(home.admin, by=["USER"])
    assert [key["name"] for key, _ in keyed(by_name)] == ["Demo Admin", "Demo Member", "Demo Viewer"]
    await home.admin(POLICY, input={"ranking": "ALLOWED"})
    ranked = await costs(home.admin, by=["USER", "MODEL"])
    assert [key["name"] for key, _ in keyed(ranked)] == ["Demo Member", "Demo Viewer", "Demo Admin"]
    assert (await costs(home.admin, filter=one))["total"]["inputTokens"] == 1000
    mine = await costs(home.member, by=["USER"], filter=one)
    assert mine["total"]["inputTokens"] == 1000


async def test_groups_are_pages_and_the_others_are_the_rest(home: Household) -> None:
    await home.facts(*({"service": f"s{n:02}", "input_tokens": 1000 * (n + 1)} for n in range(7)))
    first = await costs(home.admin, by=["SERVICE"], first=3, top=3)
    assert first["groups"]["totalCount"] == 7
    assert [group["keys"][0]["value"] for group in first["groups"]["nodes"]] == ["s06", "s05", "s04"]
    shown = sum(Decimal(group["amounts"]["totalUsd"]) for group in first["groups"]["nodes"])
    rest = Decimal(first["others"]["amounts"]["totalUsd"])
    assert shown + rest == Decimal(first["total"]["amounts"]["totalUsd"])
    assert first["others"]["keys"] == []
    second = await costs(home.admin, by=["SERVICE"], first=10, after=first["groups"]["pageInfo"]["endCursor"])
    assert [group["keys"][0]["value"] for group in second["groups"]["nodes"]] == ["s03", "s02", "s01", "s00"]


async def test_others_than_admins_see_what_they_spent_themselves(process: Costing, home: Household) -> None:
    await home.facts(
        {"input_tokens": 100}, {"input_tokens": 1000, "user_id": home.user_id(Role.ADMIN), "model": "gpt-4o"}
    )
    mine = await costs(home.member, by=["USER"])
    assert [group["keys"][0]["value"] for group in mine["groups"]["nodes"]] == [home.user(Role.MEMBER)]
    assert mine["total"]["inputTokens"] == 100
    assert (await costs(home.admin))["total"]["inputTokens"] == 1100
    elsewhere = await process.house()
    assert (await costs(elsewhere.admin))["total"]["inputTokens"] == 0


async def test_where_usage_was_dropped_the_figures_say_since_when_they_are_complete(home: Household) -> None:
    query = """
    query ($from: DateTime!, $to: DateTime!) { costBreakdown(from: $from, to: $to) { completeSince } }
    """
    given = {"from": PAST.isoformat(), "to": LATER.isoformat()}
    assert (await home.admin(query, **given))["costBreakdown"]["completeSince"] is None
    dropped = PAST + timedelta(days=3)
    change = "UPDATE metric_retention SET dropped_before = $1 WHERE facts = 'usage' AND level = 'RAW'"
    await db.execute(change, dropped)
    assert (await home.admin(query, **given))["costBreakdown"]["completeSince"] == dropped.isoformat()
    await db.execute(change, PAST)
    assert (await home.admin(query, **given))["costBreakdown"]["completeSince"] is None


# -- price tables


async def test_a_published_table_never_changes_and_a_draft_prices_nothing(home: Household) -> None:
    await home.facts({"input_tokens": 1_000_000, "requests": 10})
    row = {"model": "claude-*", "input": "100", "output": "100"}
    draft = (await home.admin(CREATE, input={"rows": [row], "note": "dear"}))["createPriceTable"]["priceTable"]
    assert (draft["number"], draft["publishedAt"], draft["author"]["id"]) == (None, None, home.user(Role.ADMIN))
    assert Decimal((await costs(home.admin))["total"]["amounts"]["totalUsd"]) == 3
    refused = await home.admin.refused(
        BREAKDOWN, **{"from": PAST.isoformat(), "to": LATER.isoformat(), "table": draft["id"]}
    )
    assert refused.codes == ["ILLEGAL_TRANSITION"]
    assert (await home.member("query ($id: ID!) { node(id: $id) { id } }", id=draft["id"]))["node"] is None
    await home.admin(UPDATE, input={"priceTableId": draft["id"], "rows": [row | {"input": "50"}]})
    first = (await home.admin(PUBLISH, input={"priceTableId": draft["id"]}))["publishPriceTable"]["priceTable"]
    again = (await home.admin(PUBLISH, input={"priceTableId": draft["id"]}))["publishPriceTable"]["priceTable"]
    assert first == again
    assert Decimal((await costs(home.admin))["total"]["amounts"]["totalUsd"]) == 50
    refused = await home.admin.refused(UPDATE, input={"priceTableId": draft["id"], "note": "other"})
    assert refused.codes == ["ILLEGAL_TRANSITION"]
    await published(home.admin, {"model": "claude-*", "input": "1", "output": "1"})
    assert Decimal((await costs(home.admin, table=draft["id"]))["total"]["amounts"]["totalUsd"]) == 50
    shown = (await home.member("{ priceTables { nodes { number builtIn prices { nodes { model input } } } } }"))[
        "priceTables"
    ]["nodes"]
    assert [(table["number"], len(table["prices"]["nodes"])) for table in shown] == [(2, 1), (1, 1), (None, 0)]


async def test_of_two_who_publish_at_once_one_is_told_to_look_first(home: Household) -> None:
    drafts = [
        (await home.admin(CREATE, input={"rows": [], "note": note}))["createPriceTable"]["priceTable"]["id"]
        for note in ("one", "two")
    ]
    done = await asyncio.gather(*(home.admin.raw(PUBLISH, {"input": {"priceTableId": draft}}) for draft in drafts))
    bodies = [response.json() for response in done]
    refused = [body["errors"][0]["extensions"]["code"] for body in bodies if "errors" in body]
    assert refused == ["CONFLICT"]
    loser = drafts[0] if "errors" in bodies[0] else drafts[1]
    await home.admin(UPDATE, input={"priceTableId": loser, "note": "I have looked"})
    late = (await home.admin(PUBLISH, input={"priceTableId": loser}))["publishPriceTable"]["priceTable"]
    assert late["number"] == 2


async def test_bad_prices_are_refused_with_all_that_is_wrong(home: Household) -> None:
    fine = {"model": "a", "input": "1", "output": "1"}
    at = PAST.isoformat()
    refused = await home.admin.refused(
        CREATE,
        input={
            "rows": [
                fine | {"input": "-1"},
                fine | {"model": "b", "output": "1000001"},
                fine | {"model": "c", "cacheRead": "0.0000000001"},
                fine | {"model": ""},
                fine | {"model": "d", "effectiveFrom": at, "effectiveTo": at},
                fine | {"model": "e", "effectiveTo": LATER.isoformat()},
                fine | {"model": "E", "effectiveFrom": at},
                fine | {"model": "f", "tiers": [{"above": 5, "input": "1", "output": "1"}] * 2},
            ]
        },
    )
    assert refused.codes == ["BAD_INPUT"]
    assert {problem["field"] for problem in refused.extensions["fields"]} == {
        "rows[0].input",
        "rows[1].output",
        "rows[2].cacheRead",
        "rows[3].model",
        "rows[4].effectiveTo",
        "rows[6].effectiveFrom",
        "rows[7].tiers[1].above",
    }
    for bad in ("NaN", "Infinity", "1e99", "one", "", True, "1" * 200):
        assert (await home.admin.refused(CREATE, input={"rows": [fine | {"input": bad}]})).codes == ["BAD_INPUT"]
    assert (await home.admin.refused(CREATE, input={"rows": [fine] * 1001})).codes == ["BAD_INPUT"]


async def test_prices_are_for_admins_and_of_their_organisation(process: Costing, home: Household) -> None:
    assert (await home.member.refused(CREATE, input={"rows": []})).codes == ["FORBIDDEN"]
    table = await published(home.admin)
    other = await process.house()
    assert (await other.admin.refused(PUBLISH, input={"priceTableId": table["id"]})).codes == ["NOT_FOUND"]
    refused = await other.admin.refused(
        BREAKDOWN, **{"from": PAST.isoformat(), "to": LATER.isoformat(), "table": table["id"]}
    )
    assert refused.codes == ["NOT_FOUND"]
    records = await db.fetch(
        "SELECT action FROM audit_records WHERE organization_id = $1 AND action LIKE 'priceTable.%'",
        home.organization_id,
    )
    assert {record["action"] for record in records} >= {"priceTable.create", "priceTable.publish"}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"to": PAST.isoformat()}, "to"),
        ({"from": "1901-01-01T00:00:00Z"}, "to"),
        ({"by": ["MODEL", "USER", "TEAM", "TOOL"]}, "groupBy"),
        ({"by": ["MODEL", "MODEL"]}, "groupBy"),
        ({"filter": {"models": ["x"] * 1001}}, "filter.model"),
    ],
)
async def test_questions_that_make_no_sense_are_refused(home: Household, given: Json, field: str) -> None:
    refused = await home.admin.refused(BREAKDOWN, **({"from": PAST.isoformat(), "to": LATER.isoformat()} | given))
    assert refused.codes == ["BAD_INPUT"]
    assert [problem["field"] for problem in refused.extensions["fields"]] == [field]


async def test_sql_in_every_text_is_text(home: Household) -> None:
    nasty = "x'; DROP TABLE usage_facts; --"
    await home.facts({"model": nasty, "service": nasty, "input_tokens": 5})
    found = await costs(home.admin, by=["MODEL", "SERVICE"], filter={"models": [nasty], "services": [nasty]})
    assert [key["value"] for key in found["groups"]["nodes"][0]["keys"]] == [nasty, nasty]
    assert (await home.admin(RATES, model=nasty, provider=nasty))["modelRates"] == []
    assert (await home.admin.refused(RATES, model="x" * 201)).codes == ["BAD_INPUT"]


async def test_a_later_library_leaves_the_prices_of_today_as_they_are(
    home: Household, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home.facts({"input_tokens": 1_000_000})
    own = await published(home.admin, {"model": "other", "input": "1", "output": "1"})
    before = await costs(home.admin)
    monkeypatch.setattr(built_in, "NAME", "genai-prices 99.0")
    monkeypatch.setattr(built_in, "library_rates", lambda provider, model: ())
    after = await costs(home.admin, table=own["id"])
    assert after["total"]["amounts"] == before["total"]["amounts"]
    fresh = (await home.admin("{ priceTables { nodes { id builtIn } } }"))["priceTables"]["nodes"]
    newest = next(table["id"] for table in fresh if table["builtIn"] == "genai-prices 99.0")
    assert (await costs(home.admin, table=newest))["total"]["amounts"]["totalUsd"] is None
