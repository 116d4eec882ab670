"""What monitors know of groups: no incident is left open by one that is not looked at any more; and whose they are."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.wiring import Program
from core import db
from core.ids import encode
from core.permissions import Role
from models.analytics import Individuals
from services.metrics.policy import PolicyChanges, update_policy
from services.monitors.conditions import Absence, MonitorOperator, Threshold
from services.monitors.evaluation import UNWATCHED
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
