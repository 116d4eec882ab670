"""What monitors know of groups: no incident is left open by one that is not looked at any more; and whose they are."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

import resolvers.monitors as reads
from app.wiring import Program
from core import clock, db
from core.errors import BadInput, Conflict, NotFound
from core.ids import encode, new_id
from core.permissions import Role
from models.analytics import Individuals
from models.costs import BudgetAction, BudgetSubject, BudgetWindow
from services.costs.budgets import NewBudget, create_budget
from services.costs.ledger import NOBODY, Entry, enter
from services.identity.teams import create_team
from services.metrics.policy import PolicyChanges, update_policy
from services.monitors.conditions import Absence, BudgetBurn, MonitorOperator, Threshold
from services.monitors.evaluation import UNWATCHED
from services.monitors.keeping import resume_monitor
from services.monitors.trying import try_monitor
from tests.monitoring import MINUTE, NOON, at, calls, incidents, monitor, told, watch
from tests.services.identity_help import House, a_house

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


@pytest.fixture
async def house(database: Program) -> House:
    return await a_house()


async def at_last(moment: timedelta) -> None:
    """Everything at a moment that may be long after the last one."""
    await db.execute("UPDATE monitors SET next_evaluation_at = $1", NOON + moment)
    await at(NOON + moment)


async def test_a_group_that_is_absent_for_weeks_stays_so_until_it_is_back(house: House) -> None:
    row = await watch(house.actor(Role.MEMBER), Absence(3600), group_by="tool")
    await calls(house, 1, NOON - 2 * HOUR)
    await at(NOON)
    await at_last(timedelta(days=8))
    [incident] = await incidents(row["id"])
    assert (incident["state"], (await monitor(row["id"]))["state"]) == ("FIRING", "FIRING")
    back = timedelta(days=8, hours=1)
    await calls(house, 1, NOON + back)
    await at_last(back)
    await at_last(back + 2 * HOUR)
    assert [(one["state"], one["resolution"]) for one in await incidents(row["id"])] == [
        ("RESOLVED", "It is back within the limit."),
        ("FIRING", None),
    ]


async def test_an_incident_whose_group_is_lost_ends_and_stops_no_evaluation(house: House) -> None:
    above_zero = Threshold(MonitorOperator.GREATER, 0)
    row = await watch(house.actor(Role.ADMIN), above_zero, group_by="tool", window_seconds=60)
    await calls(house, 1, NOON)
    await at(NOON)
    await db.execute("DELETE FROM monitor_groups WHERE monitor_id = $1", row["id"])
    await calls(house, 1, NOON + MINUTE)
    await at(NOON + MINUTE)
    assert [one["state"] for one in await incidents(row["id"])] == ["FIRING"], "the same, adopted again"
    await db.execute("DELETE FROM monitor_groups WHERE monitor_id = $1", row["id"])
    await at(NOON + 2 * MINUTE)
    assert [one["state"] for one in await incidents(row["id"])] == ["RESOLVED"]
    assert (await monitor(row["id"]))["state"] == "OK"


@pytest.mark.parametrize("condition", [Absence(3600), Threshold(MonitorOperator.GREATER, 0)])
async def test_a_group_that_may_not_be_shown_any_more_has_no_incident_left(
    house: House, condition: Absence | Threshold
) -> None:
    owner, member = house.actor(Role.OWNER), house.users[Role.MEMBER]["id"]
    await update_policy(owner, PolicyChanges(individuals=Individuals.ADMINS))
    row = await watch(house.actor(Role.ADMIN), condition, group_by="user", window_seconds=86400)
    one = await watch(
        house.actor(Role.ADMIN), name="One", filter={"user": [encode("usr", member)]}, window_seconds=86400
    )
    await calls(house, 5, NOON - 2 * HOUR, user=member)
    await calls(house, 1, NOON - 2 * HOUR, user=member)
    await at(NOON)
    assert [one["group_label"] for one in await incidents(row["id"])] == [str(member)]
    await update_policy(owner, PolicyChanges(individuals=Individuals.SELF_ONLY))
    await at(NOON + MINUTE)
    [incident] = await incidents(row["id"])
    assert incident["state"] == "RESOLVED"
    assert incident["resolution"].startswith(UNWATCHED)
    assert "policy" in incident["resolution"]
    [incident] = await incidents(one["id"])
    assert incident["resolution"].startswith(f"{UNWATCHED} You may not see"), "with the reason"
    assert (await monitor(one["id"]))["state"] == "ERROR"
    assert len(await told(house.users[Role.ADMIN]["id"])) == 4
    assert await db.fetchval("SELECT count(*) FROM monitor_groups") == 0


async def test_a_team_that_is_gone_has_no_incident_left(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    people = [user["id"] for role, user in house.users.items() if role is not Role.ADMIN]
    await update_policy(house.actor(Role.OWNER), PolicyChanges(floor=2))
    team = (await create_team(admin, name="Team"))["id"]
    await db.execute(
        "INSERT INTO team_members (id, team_id, user_id, created_at) SELECT gen_random_uuid(), $1, id, now() "
        "FROM users WHERE id = ANY($2)",
        team,
        people,
    )
    row = await watch(admin, filter={"team": [encode("team", team)]}, window_seconds=60)
    for user in people:
        await calls(house, 6, NOON, user=user)
    await at(NOON)
    assert [one["state"] for one in await incidents(row["id"])] == ["FIRING"]
    await db.execute("DELETE FROM teams WHERE id = $1", team)
    await at(NOON + MINUTE)
    [incident] = await incidents(row["id"])
    assert incident["resolution"].startswith(f"{UNWATCHED} There are 1 teams in this filter that do not exist")


# -- whose they are


async def test_a_monitor_keeps_the_scope_that_it_was_made_with(house: House) -> None:
    admin, owner = house.actor(Role.ADMIN), house.actor(Role.OWNER)
    await update_policy(owner, PolicyChanges(individuals=Individuals.ADMINS))
    all_ = await watch(admin, name="All", window_seconds=60)
    each = await watch(admin, name="Each", window_seconds=60, group_by="user")
    own = await watch(house.actor(Role.MEMBER), name="Own", window_seconds=60)
    await calls(house, 6, NOON, user=owner.user_id)
    await at(NOON)
    assert [len(await incidents(row["id"])) for row in (all_, each, own)] == [1, 1, 0]
    await _become(house, Role.ADMIN, "MEMBER")
    await _become(house, Role.MEMBER, "ADMIN")
    await calls(house, 6, NOON + MINUTE, user=owner.user_id)
    await at(NOON + MINUTE)
    for row in (all_, each):
        stands = await monitor(row["id"])
        reason = "It watches all of the organisation, and its owner is no admin any more."
        assert (stands["status"], stands["paused_reason"]) == ("PAUSED", reason)
        assert [one["resolution"] for one in await incidents(row["id"])] == [f"The monitor was paused. {reason}"]
    assert await incidents(own["id"]) == [], "who became an admin watches what they did"
    # What is of others is not theirs to read any more.
    former = replace(admin, role=Role.MEMBER)
    assert await reads.monitor(former, each["id"]) is None
    [incident] = await incidents(each["id"])
    assert await reads.incident(former, incident["id"]) is None
    assert await reads.incident(owner, incident["id"]) is not None
    assert [title for title in await told(admin.user_id) if "Demo Owner" in title] == ["Firing: Each (user Demo Owner)"]
    with pytest.raises(Conflict, match="no admin any more"):
        await resume_monitor(former, all_["id"])
    await _become(house, Role.ADMIN, "ADMIN")
    await resume_monitor(admin, all_["id"])


async def _become(house: House, whose: Role, role: str) -> None:
    await db.execute("UPDATE users SET role = $2 WHERE id = $1", house.users[whose]["id"], role)


async def test_members_are_told_of_no_budget_but_their_own(house: House) -> None:
    admin, member = house.actor(Role.ADMIN), house.actor(Role.MEMBER)
    usual = NewBudget("Each", BudgetSubject.EACH_USER, BudgetWindow.DAYS, BudgetAction.WARN, limit_usd=Decimal(100))
    each = await create_budget(admin, usual)
    async with db.transaction() as tx:
        when = clock.now() - HOUR
        for user, usd in ((house.users[Role.OWNER]["id"], "42.42"), (house.users[Role.MEMBER]["id"], "3.5")):
            await enter(tx, [Entry(new_id(), 1, house.organization_id, user, NOBODY, when, Decimal(usd), 5)])
    burns = BudgetBurn(each["id"], 24, 1.0)
    mine = await watch(member, burns, metric="cost.usd", begins=None)
    all_ = await watch(admin, burns, metric="cost.usd", begins=None)
    assert [group.value for group in (await try_monitor(member, mine["id"])).groups] == [3.5]
    assert [group.value for group in (await try_monitor(admin, all_["id"])).groups] == [42.42]
    assert all_["about_people"], "it is told to admins only"
    with pytest.raises(BadInput):
        await watch(admin, burns, metric="cost.usd", notify_user_ids=[member.user_id])
    others: dict[BudgetSubject, Any] = {
        BudgetSubject.USER: {"user_id": house.users[Role.OWNER]["id"]},
        BudgetSubject.TEAM: {"team_id": (await create_team(admin, name="Team"))["id"]},
        BudgetSubject.ORGANIZATION: {},
    }
    for subject, of in others.items():
        budget = await create_budget(admin, replace(usual, subject=subject, **of))
        with pytest.raises(NotFound):
            await watch(member, BudgetBurn(budget["id"], 24, 1.0), metric="cost.usd")
        # Nor where somebody else had it point there.
        told_apart = await db.fetchval("SELECT condition FROM monitors WHERE id = $1", mine["id"])
        await db.execute(
            "UPDATE monitors SET condition = $2 WHERE id = $1",
            mine["id"],
            told_apart | {"budget_id": str(budget["id"])},
        )
        assert [group.value for group in (await try_monitor(member, mine["id"])).groups] == [None]


async def test_what_monitors_tell_is_their_owner_s_doing(house: House) -> None:
    people = [house.users[role]["id"] for role in Role]
    await watch(house.actor(Role.MEMBER), window_seconds=60, notify_user_ids=people)
    await calls(house, 6, NOON)
    await at(NOON)
    assert len(await told()) == 4
    authors = await db.fetch("SELECT DISTINCT actor_kind, actor_id FROM notifications WHERE kind = 'MONITOR'")
    assert [tuple(row) for row in authors] == [("SYSTEM", house.users[Role.MEMBER]["id"])]
