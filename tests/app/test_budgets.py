"""Budgets, with real runs on a model API that answers by script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest

from core import clock, db
from core.ids import decode, encode
from core.permissions import Role
from services.costs.guard import watch
from services.costs.standing import standings_of_runs
from services.costs.windows import NOBODY
from tests.app.budgeting import (
    CREATE,
    HISTORY,
    LIST,
    REMOVE,
    START,
    STATUS,
    UPDATE,
    budget,
    kinds,
    model_session,
    started,
    status,
    told,
)
from tests.app.costing import MODEL, Costing, Household, costing
from tests.clients_of_graph import Json
from tests.databases import TestServer
from tests.talking import SEND, asks, create, decide, eventually, history, send, talk
from tests.templating import change_template, make_template, publish_untested

pytestmark = pytest.mark.anyio

BY_VERSION = """
{
  costBreakdown(from: "2026-01-01T00:00:00Z", to: "2035-01-01T00:00:00Z", groupBy: [TEMPLATE, TEMPLATE_VERSION]) {
    groups { nodes { keys { name } requests inputTokens outputTokens cacheReadTokens cacheWriteTokens } }
  }
}
"""


@pytest.fixture(scope="module")
async def process(
    postgres: TestServer, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Costing]:
    url = postgres.create_database(template=migrated)
    async with costing(url, Path(tmp_path_factory.mktemp("budgets"))) as found:
        yield found
    postgres.drop_database(url)


@pytest.fixture
async def home(process: Costing) -> Household:
    return await process.house()


# -- runs


async def test_spending_counts_when_a_run_has_ended_and_the_next_message_is_refused_at_once(home: Household) -> None:
    tiny = await budget(home.admin, limitUsd="0.0000001", name="Tiny")
    session = await model_session(home.member)
    await talk(home.member, session, "hello")
    cost = Decimal((await history(home.member, session))["usage"]["costUsd"])
    assert cost > 0
    found = await status(home.admin, tiny["id"])
    assert (Decimal(found["spentUsd"]), Decimal(found["remainingUsd"]), found["usedUp"]) == (cost, 0, True)
    refused = await home.member.refused(SEND, input={"sessionId": session, "text": "more"})
    assert refused.codes == ["LIMIT_EXCEEDED"]
    assert "“Tiny”" in refused.message
    assert "room again at" in refused.message
    assert (refused.extensions["budgetId"], "spentUsd" in refused.extensions) == (tiny["id"], False)
    frees = datetime.fromisoformat(refused.extensions["freesAt"])
    assert timedelta(hours=23, minutes=59) < frees - clock.now() <= timedelta(hours=24)
    assert found["freesAt"] == refused.extensions["freesAt"]
    by_admin = await model_session(home.admin)
    refused = await home.admin.refused(SEND, input={"sessionId": by_admin, "text": "more"})
    assert Decimal(refused.extensions["spentUsd"]) == cost
    assert (await history(home.admin, by_admin))["messageCount"] == 0
    await home.admin(UPDATE, input={"budgetId": tiny["id"], "limitUsd": "5"})
    await talk(home.member, session, "more")
    assert Decimal((await status(home.admin, tiny["id"]))["spentUsd"]) == 2 * cost


async def test_a_run_that_waits_is_refused_before_it_begins(home: Household) -> None:
    session = await model_session(home.member)
    found = await budget(home.admin, name="Late", limitUsd="1", warnAt=[])
    running = asyncio.create_task(talk(home.member, session, "SLOW 15"))
    await eventually(
        lambda: db.fetchval("SELECT 1 FROM runs WHERE session_id = $1 AND status = 'RUNNING'", decode("ses", session))
    )
    await send(home.member, session, "waits")
    await home.spent("2")
    await running

    async def refused() -> bool:
        return [run["status"] for run in (await history(home.member, session))["runs"]["nodes"]] == [
            "FINISHED",
            "FAILED",
        ]

    await eventually(refused)
    last = (await history(home.member, session))["runs"]["nodes"][-1]
    assert last["error"]["code"] == "BUDGET_EXCEEDED"
    assert "“Late”" in last["error"]["message"]
    assert "UTC" in last["error"]["message"]
    assert last["startedAt"] is None
    events = (await home.admin(HISTORY, id=found["id"]))["budgetHistory"]["nodes"]
    assert [event["kind"] for event in events] == ["REFUSED", "USED_UP", "CREATED"]
    assert (events[0]["runId"], Decimal(events[1]["threshold"])) == (last["id"], 1)
    record = await db.fetchrow(
        "SELECT outcome, error_message FROM audit_records WHERE organization_id = $1 AND action = 'run.start'",
        home.organization_id,
    )
    assert record["outcome"] == "REFUSED"
    assert "Late" in record["error_message"]


async def test_a_decision_after_the_budget_is_used_up_does_not_start_the_run_again(home: Household) -> None:
    client = home.member
    session = await model_session(client)
    await budget(home.admin, limitUsd="1")
    await talk(
        client,
        session,
        'TOOL shell {"command": "echo hi"}',
        until=asks,
    )
    await home.spent("2")
    [approval] = (await history(client, session))["pendingApprovals"]["nodes"]
    await decide(client, approval["id"], "APPROVE")

    async def failed() -> bool:
        return (await history(client, session))["runs"]["nodes"][-1]["status"] == "FAILED"

    await eventually(failed)
    assert (await history(client, session))["toolExecutions"]["nodes"][-1]["status"] == "INTERRUPTED"


async def test_scripts_cost_nothing_and_use_no_budget(home: Household) -> None:
    found = await budget(home.admin, limitTokens=1)
    session = (await create(home.member))["id"]
    await talk(home.member, session, "/tool list_files {}")
    assert (await home.admin(LIST))["budgets"]["nodes"][0]["status"]["spentTokens"] == 0
    assert not (await status(home.admin, found["id"]))["usedUp"]


async def test_what_the_runtime_cannot_price_is_priced_by_the_organisations_table(home: Household) -> None:
    found = await budget(home.admin, limitUsd="100")
    session = (await create(home.member, runtime="pydantic_ai", model="openai:house-made-7b"))["id"]
    await talk(home.member, session, "one")
    assert (await history(home.member, session))["usage"]["costUsd"] is None
    shown = (await home.admin(LIST))["budgets"]["nodes"][0]["status"]
    assert (Decimal(shown["spentUsd"]), shown["unpriced"]) == (0, 1)
    rows = [{"model": "house-made-*", "input": "1", "output": "10", "cacheRead": "0.5"}]
    made = await home.admin(
        "mutation ($input: CreatePriceTableInput!) { createPriceTable(input: $input) { priceTable { id } } }",
        input={"rows": rows},
    )
    await home.admin(
        "mutation ($input: PublishPriceTableInput!) { publishPriceTable(input: $input) { priceTable { id } } }",
        input={"priceTableId": made["createPriceTable"]["priceTable"]["id"]},
    )
    await talk(home.member, session, "two")
    # 50 fresh at 1, 50 cached at 0.5, 20 out at 10 dollars per million tokens.
    assert Decimal((await status(home.admin, found["id"]))["spentUsd"]) == Decimal("0.000275")


# -- windows


async def test_a_rolling_window_is_exact_to_the_moment(home: Household) -> None:
    now = datetime.now(UTC)
    hours = await budget(home.admin, window="HOURS", windowLength=3, limitUsd="10", name="Hours")
    await home.spent("4", at=now - timedelta(hours=3) + timedelta(seconds=20))
    await home.spent("5", at=now - timedelta(hours=3, seconds=1))
    await home.spent("1.5", at=now - timedelta(hours=1))
    await home.spent("2.25", at=now - timedelta(minutes=1))
    found = await status(home.admin, hours["id"])
    assert (Decimal(found["spentUsd"]), Decimal(found["remainingUsd"])) == (Decimal("7.75"), Decimal("2.25"))
    await home.spent("3", at=now)
    found = await status(home.admin, hours["id"])
    assert (Decimal(found["spentUsd"]), found["usedUp"]) == (Decimal("10.75"), True)
    # The four dollars leave the window first, and bring it below its limit.
    assert abs(datetime.fromisoformat(found["freesAt"]) - (now + timedelta(seconds=20))) < timedelta(milliseconds=1)


async def test_a_month_begins_at_midnight_of_its_time_zone(home: Household) -> None:
    found = await budget(home.admin, window="MONTH", timezone="Asia/Kathmandu", limitUsd="5")
    start = datetime.fromisoformat(found["status"]["windowStart"])
    assert (start + timedelta(hours=5, minutes=45)).strftime("%d %H:%M") == "01 00:00"
    end = datetime.fromisoformat(found["status"]["windowEnd"])
    assert (end + timedelta(hours=5, minutes=45)).strftime("%d %H:%M") == "01 00:00"
    assert end > clock.now()
    await home.spent("7", at=start - timedelta(microseconds=1))
    await home.spent("1", at=start)
    assert Decimal((await status(home.admin, found["id"]))["spentUsd"]) == 1
    await home.spent("4", at=start + timedelta(minutes=1))
    used = await status(home.admin, found["id"])
    assert (used["usedUp"], used["freesAt"]) == (True, found["status"]["windowEnd"])


# -- whose


async def test_each_user_has_the_whole_limit_for_themselves(home: Household) -> None:
    each = await budget(home.admin, subject="EACH_USER", limitUsd="3", name="Each")
    await home.spent("2.5")
    await home.spent("3", role=Role.ADMIN)
    assert Decimal((await status(home.member, each["id"]))["spentUsd"]) == Decimal("2.5")
    mine = await status(home.admin, each["id"])
    assert (mine["usedUp"], mine["user"]["id"]) == (True, home.user(Role.ADMIN))
    of_member = await status(home.admin, each["id"], home.user(Role.MEMBER))
    assert (of_member["usedUp"], of_member["user"]["id"]) == (False, home.user(Role.MEMBER))
    refused = await home.member.refused(STATUS, id=each["id"], user=home.user(Role.ADMIN))
    assert refused.codes == ["FORBIDDEN"]
    script = (await create(home.member))["id"]
    await talk(home.member, script, "/tool list_files {}")
    by_admin = (await create(home.admin))["id"]
    refused = await home.admin.refused(SEND, input={"sessionId": by_admin, "text": "hello"})
    assert refused.codes == ["LIMIT_EXCEEDED"]
    assert refused.message.startswith("Your budget “Each”")


async def test_team_user_and_template_budgets_count_what_is_theirs(home: Household) -> None:
    team = await db.fetchval(
        "INSERT INTO teams (id, organization_id, name, slug, created_at) "
        "VALUES (gen_random_uuid(), $1, 'Red', 'red', now()) "
        "RETURNING id",
        home.organization_id,
    )
    await db.execute(
        "INSERT INTO team_members (id, team_id, user_id, created_at) VALUES (gen_random_uuid(), $1, $2, now())",
        team,
        home.user_id(Role.MEMBER),
    )
    of_team = await budget(home.admin, subject="TEAM", teamId=encode("team", team), limitUsd="2", name="Team")
    of_user = await budget(home.admin, subject="USER", userId=home.user(Role.OWNER), limitUsd="2", name="Owner")
    await home.spent("1")
    await home.spent("5", role=Role.OWNER)
    assert Decimal((await status(home.admin, of_team["id"]))["spentUsd"]) == 1
    assert Decimal((await status(home.admin, of_user["id"]))["spentUsd"]) == 5
    session = (await create(home.member))["id"]
    await talk(home.member, session, "/tool list_files {}")
    await home.spent("1")
    refused = await home.member.refused(SEND, input={"sessionId": session, "text": "x"})
    assert refused.message.startswith("Your team's budget “Team”")
    assert [each["name"] for each in (await home.member(LIST))["budgets"]["nodes"]] == []
    assert [each["name"] for each in (await home.clients[Role.OWNER](LIST))["budgets"]["nodes"]] == ["Owner", "Team"]


async def test_a_template_s_budget_is_for_all_its_versions_and_says_when_there_is_room_again(home: Household) -> None:
    spec = {"runtime": "pydantic_ai", "model": MODEL}
    template = (await make_template(home.admin, spec=spec, organizationLevel="USE"))["id"]
    await publish_untested(home.admin, template)
    # A run has 180 tokens.
    found = await budget(home.admin, subject="TEMPLATE", templateId=template, limitTokens=300, name="Reviews")
    assert found["template"]["id"] == template
    first = await started(home.member, template)
    await talk(home.member, first, "hello")
    assert (await status(home.admin, found["id"]))["usedUp"] is False
    await change_template(home.admin, template, spec=spec | {"systemPrompt": "Be short."})
    await publish_untested(home.admin, template)
    second = await started(home.admin, template)
    await talk(home.admin, second, "hello")
    [shown] = [each for each in (await home.admin(LIST))["budgets"]["nodes"] if each["id"] == found["id"]]
    assert (shown["status"]["spentTokens"], shown["status"]["usedUp"]) == (360, True)
    # Once the first run is a day old there is room, to the microsecond.
    ended = await db.fetchval(
        "SELECT at FROM spend_entries JOIN runs ON runs.id = usage_id WHERE runs.session_id = $1", decode("ses", first)
    )
    free = ended + timedelta(days=1, microseconds=1)
    for client, session in ((home.member, first), (home.admin, second)):
        refused = await client.refused(SEND, input={"sessionId": session, "text": "more"})
        assert (refused.codes, refused.extensions["budgetId"]) == (["LIMIT_EXCEEDED"], found["id"])
        assert refused.message.startswith("The template's budget “Reviews”")
        assert datetime.fromisoformat(refused.extensions["freesAt"]) == free
    refused = await home.member.refused(START, input={"templateId": template, "message": "hello"})
    assert refused.codes == ["LIMIT_EXCEEDED"]
    [standing] = await standings_of_runs(
        db.fetch, home.organization_id, [home.user_id(Role.MEMBER)], decode("tpl", template), free
    )
    assert (standing.spent_tokens, standing.used_up) == (180, False)
    await talk(home.member, await model_session(home.member), "what has no template is not its business")

    async def counted() -> Json | None:
        spent = (await home.admin(BY_VERSION))["costBreakdown"]["groups"]["nodes"]
        return spent if sum(group["requests"] for group in spent) == 3 else None

    by_version = {
        tuple(key["name"] for key in group["keys"]): sum(
            group[f"{kind}Tokens"] for kind in ("input", "output", "cacheRead", "cacheWrite")
        )
        for group in await eventually(counted)
    }
    assert by_version == {("Review", "v1"): 180, ("Review", "v2"): 180, (None, None): 180}


# -- warnings


async def test_a_threshold_is_told_of_once_whoever_comes_first(home: Household) -> None:
    found = await budget(home.admin, limitUsd="10", warnAt=["0.8", "0.5"], name="Month", action="WARN")
    assert found["warnAt"] == ["0.5", "0.8"]
    await home.spent("4.9")
    args = (home.organization_id, [home.user_id(Role.MEMBER)], None)
    await watch(*args)
    assert await told(home.admin) == []
    await home.spent("0.1")
    await asyncio.gather(*(watch(*args) for _ in range(6)))
    [one] = await told(home.admin)
    assert one["title"] == "The budget “Month” is at 50% of its limit"
    assert "$5 of $10" in one["body"]
    assert (one["session"], one["subject"]) == (None, {"id": found["id"]})
    assert await told(home.member) == []
    await home.spent("6")
    await asyncio.gather(*(watch(*args) for _ in range(6)))
    titles = [each["title"] for each in await told(home.admin)]
    assert titles == ["The budget “Month” is used up", "The budget “Month” is at 50% of its limit"]
    assert await kinds(home.admin, found["id"]) == ["USED_UP", "WARNED", "WARNED", "CREATED"]
    session = (await create(home.member))["id"]
    await talk(home.member, session, "/tool list_files {}")


async def test_in_the_next_window_a_threshold_is_told_of_again(home: Household) -> None:
    found = await budget(home.admin, window="HOURS", windowLength=2, limitUsd="10", warnAt=["0.5"], name="Two hours")
    await home.spent("6")
    args = (home.organization_id, [home.user_id(Role.MEMBER)], None)
    await watch(*args)
    await db.execute(
        "UPDATE budget_alerts SET told_at = told_at - interval '119 minutes' WHERE budget_id = $1",
        decode("bud", found["id"]),
    )
    await watch(*args)
    assert len(await told(home.admin)) == 1
    await db.execute(
        "UPDATE budget_alerts SET told_at = told_at - interval '2 minutes' WHERE budget_id = $1",
        decode("bud", found["id"]),
    )
    await watch(*args)
    assert len(await told(home.admin)) == 2


async def test_a_run_that_passes_a_threshold_tells_the_admins_and_whose_budget_it_is(home: Household) -> None:
    await budget(home.admin, subject="EACH_USER", limitTokens=200, warnAt=["0.5"], name="Tokens")
    session = await model_session(home.member)
    await talk(home.member, session, "hello")

    async def warned() -> list[Json]:
        return await told(home.member)

    [one] = await eventually(warned)
    assert one["title"] == "The budget “Tokens” of Demo Member is at 50% of its limit"
    assert "of 200 tokens" in one["body"]
    assert len(await told(home.admin)) == 1


# -- making them


async def test_bad_budgets_are_refused_with_all_that_is_wrong(home: Household) -> None:
    refused = await home.admin.refused(
        CREATE,
        input={
            "name": " ",
            "subject": "TEAM",
            "userId": home.user(Role.MEMBER),
            "window": "HOURS",
            "windowLength": 0,
            "timezone": "Mars/Olympus",
            "limitUsd": "-1",
            "limitTokens": 0,
            "warnAt": ["0.5", "0.50"],
            "action": "WARN",
        },
    )
    assert refused.codes == ["BAD_INPUT"]
    assert sorted(problem["field"] for problem in refused.extensions["fields"]) == [
        "limitTokens",
        "limitUsd",
        "name",
        "teamId",
        "timezone",
        "userId",
        "warnAt",
        "windowLength",
    ]
    for bad in (
        {"window": "DAYS", "windowLength": 36_525},
        {"window": "MONTH", "windowLength": 2},
        {"timezone": "Europe/Berlin"},
        {"limitUsd": "1e12"},
        {"warnAt": ["1.5"]},
        {"warnAt": ["0"]},
        {"limitUsd": None},
    ):
        given = {"name": "x", "subject": "ORGANIZATION", "window": "DAYS", "action": "WARN", "limitUsd": "1"} | bad
        assert (await home.admin.refused(CREATE, input=given)).codes == ["BAD_INPUT"], bad


async def test_budgets_are_made_by_admins_and_of_what_is_theirs(process: Costing, home: Household) -> None:
    given = {"name": "x", "subject": "ORGANIZATION", "window": "DAYS", "action": "WARN", "limitUsd": "1"}
    assert (await home.member.refused(CREATE, input=given)).codes == ["FORBIDDEN"]
    other = await process.house()
    stranger = {"subject": "USER", "userId": other.user(Role.MEMBER)}
    assert (await home.admin.refused(CREATE, input=given | stranger)).codes == ["NOT_FOUND"]
    for kind, name, prefix in (("TEAM", "teamId", "team"), ("TEMPLATE", "templateId", "tpl")):
        missing = {"subject": kind, name: encode(prefix, uuid4())}
        assert (await home.admin.refused(CREATE, input=given | missing)).codes == ["NOT_FOUND"]
    made = await budget(home.admin)
    for document, more in ((UPDATE, {"name": "y"}), (REMOVE, {})):
        refused = await other.admin.refused(document, input={"budgetId": made["id"]} | more)
        assert refused.codes == ["NOT_FOUND"]
    assert (await other.admin(STATUS, id=made["id"]))["node"] is None
    assert (await other.admin(HISTORY, id=made["id"]))["budgetHistory"]["nodes"] == []


async def test_the_same_key_makes_one_budget_and_a_removed_one_refuses_nothing(home: Household) -> None:
    await home.spent("5")
    first = await budget(home.admin, idempotencyKey="once")
    assert (await budget(home.admin, idempotencyKey="once"))["id"] == first["id"]
    assert (await home.admin(LIST))["budgets"]["totalCount"] == 1
    session = (await create(home.member))["id"]
    assert (await home.member.refused(SEND, input={"sessionId": session, "text": "x"})).codes == ["LIMIT_EXCEEDED"]
    await home.admin(REMOVE, input={"budgetId": first["id"]})
    await talk(home.member, session, "/tool list_files {}")
    assert (await home.admin(LIST))["budgets"]["nodes"] == []
    [removed, created] = (await home.admin(HISTORY, id=first["id"]))["budgetHistory"]["nodes"]
    assert (removed["kind"], removed["budget"], created["kind"]) == ("REMOVED", None, "CREATED")
    assert created["user"]["id"] == home.user(Role.ADMIN)


async def test_the_check_before_a_run_is_two_statements_however_many_budgets_there_are(home: Household) -> None:
    for number in range(5):
        await budget(home.admin, name=f"b{number}", window="MONTH" if number % 2 else "HOURS")
    seen: list[str] = []
    token = db.queries_seen.set(seen)
    try:
        found = await standings_of_runs(
            db.fetch, home.organization_id, [home.user_id(Role.MEMBER)], NOBODY, clock.now()
        )
    finally:
        db.queries_seen.reset(token)
    assert (len(found), len(seen)) == (5, 2)
