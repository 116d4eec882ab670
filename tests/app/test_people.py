"""What is told of people: one's own to oneself, of others no more than the organisation's policy lets, and of few
nothing, however it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from app.wiring import Program
from core import db
from core.ids import encode, new_id
from core.permissions import Role
from models.identity import UserRow
from services.sessions.lifecycle import NewSession, create_session
from tests.clients_of_graph import Client, Json, Refused
from tests.measuring import ROWS, Place, a_place, at, by_label, series, values
from tests.services.identity_help import audited

pytestmark = pytest.mark.anyio

RANGE: Json = {"start": "2026-03-02T00:00:00Z", "end": "2026-03-09T00:00:00Z"}
FIGURES = """
  sessions runs finishedRuns failedRuns successRate activeDays toolCalls failedToolCalls tokens costUsd
  approvalsDecided approvalsGranted
"""
USERS = """query ($from: DateTime, $to: DateTime, $order: ActivityOrder! = NAME, $first: Int, $after: String) {
  userActivity(from: $from, to: $to, orderBy: $order) {
    from to floor others { %(f)s }
    users(first: $first, after: $after) {
      totalCount pageInfo { hasNextPage endCursor } nodes { name user { id } figures { %(f)s } }
    }
  }
}""" % {"f": FIGURES}
TEAMS = (
    """query ($from: DateTime, $to: DateTime, $order: ActivityOrder! = NAME) {
  teamActivity(from: $from, to: $to, orderBy: $order) {
    floor omittedTeams teams(first: 100) { nodes { name people team { id } figures { %s } } }
  }
}"""
    % FIGURES
)
POLICY = """
mutation ($input: UpdateAnalyticsPolicyInput!) {
  updateAnalyticsPolicy(input: $input) { organization { analyticsPolicy { floor individuals ranking } } }
}
"""
CONSENT = """
mutation ($named: Boolean!) { updateMyAnalyticsConsent(input: {named: $named}) { named } }
"""


@pytest.fixture
async def place(database: Program) -> AsyncIterator[Place]:
    async with a_place(database) as found:
        yield found


async def work(place: Place, users: list[UserRow], *, calls: int = 1, day: int = 3) -> None:
    """Calls of tools and a run of each on a day of the week of RANGE."""
    when = at(f"2026-03-{day:02}T10:00:00")
    await place.put(
        "tool", *({"at": when + timedelta(minutes=n), "user_id": user["id"]} for user in users for n in range(calls))
    )
    await place.put("run", *({"at": when, "user_id": user["id"]} for user in users))


async def allow(admin: Client, **input: Any) -> Json:
    return (await admin(POLICY, input=input))["updateAnalyticsPolicy"]["organization"]["analyticsPolicy"]  # type: ignore[no-any-return]


async def users_of(client: Client, **asked: Any) -> Json:
    given = {"from": RANGE["start"], "to": RANGE["end"]} | asked
    return (await client(USERS, **given))["userActivity"]  # type: ignore[no-any-return]


async def teams_of(client: Client, **asked: Any) -> Json:
    given = {"from": RANGE["start"], "to": RANGE["end"]} | asked
    found: Json = (await client(TEAMS, **given))["teamActivity"]
    return found | {"by_name": {team["name"]: team for team in found["teams"]["nodes"]}}


async def refused(client: Client, metric: str = "tools.calls", **asked: Any) -> Json:
    with pytest.raises(Refused) as refusal:
        await series(client, metric, **RANGE | asked)
    return refusal.value.extensions | {"message": refusal.value.message}


def id_of(user: UserRow) -> str:
    return encode("usr", user["id"])


async def test_by_default_everybody_sees_their_own_figures_and_admins_no_ones(place: Place) -> None:
    people = await place.people(6)
    await work(place, people, calls=2)
    await work(place, [place.house.users[Role.ADMIN]], calls=3)
    admin, first = await place.client(Role.ADMIN), await place.client_of(people[0])
    own = by_label(await series(first, "tools.calls", **RANGE, group_by=["user"]))
    assert {label: group["total"] for label, group in own.items()} == {id_of(people[0]): 2}
    seen = await series(admin, "tools.calls", **RANGE, group_by=["user"], bucket="WEEK")
    assert {label: group["total"] for label, group in by_label(seen, "name").items()} == {"Demo Admin": 3}
    assert seen["rest"]["total"] == 12  # counted among others, never named
    assert seen["rest"]["points"][0]["rows"] is None
    for client in (admin, first):
        assert (await refused(client, filter={"user": [id_of(people[1])]}))["code"] == "FORBIDDEN"
        assert (await refused(client, group_by=["user"], filter={"user": [id_of(people[1])]}))["code"] == "FORBIDDEN"
    with pytest.raises(Refused) as not_listed:
        filter_ = [{"dimension": "user", "values": [id_of(people[1])]}]
        await admin(ROWS, fact="tool", **{"from": RANGE["start"], "to": RANGE["end"]}, filter=filter_)
    assert not_listed.value.codes == ["FORBIDDEN"]
    report = await users_of(admin)
    assert [user["name"] for user in report["users"]["nodes"]] == ["Demo Admin"]
    assert report["others"]["toolCalls"] == 12
    report = await users_of(first)
    assert [(user["name"], user["figures"]["toolCalls"]) for user in report["users"]["nodes"]] == [("Person 00", 2)]
    assert report["others"] is None


async def test_others_who_are_too_few_are_not_shown_together_either(place: Place) -> None:
    people = await place.people(4)
    await work(place, people)
    admin = await place.client(Role.ADMIN)
    seen = await series(admin, "tools.calls", **RANGE, group_by=["user"])
    assert seen["groups"] == []
    assert {point["value"] for point in seen["rest"]["points"]} <= {None, 0}
    assert not seen["rest"]["total"]
    assert (await users_of(admin))["others"] is None


async def test_admins_see_people_where_the_policy_says_so_except_those_who_opted_out(place: Place) -> None:
    people = await place.people(12)
    for number, user in enumerate(people):
        await work(place, [user], calls=number + 1)
    admin, shy = await place.client(Role.ADMIN), await place.client_of(people[11])
    assert await allow(admin, individuals="ADMINS") == {"floor": 5, "individuals": "ADMINS", "ranking": "FORBIDDEN"}
    seen = by_label(await series(admin, "tools.calls", **RANGE, group_by=["user"], bucket="WEEK", top=None), "name")
    # By name, not by how much; ten groups, and the rest.
    assert list(seen) == [f"Person {number:02}" for number in range(10)]
    assert seen["Person 03"]["total"] == 4
    assert (await shy(CONSENT, named=False))["updateMyAnalyticsConsent"]["named"] is False
    assert (await shy("{ viewer { namedInAnalytics } }"))["viewer"]["namedInAnalytics"] is False
    answer = await series(admin, "tools.calls", **RANGE, group_by=["user"], bucket="WEEK")
    named = by_label(answer, "name")
    assert "Person 11" not in named
    # With them others are hidden, or they would be what is left of the whole.
    assert len(named) == 12 - 5
    assert answer["rest"]["total"] == 78 - sum(group["total"] for group in named.values())
    hidden = [user for user in people if user["name"] not in named]
    for user in hidden:
        assert (await refused(admin, filter={"user": [id_of(user)]}))["code"] == "FORBIDDEN"
    # The same are hidden however it is asked: what is left never comes to fewer.
    for asked in ({"bucket": "DAY"}, {"bucket": "HOUR"}, {"start": "2026-03-03T00:00:00Z", "bucket": "DAY"}):
        again = by_label(await series(admin, "tools.calls", **RANGE | asked, group_by=["user"]), "name")
        assert set(again) <= set(named)
    report = await users_of(admin, first=100)
    listed = {user["name"]: user["figures"]["toolCalls"] for user in report["users"]["nodes"]}
    assert {name for name in listed if name.startswith("Person")} == set(named)
    assert list(listed) == sorted(listed)
    # What two answers leave of each other is nobody's: by another dimension nobody else is named at all.
    for more in ({"filter": {"tool": ["read"]}}, {"group_by": ["user", "tool"]}):
        answer = {"group_by": ["user"]} | more
        assert (await refused(admin, **answer))["code"] == "FORBIDDEN"
    shown = {"user": [id_of(next(user for user in people if user["name"] in named))], "tool": ["read"]}
    assert "opted out" in (await refused(admin, filter=shown))["message"]
    own = {"user": [id_of(place.house.users[Role.ADMIN])], "tool": ["read"]}
    assert (await series(admin, "tools.calls", **RANGE, filter=own))["groups"][0]["total"] == 0
    # To themself they are named as before, and when they have it so, to admins again.
    assert [user["name"] for user in (await users_of(shy))["users"]["nodes"]] == ["Person 11"]
    await shy(CONSENT, named=True)
    assert (await series(admin, "tools.calls", **RANGE, filter={"user": [id_of(people[11])]}))["groups"][0][
        "total"
    ] == 12
    assert [record["after"] for record in await audited("analytics_consent.update")] == [
        {"named": False},
        {"named": True},
    ]


async def test_a_team_of_too_few_is_not_shown_nor_one_that_would_give_it_away(place: Place) -> None:
    large = await place.people(7, team="Large", name="Large")
    small = await place.people(3, team="Small", name="Small")
    loose = await place.people(6, name="Loose")
    member = place.house.users[Role.MEMBER]["id"]
    await work(place, [*large, *small, *loose], calls=2)
    admin = await place.client(Role.ADMIN)
    answer = await series(admin, "tools.calls", **RANGE, group_by=["team"], bucket="WEEK")
    assert {name: group["total"] for name, group in by_label(answer, "name").items()} == {"Large": 14}
    assert (answer["omittedGroups"], answer["rest"]) == (1, None)
    ids = {row["name"]: encode("team", row["id"]) for row in await db.fetch("SELECT id, name FROM teams")}
    assert (await series(admin, "tools.calls", **RANGE, filter={"team": [ids["Large"]]}))["groups"][0]["total"] == 14
    assert (await refused(admin, filter={"team": [ids["Small"]]}))["code"] == "FORBIDDEN"
    assert (await refused(admin, filter={"team": list(ids.values())}))["field"] == "filter"
    assert (await refused(admin, group_by=["team", "user"]))["field"] == "groupBy"
    report = await teams_of(admin)
    assert set(report["by_name"]) == {"Large"}
    assert report["omittedTeams"] == 1
    assert report["by_name"]["Large"]["figures"]["toolCalls"] == 14
    # Without those who are in no team, Large would leave Small of the whole: it is not shown either.
    await db.execute("DELETE FROM tool_facts WHERE user_id = ANY($1)", [user["id"] for user in loose])
    await db.execute("DELETE FROM tool_pending WHERE user_id = ANY($1)", [user["id"] for user in loose])
    answer = await series(admin, "tools.calls", **RANGE, group_by=["team"], bucket="WEEK")
    assert (answer["groups"], answer["omittedGroups"]) == ([], 2)
    assert (await teams_of(admin))["by_name"]["Large"]["figures"]["toolCalls"] is None
    # Members see no more than admins do.
    viewer = await place.client(Role.VIEWER)
    assert (await teams_of(viewer))["by_name"].keys() <= {"Large"}
    # A second team of all but one of the first: that one is not to be computed.
    await work(place, loose, calls=2)
    await place.team("Nearly", [*(user["id"] for user in large[1:]), member])
    shown = by_label(await series(admin, "tools.calls", **RANGE, group_by=["team"], bucket="WEEK"), "name")
    assert len(shown) == 1


async def test_a_team_is_not_shown_by_days_on_which_few_of_it_worked(place: Place) -> None:
    team = await place.people(6, team="Team")
    loose = await place.people(6, name="Loose")
    await work(place, [*team, *loose], day=3)
    await work(place, [team[0], *loose], day=4)
    admin = await place.client(Role.ADMIN)
    by_week = by_label(await series(admin, "tools.calls", **RANGE, group_by=["team"], bucket="WEEK"), "name")
    assert by_week["Team"]["total"] == 7
    answer = await series(admin, "tools.calls", **RANGE, group_by=["team"], bucket="DAY")
    assert (answer["groups"], answer["omittedGroups"]) == ([], 1)
    only = {"start": "2026-03-04T00:00:00Z", "end": "2026-03-05T00:00:00Z"}
    assert (await series(admin, "tools.calls", **RANGE | only, group_by=["team"], bucket="DAY"))["groups"] == []
    answer = await series(
        admin, "tools.calls", **RANGE | {"end": "2026-03-04T00:00:00Z"}, group_by=["team"], bucket="DAY"
    )
    assert values(by_label(answer, "name")["Team"]) == [0, 6]
    # Single rows are single people's.
    [point] = by_week["Team"]["points"]
    with pytest.raises(Refused) as rows:
        await admin(ROWS, **point["rows"])
    assert rows.value.codes == ["FORBIDDEN"]


async def test_figures_of_people_and_teams_are_those_of_their_facts(place: Place) -> None:
    team = await place.people(5, team="Team")
    await place.people(2, name="Loose")  # with the house but for who asks they are enough not to be given away
    ids: list[UUID] = [user["id"] for user in team]
    when = at("2026-03-03T10:00:00")
    for day in range(3):
        await place.put("run", *({"at": when + timedelta(days=day), "user_id": id_} for id_ in ids[day:]))
    await place.put("run", {"at": when, "user_id": ids[0], "outcome": "FAILED"})
    await place.put(
        "tool", *({"at": when, "user_id": id_, "outcome": "FAILED"} for id_ in ids), {"at": when, "user_id": ids[0]}
    )
    await place.put("usage", *({"at": when, "user_id": id_, "input_tokens": 10, "cost_usd": 0.25} for id_ in ids))
    await place.put("session", *({"at": when, "user_id": id_} for id_ in ids))
    session = (await create_session(place.house.actor(Role.ADMIN), NewSession()))["id"]
    run = new_id()
    await db.execute(
        "INSERT INTO runs (id, organization_id, session_id, number, status, segment, started_by_id, queued_at, "
        "request_count) VALUES ($1, $2, $3, 1, 'FINISHED', 1, $4, now(), 0)",
        run, place.house.organization_id, session, ids[0],
    )  # fmt: skip
    for number, id_ in enumerate(ids):
        tool = new_id()
        await db.execute(
            "INSERT INTO tool_executions (id, organization_id, session_id, run_id, seq, call_id, tool, arguments, "
            "status, truncated, created_at) VALUES ($1, $2, $3, $4, $5, $6, 'x', '{}', 'SUCCEEDED', false, now())",
            tool, place.house.organization_id, session, run, number, str(number),
        )  # fmt: skip
        await db.execute(
            "INSERT INTO approvals (id, organization_id, session_id, run_id, tool_execution_id, seq, status, "
            "decided_by_id, decided_at, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $9)",
            new_id(), place.house.organization_id, session, run, tool, number,
            "APPROVED" if number else "DENIED", id_, when,
        )  # fmt: skip
    await allow(await place.client(Role.ADMIN), individuals="ADMINS")
    own = (await users_of(await place.client_of(team[0])))["users"]["nodes"][0]["figures"]
    assert own == {
        "sessions": 1, "runs": 2, "finishedRuns": 1, "failedRuns": 1, "successRate": 0.5, "activeDays": 1,
        "toolCalls": 2, "failedToolCalls": 1, "tokens": 10, "costUsd": 0.25, "approvalsDecided": 1,
        "approvalsGranted": 0,
    }  # fmt: skip
    report = await teams_of(await place.client(Role.VIEWER))
    figures = report["by_name"]["Team"]["figures"]
    assert report["by_name"]["Team"]["people"] == 5
    assert figures == {
        "sessions": 5, "runs": 13, "finishedRuns": 12, "failedRuns": 1, "successRate": pytest.approx(12 / 13),
        "activeDays": 3, "toolCalls": 6, "failedToolCalls": 5, "tokens": 50, "costUsd": 1.25, "approvalsDecided": 5,
        "approvalsGranted": 4,
    }  # fmt: skip


async def test_nobody_is_ranked_unless_the_policy_says_so(place: Place) -> None:
    people = await place.people(6)
    for number, user in enumerate(people):
        await work(place, [user], calls=number + 1)
    admin = await place.client(Role.ADMIN)
    await allow(admin, individuals="ADMINS")
    for document in (USERS, TEAMS):
        asked = {"from": RANGE["start"], "to": RANGE["end"], "order": "TOOL_CALLS"}
        forbidden = await admin.refused(document, **asked)
        assert (forbidden.codes, forbidden.extensions["field"]) == (["FORBIDDEN"], "orderBy")
    assert (await refused(admin, group_by=["user"], top=3))["field"] == "top"
    await allow(admin, ranking="ALLOWED")
    ranked = [user["name"] for user in (await users_of(admin, order="TOOL_CALLS"))["users"]["nodes"]]
    assert ranked[:3] == ["Person 05", "Person 04", "Person 03"]
    top = await series(admin, "tools.calls", **RANGE, group_by=["user"], top=2)
    assert list(by_label(top, "name")) == ["Person 05", "Person 04"]
    assert top["rest"]["total"] == 1 + 2 + 3 + 4


async def test_the_list_of_people_has_pages(place: Place) -> None:
    await place.people(7)
    admin = await place.client(Role.ADMIN)
    await allow(admin, individuals="ADMINS")
    names: list[str] = []
    after = None
    while True:
        page = (await users_of(admin, first=4, after=after))["users"]
        names += [user["name"] for user in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert len(names) == page["totalCount"] == 11
    assert names == sorted(names)


async def test_the_policy_is_for_admins_is_checked_and_is_audited(place: Place) -> None:
    admin, member = await place.client(Role.ADMIN), await place.client(Role.MEMBER)
    assert (await member.refused(POLICY, input={"floor": 3})).codes == ["FORBIDDEN"]
    for floor in (1, 0, -5, 101):
        assert (await admin.refused(POLICY, input={"floor": floor})).extensions["field"] == "floor"
    assert (await allow(admin, floor=3))["floor"] == 3
    assert (await allow(admin, ranking="ALLOWED"))["floor"] == 3
    told = (await member("{ viewer { organization { analyticsPolicy { floor ranking } } } }"))["viewer"]
    assert told["organization"]["analyticsPolicy"] == {"floor": 3, "ranking": "ALLOWED"}
    records = [r for r in await audited("analytics_policy.update") if r["outcome"] == "SUCCEEDED"]
    assert [record["after"]["floor"] for record in records] == [3, 3]
    team = await place.people(3, team="Three")
    await work(place, [*team, *await place.people(3, name="Loose")])
    answer = await series(admin, "tools.calls", **RANGE, group_by=["team"], bucket="WEEK")
    assert by_label(answer, "name")["Three"]["total"] == 3


@pytest.mark.parametrize("at_once", [50_000, 1])
async def test_who_worked_alone_on_a_day_is_in_no_difference_of_days(
    place: Place, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("services.metrics.contributors.CELLS_AT_ONCE", at_once)
    people = await place.people(14)
    await work(place, people)
    await work(place, people[:7], day=4)
    admin, shy = await place.client(Role.ADMIN), await place.client_of(people[0])
    await allow(admin, individuals="ADMINS")
    await shy(CONSENT, named=False)

    async def named(start: int, end: int) -> set[str]:
        days = {"start": f"2026-03-{start:02}T00:00:00Z", "end": f"2026-03-{end:02}T00:00:00Z", "bucket": "WEEK"}
        return set(by_label(await series(admin, "tools.calls", **days, group_by=["user"], top=None), "name"))

    fourth, both = await named(4, 5), await named(3, 5)
    workers = {user["name"] for user in people[:7]}
    # Of the fourth at least five people's figures are one sum: who is hidden on it is so in whatever has it in it.
    assert len(workers - fourth) >= 5
    assert not both & (workers - fourth)


async def test_years_of_many_people_are_not_looked_through_for_who_hides_whom(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = await place.people(6)
    admin, shy = await place.client(Role.ADMIN), await place.client_of(people[0])
    await allow(admin, individuals="ADMINS")
    count = await db.fetchval("SELECT count(*) FROM users")
    monkeypatch.setattr("services.metrics.contributors.MOST_CELLS", 7 * count)
    day, week, more = ({"start": "2026-03-02T00:00:00Z", "end": f"2026-03-{end}T00:00:00Z"} for end in ("03", "09", 10))
    asked: Json = {"bucket": "WEEK", "group_by": ["user"], "top": None}
    for range_ in (day, week, more):
        await series(admin, "tools.calls", **range_, **asked)
    await shy(CONSENT, named=False)
    for range_ in (day, week):
        await series(admin, "tools.calls", **range_, **asked)
    refusal = await refused(admin, **more, **asked)
    assert "at most 7 days. Take a shorter range" in str(refusal)


async def test_whoever_asks_is_not_counted_and_those_in_no_team_are_not_told_apart(place: Place) -> None:
    admin, team = place.house.users[Role.ADMIN], await place.people(4)
    await place.people(9, name="Loose")
    id_ = await place.team("Five", [admin["id"], *(user["id"] for user in team)])
    await work(place, [admin, *team])
    loose = await db.fetch("SELECT * FROM users WHERE name LIKE 'Loose%'", row=UserRow)
    await work(place, loose)
    for role, totals in ((Role.ADMIN, []), (Role.OWNER, [5])):
        seen = await series(await place.client(role), "tools.calls", **RANGE, group_by=["team"], bucket="WEEK")
        assert [group["total"] for group in seen["groups"]] == totals
    asker = await place.client(Role.ADMIN)
    assert (await refused(asker, filter={"team": [encode("team", id_)]}))["code"] == "FORBIDDEN"
    assert (await refused(asker, filter={"team": [None]}))["code"] == "BAD_INPUT"
    assert (await series(asker, "tools.calls", **RANGE, filter={"user": [None]}))["groups"][0]["total"] == 0
