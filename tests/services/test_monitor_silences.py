"""Incidents that last: told again, acknowledged, silenced."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.wiring import Program
from core import db
from core.permissions import Role
from services.monitors.incidents import acknowledge
from services.monitors.silences import NewSilence, create_silence, end_silence
from tests.monitoring import (
    MINUTE,
    NOON,
    at,
    calls,
    incidents,
    timeline,
    told,
    watch,
)
from tests.services.identity_help import House, a_house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(database: Program) -> House:
    return await a_house()


async def test_what_lasts_is_told_again_until_somebody_sees_to_it(house: House) -> None:
    owner = house.actor(Role.MEMBER)
    row = await watch(owner, window_seconds=3600, renotify_seconds=600)
    await calls(house, 6, NOON)
    for minutes in range(25):
        await at(NOON + minutes * MINUTE)
    assert await told() == ["Firing: Calls", "Still firing: Calls", "Still firing: Calls"]
    [incident] = await incidents(row["id"])
    acknowledged = await acknowledge(owner, incident["id"], "On it")
    assert acknowledged["acknowledged_by_id"] == owner.user_id
    assert (await acknowledge(house.actor(Role.ADMIN), incident["id"], None))["acknowledged_by_id"] == owner.user_id
    await at(NOON + 45 * MINUTE)
    await at(NOON + 70 * MINUTE)
    assert await told() == ["Firing: Calls", "Still firing: Calls", "Still firing: Calls", "Resolved: Calls"]
    kinds = ["OPENED", "TOLD", "TOLD", "TOLD", "ACKNOWLEDGED", "RESOLVED"]
    assert await timeline(incident["id"]) == kinds


async def test_it_fires_on_in_a_silence_and_is_told_if_it_still_does_at_its_end(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    row = await watch(admin, window_seconds=3600, labels={"team": "blue"})
    moment = await db.fetchval("SELECT date_trunc('minute', now())")
    await db.execute("UPDATE monitors SET next_evaluation_at = $1", moment)
    await calls(house, 6, moment)
    ends = moment + timedelta(hours=1, minutes=-10)
    await create_silence(admin, NewSilence(None, {"team": "blue"}, "Deployment", None, ends), None)
    await create_silence(admin, NewSilence(None, {"team": "red"}, "Another", None, ends), None)
    soon = moment + MINUTE
    await at(soon)
    [incident] = await incidents(row["id"])
    assert (incident["silenced"], incident["told_count"], await told()) == (True, 0, [])
    await at(ends)
    assert await told() == ["Firing: Calls"]
    assert await timeline(incident["id"]) == ["OPENED", "SILENCED", "SILENCE_ENDED", "TOLD"]


async def test_a_silence_that_ends_early_or_holds_for_others_only(house: House) -> None:
    admin, member = house.actor(Role.ADMIN), house.actor(Role.MEMBER)
    moment = await db.fetchval("SELECT date_trunc('minute', now())")
    row = await watch(admin, window_seconds=3600, begins=moment)
    ends = moment + timedelta(hours=2)
    labels = {"alertname": "Calls"}
    await create_silence(member, NewSilence(None, labels, "Not mine to silence", None, ends), None)
    await calls(house, 6, moment)
    await at(moment + MINUTE)
    assert await told() == ["Firing: Calls"], "a member's silence holds for their own monitors"
    silence = await create_silence(admin, NewSilence(row["id"], {}, "Known", None, ends), None)
    await at(moment + 2 * MINUTE)
    assert (await incidents(row["id"]))[0]["silenced"]
    await end_silence(admin, silence["id"])
    await at(moment + 3 * MINUTE)
    assert await told() == ["Firing: Calls", "Still firing: Calls"]


async def test_what_ends_in_a_silence_without_having_been_told_is_not_told(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    moment = await db.fetchval("SELECT date_trunc('minute', now())")
    row = await watch(admin, window_seconds=60, begins=moment)
    await create_silence(admin, NewSilence(row["id"], {}, "Known", None, moment + timedelta(hours=1)), None)
    await calls(house, 6, moment + MINUTE)
    await at(moment + MINUTE)
    await at(moment + 2 * MINUTE)
    assert [one["state"] for one in await incidents(row["id"])] == ["RESOLVED"]
    await at(moment + timedelta(hours=2))
    assert await told() == []
