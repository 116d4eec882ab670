"""Monitors of people and teams: what may be watched, and what becomes of incidents when too few are behind a figure."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from app.wiring import Program
from core import db
from core.ids import encode, new_id
from core.permissions import Role
from models.analytics import Individuals
from models.monitors import MonitorNoData
from services.identity.accounts import create_user
from services.metrics.policy import PolicyChanges, update_policy
from services.monitors import evaluation
from tests.monitoring import (
    ABOVE_TEN_DOLLARS,
    MINUTE,
    NOON,
    at,
    calls,
    incidents,
    monitor,
    spend,
    told,
    watch,
)
from tests.services.identity_help import House, a_house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(database: Program) -> House:
    return await a_house()


async def test_a_team_is_watched_where_enough_people_are_behind_the_figure(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    people = [
        (await create_user(house.system, name=f"P {n}", email=f"p{n}@acme.example", role=Role.MEMBER))["id"]
        for n in range(12)
    ]
    team = new_id()
    await db.execute(
        "INSERT INTO teams (id, organization_id, name, slug, created_at) VALUES ($1, $2, 'Blue', 'blue', now())",
        team,
        house.organization_id,
    )
    for person in people[:6]:
        await db.execute(
            "INSERT INTO team_members (id, team_id, user_id, created_at) VALUES ($1, $2, $3, now())",
            new_id(),
            team,
            person,
        )
    each = {"metric": "cost.usd", "group_by": "team", "window_seconds": 60}
    row = await watch(admin, ABOVE_TEN_DOLLARS, name="Team", **each)
    over = await watch(admin, ABOVE_TEN_DOLLARS, name="Over", no_data=MonitorNoData.OK, **each)
    held = await watch(admin, ABOVE_TEN_DOLLARS, name="Held", for_seconds=120, **each)
    only = await watch(
        admin, ABOVE_TEN_DOLLARS, metric="cost.usd", filter={"team": [encode("team", team)]}, window_seconds=60
    )
    for person in people:
        await spend(house, 2.0, NOON - timedelta(seconds=5), user=person)
    await at(NOON)
    [incident] = await incidents(row["id"])
    assert (incident["group_label"], incident["value"], incident["title"]) == (str(team), 12.0, "Team (team Blue)")
    assert [one["value"] for one in await incidents(only["id"])] == [12.0]
    await spend(house, 50.0, NOON + timedelta(seconds=5), user=people[0])
    await at(NOON + MINUTE)
    # One person alone is behind it: that is no data, and no end of being watched.
    for one in (row, only):
        [incident] = await incidents(one["id"])
        assert (incident["state"], incident["value"], "Too few people" in incident["summary"]) == ("FIRING", None, True)
        assert "Too few people" in (await monitor(one["id"]))["explanation"]
    assert [one["resolution"] for one in await incidents(over["id"])] == ["There is no data any more."]
    assert (await monitor(held["id"]))["state"] == "NO_DATA"
    for person in people:
        await spend(house, 3.0, NOON + MINUTE + timedelta(seconds=5), user=person)
    await at(NOON + 2 * MINUTE)
    assert [one["value"] for one in await incidents(row["id"])] == [18.0]
    assert [one["value"] for one in await incidents(only["id"])] == [18.0]
    assert [one["value"] for one in await incidents(held["id"])] == [18.0], "it was pending all the time"
    assert (await told(admin.user_id)).count("Firing: Team (team Blue)") == 1, "nothing was told twice"
    # A team that has too few people may not be watched at all.
    await db.execute("DELETE FROM team_members WHERE user_id = ANY($1)", people[:4])
    await at(NOON + 3 * MINUTE)
    [incident] = await incidents(row["id"])
    assert incident["resolution"].startswith(evaluation.UNWATCHED)
    [incident] = await incidents(only["id"])
    assert incident["resolution"].startswith(f"{evaluation.UNWATCHED} This team is not shown")
    assert (await monitor(only["id"]))["state"] == "ERROR"


async def test_who_is_hidden_with_others_on_one_day_keeps_their_incident(house: House) -> None:
    await update_policy(house.actor(Role.OWNER), PolicyChanges(individuals=Individuals.ADMINS))
    out, *people = [
        (await create_user(house.system, name=f"P {n}", email=f"p{n}@acme.example", role=Role.MEMBER))["id"]
        for n in range(12)
    ]
    await _opt_out(house, out)
    row = await watch(house.actor(Role.ADMIN), group_by="user", window_seconds=60)
    for person in (out, *people):
        await calls(house, 6, NOON, user=person)
    await at(NOON)
    fired = {UUID(one["group_label"]) for one in await incidents(row["id"])}
    assert fired
    assert fired < set(people)
    tomorrow = NOON + timedelta(days=1)
    await db.execute("UPDATE monitors SET next_evaluation_at = $1", tomorrow)
    await calls(house, 1, tomorrow, user=out)
    for person in fired:
        await calls(house, 6, tomorrow, user=person)
    await at(tomorrow)
    hidden = [one for one in await incidents(row["id"]) if one["value"] is None]
    assert hidden, "on that day they hide who opted out"
    assert {one["state"] for one in await incidents(row["id"])} == {"FIRING"}
    chosen = UUID(hidden[0]["group_label"])
    await _opt_out(house, chosen)
    await at(tomorrow + MINUTE)
    [ended] = [one for one in await incidents(row["id"]) if one["group_label"] == str(chosen)]
    assert ended["resolution"].startswith(evaluation.UNWATCHED)


async def _opt_out(house: House, user_id: UUID) -> None:
    await db.execute(
        "INSERT INTO analytics_opt_outs (user_id, organization_id, created_at) VALUES ($1, $2, now())",
        user_id,
        house.organization_id,
    )
