"""Monitors at their instants: over real facts, by any number of workers, told once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from app.wiring import Program
from core import db
from core.errors import NotFound
from core.ids import new_id
from core.permissions import Role
from models.analytics import Individuals
from models.costs import BudgetAction, BudgetSubject, BudgetWindow
from models.monitors import AlertSeverity, MonitorNoData, MonitorRow
from services.costs.budgets import NewBudget, create_budget
from services.costs.ledger import Entry, enter
from services.costs.windows import NOBODY
from services.identity.accounts import update_user
from services.metrics.policy import PolicyChanges, update_policy
from services.monitors import evaluation
from services.monitors.conditions import (
    Absence,
    Anomaly,
    BudgetBurn,
    Change,
    MonitorChangeUnit,
    MonitorComparison,
    MonitorOperator,
    MonitorSeason,
    Threshold,
)
from services.monitors.evaluation import claim_due, evaluate_due, finish, instant, look
from services.monitors.keeping import pause_monitor, remove_monitor, resume_monitor, update_monitor
from services.monitors.people import owner_of
from services.monitors.trying import evaluate_dry
from tests.monitoring import (
    ABOVE_TEN_DOLLARS,
    MINUTE,
    NOON,
    at,
    calls,
    fact,
    history,
    incidents,
    monitor,
    put,
    spend,
    timeline,
    told,
    watch,
)
from tests.services.identity_help import House, a_house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(database: Program) -> House:
    return await a_house()


# -- states over real facts


async def test_a_monitor_fires_is_told_and_is_well_again(house: House) -> None:
    owner = house.actor(Role.MEMBER)
    row = await watch(owner, window_seconds=60)
    await calls(house, 6, NOON)
    assert await at(NOON) == 1
    [incident] = await incidents(row["id"])
    assert (incident["state"], incident["opening_value"], incident["opened_at"]) == ("FIRING", 6.0, NOON)
    assert incident["summary"] == "tools.calls is 6 over 1 min; the monitor asks for above 5."
    assert await told(owner.user_id) == ["Firing: Calls"]
    assert (await monitor(row["id"]))["state"] == "FIRING"

    assert await at(NOON + timedelta(seconds=30)) == 0, "not before its next instant"
    await at(NOON + MINUTE)
    [incident] = await incidents(row["id"])
    assert (incident["state"], incident["resolved_at"]) == ("RESOLVED", NOON + MINUTE)
    assert await told(owner.user_id) == ["Firing: Calls", "Resolved: Calls"]
    assert await timeline(incident["id"]) == ["OPENED", "TOLD", "RESOLVED"]
    assert [(one["state"], one["value"], one["changed"]) for one in await history(row["id"])] == [
        ("FIRING", 6.0, True),
        ("OK", 0.0, True),
    ]
    assert await told() == ["Firing: Calls", "Resolved: Calls"], "nobody else"


async def test_each_user_s_rolling_cost_is_watched_by_itself(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    await update_policy(house.actor(Role.OWNER), PolicyChanges(individuals=Individuals.ADMINS))
    row = await watch(
        admin, ABOVE_TEN_DOLLARS, name="Day's cost", metric="cost.usd", group_by="user", window_seconds=86400
    )
    member, viewer = (house.users[role]["id"] for role in (Role.MEMBER, Role.VIEWER))
    for hours in (30, 20, 10, 1):
        await spend(house, 4.0, NOON - timedelta(hours=hours), user=member)
    await spend(house, 9.0, NOON - timedelta(hours=2), user=viewer)
    await at(NOON)
    [incident] = await incidents(row["id"])
    assert (incident["group_label"], incident["value"]) == (str(member), 12.0)
    assert incident["title"] == "Day's cost (user Demo Member)"
    assert incident["labels"]["user"].startswith("usr_")
    # The window rolls: what was spent 20 hours before noon is over a day old five hours later.
    await spend(house, 2.0, NOON + timedelta(hours=3), user=viewer)
    await db.execute("UPDATE monitors SET next_evaluation_at = $1", NOON + timedelta(hours=5))
    await at(NOON + timedelta(hours=5))
    found = {one["group_label"]: one["state"] for one in await incidents(row["id"])}
    assert found == {str(member): "RESOLVED", str(viewer): "FIRING"}
    groups = await db.fetch("SELECT label, state, value FROM monitor_groups WHERE monitor_id = $1", row["id"])
    assert [tuple(group) for group in groups] == [(str(viewer), "FIRING", 11.0)]


async def test_members_watch_what_is_theirs_and_admins_all(house: House) -> None:
    mine = await watch(house.actor(Role.MEMBER), window_seconds=60)
    all_ = await watch(house.actor(Role.ADMIN), window_seconds=60)
    await calls(house, 4, NOON)
    await calls(house, 4, NOON, user=house.users[Role.OWNER]["id"])
    await at(NOON)
    assert [one["value"] for one in await history(mine["id"])] == [4.0]
    assert [one["value"] for one in await history(all_["id"])] == [8.0]
    assert (await incidents(mine["id"]), len(await incidents(all_["id"]))) == ([], 1)


async def test_without_the_organisation_s_leave_an_admin_watches_nobody_but_themself(house: House) -> None:
    row = await watch(
        house.actor(Role.ADMIN), ABOVE_TEN_DOLLARS, metric="cost.usd", group_by="user", window_seconds=3600
    )
    await spend(house, 50.0, NOON - MINUTE)
    await spend(house, 20.0, NOON - MINUTE, user=house.users[Role.ADMIN]["id"])
    await at(NOON)
    assert [one["value"] for one in await incidents(row["id"])] == [20.0]
    assert "policy" in (await history(row["id"]))[0]["explanation"]


async def test_a_cost_that_is_not_known_is_not_a_cost_of_nothing(house: House) -> None:
    below = Threshold(MonitorOperator.LESS, 1)
    row = await watch(house.actor(Role.ADMIN), below, metric="cost.usd", window_seconds=60)
    await spend(house, None, NOON - timedelta(seconds=5))
    await at(NOON)
    assert (await monitor(row["id"]))["state"] == "NO_DATA"
    await at(NOON + MINUTE)
    assert (await monitor(row["id"]))["state"] == "FIRING", "where nothing happened, nothing was spent"


async def test_what_never_happened_is_no_value_of_a_ratio(house: House) -> None:
    rate = Threshold(MonitorOperator.GREATER, 0.5)
    given = {"metric": "tools.error_rate", "window_seconds": 60}
    kept = await watch(house.actor(Role.ADMIN), rate, **given)
    firing = await watch(house.actor(Role.ADMIN), rate, no_data=MonitorNoData.FIRING, **given)
    await at(NOON)
    assert [(await monitor(one["id"]))["state"] for one in (kept, firing)] == ["NO_DATA", "FIRING"]
    [incident] = await incidents(firing["id"])
    assert await timeline(incident["id"]) == ["NO_DATA", "TOLD"]
    await calls(house, 1, NOON + MINUTE)
    await calls(house, 3, NOON + MINUTE, outcome="FAILED")
    await at(NOON + MINUTE)
    assert [(await monitor(one["id"]))["state"] for one in (kept, firing)] == ["FIRING", "FIRING"]
    assert await timeline(incident["id"]) == ["NO_DATA", "TOLD", "VALUE"]


async def test_changes_against_the_window_before_and_a_week_ago(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    half_more = {
        compared: await watch(
            admin,
            Change(MonitorOperator.GREATER, 50, MonitorChangeUnit.PERCENT, compared),
            name=compared.value,
            window_seconds=3600,
        )
        for compared in MonitorComparison
    }
    fewer = await watch(
        admin,
        Change(MonitorOperator.LESS, -9, MonitorChangeUnit.ABSOLUTE, MonitorComparison.PREVIOUS_WINDOW),
        window_seconds=3600,
    )
    await calls(house, 10, NOON - timedelta(days=7))
    await calls(house, 20, NOON - timedelta(hours=1))
    await calls(house, 16, NOON)
    await at(NOON)
    assert (await monitor(half_more[MonitorComparison.PREVIOUS_WINDOW]["id"]))["state"] == "OK"
    [incident] = await incidents(half_more[MonitorComparison.LAST_WEEK]["id"])
    assert "It was 10: a change by +60.0%." in incident["summary"]
    assert await incidents(fewer["id"]) == []
    # From nothing, any change is more than all per cent; from nothing to nothing it is none.
    for one in half_more.values():
        await db.execute("UPDATE monitors SET next_evaluation_at = $2 WHERE id = $1", one["id"], NOON + 2 * MINUTE)
    tried = await evaluate_dry(half_more[MonitorComparison.LAST_WEEK], NOON + timedelta(days=6))
    assert (tried.state.value, tried.groups[0].measure) == ("OK", 0.0)
    tried = await evaluate_dry(half_more[MonitorComparison.LAST_WEEK], NOON + timedelta(days=-1, hours=-23))
    assert tried.state.value == "OK"
    tried = await evaluate_dry(half_more[MonitorComparison.PREVIOUS_WINDOW], NOON - timedelta(hours=1))
    assert (tried.state.value, tried.groups[0].measure, tried.groups[0].value) == ("FIRING", None, 20.0)


async def test_absence_of_anything_and_of_one_group(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    any_ = await watch(admin, Absence(600))
    each = await watch(admin, Absence(600), group_by="tool")
    await calls(house, 1, NOON - timedelta(hours=1), tool="shell.run")
    await calls(house, 1, NOON)
    await at(NOON)
    assert await incidents(any_["id"]) == []
    [incident] = await incidents(each["id"])
    assert (incident["group_label"], incident["summary"].endswith("Nothing happened for 10 min.")) == (
        "shell.run",
        True,
    )
    await at(NOON + 11 * MINUTE)
    assert len(await incidents(any_["id"])) == 1
    assert {one["group_label"] for one in await incidents(each["id"])} == {"shell.run", "time.now"}
    await calls(house, 1, NOON + 12 * MINUTE, tool="shell.run")
    await at(NOON + 12 * MINUTE)
    assert [one["state"] for one in await incidents(any_["id"])] == ["RESOLVED"]


async def test_a_spike_in_a_season_of_real_facts_is_an_anomaly(house: House) -> None:
    """On the day on which clocks go forward in Berlin, where work begins at nine."""
    zone, ten = ZoneInfo("Europe/Berlin"), datetime(2026, 3, 29, 8, tzinfo=UTC)
    given: dict[str, Any] = {"begins": ten, "window_seconds": 3600, "evaluate_every_seconds": 600}
    admin = house.actor(Role.ADMIN)
    season = Anomaly(5, MonitorSeason.DAY, 7, "Europe/Berlin")
    row = await watch(admin, season, name="Unusual", metric="messages.count", **given)
    in_utc = await watch(admin, Anomaly(5, MonitorSeason.DAY, 7), metric="messages.count", **given)
    young = await watch(admin, season, metric="tools.calls", **given)
    start = ten - timedelta(days=7, hours=3)
    facts = []
    for hour in range(7 * 24 + 3):
        when = start + timedelta(hours=hour)
        usual = (30 if 9 <= when.astimezone(zone).hour < 17 else 5) + hour % 3
        facts += [fact(house, when + timedelta(seconds=n), role="USER", characters=1) for n in range(usual)]
    await put(message_facts=facts)
    await calls(house, 3, ten)
    await at(ten)
    [seen] = await history(row["id"])
    assert (seen["state"], seen["group_count"]) == ("OK", 1), seen["explanation"]
    assert "Expected is" in seen["explanation"]
    [too_early] = await incidents(in_utc["id"])
    assert too_early["value"] > 29, "by UTC it is an hour before work begins"
    assert (await monitor(young["id"]))["state"] == "NO_DATA"
    assert "3 days of history" in (await monitor(young["id"]))["explanation"]
    spike = ten + timedelta(minutes=5)
    await put(message_facts=[fact(house, spike, role="USER", characters=1) for _ in range(120)])
    await at(ten + timedelta(minutes=10))
    assert (await monitor(row["id"]))["state"] == "OK", "its window is not over"
    await at(ten + timedelta(hours=1))
    [incident] = await incidents(row["id"])
    assert incident["value"] == 120.0
    assert "standard deviations away" in incident["summary"]
    assert "usual day (Europe/Berlin)" in incident["summary"]


async def test_of_many_groups_those_furthest_from_what_is_usual_are_judged(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.monitors.readings.MOST_ANOMALY_GROUPS", 1)
    season = Anomaly(5, MonitorSeason.DAY, 3)
    row = await watch(house.actor(Role.ADMIN), season, group_by="tool", window_seconds=3600)
    start = NOON - timedelta(days=3)
    for tool, last in (("a", 5), ("b", 60)):
        for hour in range(3 * 24 + 1):
            await calls(house, last if hour == 72 else 5 + hour % 3, start + timedelta(hours=hour), tool=tool)
    await at(NOON)
    assert [one["group_label"] for one in await incidents(row["id"])] == ["b"]
    assert (await monitor(row["id"]))["groups_left_out"] == 1


async def test_a_budget_that_burns_too_fast(house: House) -> None:
    owner = house.actor(Role.OWNER)
    new = NewBudget(
        "A month", BudgetSubject.ORGANIZATION, BudgetWindow.DAYS, BudgetAction.WARN, 30, limit_usd=Decimal(720)
    )
    budget = await create_budget(owner, new)
    row = await watch(owner, BudgetBurn(budget["id"], 6, 3), metric="cost.usd")
    with pytest.raises(NotFound):
        await watch((await a_house("Elsewhere")).actor(Role.OWNER), BudgetBurn(budget["id"], 6, 3), metric="cost.usd")
    # Evenly it is a dollar an hour.
    await _spent(house, Decimal(17), NOON - timedelta(hours=2))
    await at(NOON)
    [seen] = await history(row["id"])
    assert (seen["state"], seen["explanation"]) == ("OK", "17 of 720 in 6 h: 2.83 times its rate.")
    await _spent(house, Decimal(2), NOON)
    await at(NOON + MINUTE)
    [incident] = await incidents(row["id"])
    assert "burning at 3 times its rate or more over 6 h" in incident["summary"]
    await db.execute("UPDATE budgets SET removed_at = now() WHERE id = $1", budget["id"])
    await at(NOON + 2 * MINUTE)
    assert "budget is gone" in (await monitor(row["id"]))["explanation"]
    assert [one["state"] for one in await incidents(row["id"])] == ["FIRING"], "KEEP keeps it"


async def _spent(house: House, usd: Decimal, when: datetime) -> None:
    """In the ledger of budgets, a second before `when`."""
    member, moment = house.users[Role.MEMBER]["id"], when - timedelta(seconds=1)
    async with db.transaction() as tx:
        await enter(tx, [Entry(new_id(), 1, house.organization_id, member, NOBODY, moment, usd, 0)])


async def test_too_many_groups_are_bounded_and_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.monitors.readings.MOST_GROUPS", 5)
    row = await watch(house.actor(Role.ADMIN), group_by="tool", window_seconds=60)
    for number in range(9):
        await calls(house, number + 1, NOON, tool=f"tool.{number}")
    await at(NOON)
    found = await incidents(row["id"])
    assert sorted(one["value"] for one in found) == [6.0, 7.0, 8.0, 9.0]
    stands = await monitor(row["id"])
    assert stands["groups_left_out"] == 4
    assert "more than 5 groups: 4 are not looked at" in stands["explanation"]
    # So many at once are told in one notice.
    assert await told() == ["Firing: Calls (4 of tool)"]


async def test_groups_without_data_take_no_places_of_those_that_breach(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.monitors.readings.MOST_GROUPS", 3)
    row = await watch(
        house.actor(Role.ADMIN), ABOVE_TEN_DOLLARS, metric="cost.usd", group_by="model", window_seconds=60
    )

    async def cost(moment: datetime, **usd: float | None) -> None:
        given = {"requests": 1, "input_tokens": 10}
        at_ = moment - timedelta(seconds=1)
        await put(usage_facts=[fact(house, at_, model=model, cost_usd=cost, **given) for model, cost in usd.items()])
        await at(moment)

    await cost(NOON, a=None, b=None, c=None)
    assert (await monitor(row["id"]))["state"] == "NO_DATA"
    assert await db.fetchval("SELECT count(*) FROM monitor_groups") == 0
    await cost(NOON + MINUTE, a=None, b=None, c=None, z=50.0)
    assert [one["group_label"] for one in await incidents(row["id"])] == ["z"]
    await cost(NOON + 2 * MINUTE, d=9.0, e=9.0, f=9.0, z=None)
    assert [one["state"] for one in await incidents(row["id"])] == ["FIRING"], "without data, it is looked at still"
    assert (await monitor(row["id"]))["groups_left_out"] == 1


# -- time


async def test_instants_are_aligned_and_windows_complete(house: House) -> None:
    assert instant(NOON + timedelta(seconds=59.9), 60) == NOON
    row = await watch(house.actor(Role.ADMIN), window_seconds=60, evaluate_every_seconds=10)
    await calls(house, 6, NOON)
    # Ingest is 25 seconds behind: what is looked at is complete up to then.
    await at(NOON + timedelta(seconds=13), ready=NOON - timedelta(seconds=12))
    assert [one["at"] for one in await history(row["id"])] == [NOON - timedelta(seconds=20)]
    assert await incidents(row["id"]) == []
    await db.execute("UPDATE monitors SET next_evaluation_at = $1", NOON)
    await at(NOON + timedelta(seconds=15), ready=NOON - timedelta(seconds=11))
    assert len(await history(row["id"])) == 1, "an instant is looked at once"
    await db.execute("UPDATE monitors SET next_evaluation_at = $1", NOON)
    await at(NOON + timedelta(seconds=26), ready=NOON + timedelta(seconds=1))
    assert [one["opened_at"] for one in await incidents(row["id"])] == [NOON]


async def test_metrics_that_are_behind_are_an_error_that_ends_no_incident(house: House) -> None:
    row = await watch(house.actor(Role.ADMIN), window_seconds=60)
    await calls(house, 6, NOON)
    await at(NOON)
    await at(NOON + 10 * MINUTE, ready=NOON)
    stands = await monitor(row["id"])
    assert stands["state"] == "ERROR"
    assert "complete up to 2026-03-02 12:00:00 UTC only" in stands["explanation"]
    assert [one["state"] for one in await incidents(row["id"])] == ["FIRING"]
    await at(NOON + 12 * MINUTE)
    assert [one["state"] for one in await incidents(row["id"])] == ["RESOLVED"]


async def test_after_an_outage_the_latest_instant_is_looked_at_and_it_says_so(house: House) -> None:
    row = await watch(house.actor(Role.ADMIN), window_seconds=60, for_seconds=120)
    await calls(house, 6, NOON)
    await at(NOON)
    for number in (61, 62, 63):
        await calls(house, 6, NOON + number * MINUTE)
    await at(NOON + 61 * MINUTE)
    first, second = await history(row["id"])
    assert (second["missed"], second["at"]) == (60, NOON + 61 * MINUTE)
    assert "60 evaluations" in second["explanation"]
    assert await incidents(row["id"]) == [], "nobody knows whether it held meanwhile"
    await at(NOON + 62 * MINUTE)
    await at(NOON + 63 * MINUTE)
    assert [one["opened_at"] for one in await incidents(row["id"])] == [NOON + 63 * MINUTE]
    assert first["missed"] == 0


async def test_a_clock_that_was_set_back_does_not_stop_a_monitor(house: House) -> None:
    row = await watch(house.actor(Role.ADMIN), window_seconds=60)
    await calls(house, 6, NOON)
    await at(NOON + timedelta(hours=3))
    assert await at(NOON) == 1
    assert [one["at"] for one in await history(row["id"])] == [NOON, NOON + timedelta(hours=3)]
    assert len(await incidents(row["id"])) == 1
    await at(NOON + MINUTE)
    assert [one["state"] for one in await incidents(row["id"])] == ["RESOLVED"]


# -- several workers


async def test_several_workers_at_once_fire_once(house: House) -> None:
    rows = [await watch(house.actor(Role.ADMIN), name=f"Monitor {n}", window_seconds=60) for n in range(6)]
    await calls(house, 6, NOON)
    counts = await asyncio.gather(*(evaluate_due(NOON, NOON) for _ in range(5)))
    assert sum(counts) == 6
    assert [len(await incidents(row["id"])) for row in rows] == [1] * 6
    assert len(await told()) == 6
    assert await evaluate_due(NOON, NOON) == 0


async def test_a_worker_that_was_taken_for_dead_writes_nothing(house: House) -> None:
    row = await watch(house.actor(Role.ADMIN), window_seconds=60)
    await calls(house, 6, NOON)
    [slow] = await claim_due(NOON)
    assert await evaluate_due(NOON, NOON) == 0, "it is in hand"
    later = NOON + timedelta(seconds=evaluation.LEASE_SECONDS + 1)
    await calls(house, 6, instant(later, 60))
    assert await evaluate_due(later, later) == 1, "its claim ran out"
    owner = await owner_of(slow)
    assert not isinstance(owner, str)
    outcome = await look(slow, owner, NOON)
    assert not await finish(slow, NOON, outcome, NOON, next_at=NOON + MINUTE)
    assert len(await incidents(row["id"])) == 1
    assert await told() == ["Firing: Calls"]
    assert [one["at"] for one in await history(row["id"])] == [instant(later, 60)]


async def test_what_fails_in_the_middle_leaves_nothing_and_is_done_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await watch(house.actor(Role.ADMIN), window_seconds=60)
    await calls(house, 6, NOON)

    async def breaks(*args: object, **given: object) -> None:
        raise ConnectionError("the database went away")

    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "store_groups", breaks)
        await at(NOON)
    assert (await incidents(row["id"]), await told(), await history(row["id"])) == ([], [], [])
    stands = await monitor(row["id"])
    assert (stands["state"], stands["explanation"]) == ("ERROR", evaluation.FAILED)
    later = NOON + timedelta(seconds=evaluation.LEASE_SECONDS + 1)
    await calls(house, 6, instant(later, 60))
    await at(later)
    assert len(await incidents(row["id"])) == 1
    assert await told() == ["Firing: Calls"]
    assert (await monitor(row["id"]))["state"] == "FIRING"


async def test_a_monitor_that_cannot_be_read_is_in_error_and_keeps_its_incident(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await watch(house.actor(Role.ADMIN), window_seconds=60)
    other = await watch(house.actor(Role.ADMIN), name="Other", window_seconds=60)
    await calls(house, 6, NOON)
    await at(NOON)
    real = evaluation.readings

    async def failing(monitor_row: MonitorRow, *args: Any) -> Any:
        if monitor_row["id"] == row["id"]:
            raise RuntimeError("secret detail")
        return await real(monitor_row, *args)

    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "readings", failing)
        await at(NOON + MINUTE)
    stands = await monitor(row["id"])
    assert stands["state"] == "ERROR"
    assert "secret" not in stands["explanation"]
    assert [one["state"] for one in await incidents(row["id"])] == ["FIRING"]
    assert [one["state"] for one in await incidents(other["id"])] == ["RESOLVED"]
    await at(NOON + 2 * MINUTE)
    assert [one["state"] for one in await incidents(row["id"])] == ["RESOLVED"]


# -- whose eyes


async def test_a_monitor_of_whoever_has_left_is_paused_and_says_why(house: House) -> None:
    member, admin = house.actor(Role.MEMBER), house.actor(Role.ADMIN)
    left = await watch(member, window_seconds=3600)
    await calls(house, 6, NOON)
    await at(NOON)
    await update_user(admin, house.users[Role.MEMBER]["id"], active=False)
    await at(NOON + MINUTE)
    stands = await monitor(left["id"])
    assert (stands["status"], stands["paused_reason"]) == ("PAUSED", "Its owner has been deactivated.")
    [incident] = await incidents(left["id"])
    assert incident["resolution"] == "The monitor was paused. Its owner has been deactivated."
    assert "Monitor paused: Calls" in await told(admin.user_id)
    assert await at(NOON + 2 * MINUTE) == 0
    viewer = await watch(admin, name="Mine", window_seconds=60)
    await db.execute("UPDATE users SET role = 'VIEWER' WHERE id = $1", admin.user_id)
    await at(NOON + 3 * MINUTE)
    assert (await monitor(viewer["id"]))["paused_reason"] == "Its owner may not have monitors any more."


async def test_changed_paused_and_removed_monitors_leave_no_incident_open(house: House) -> None:
    owner = house.actor(Role.MEMBER)
    rows = [await watch(owner, name=name, window_seconds=3600) for name in ("changed", "renamed", "paused", "removed")]
    await calls(house, 6, NOON)
    await at(NOON)
    changed, renamed, paused, removed = (row["id"] for row in rows)
    [slow] = await _claimed(changed)
    await update_monitor(owner, changed, {"condition": Threshold(MonitorOperator.GREATER, 100)})
    await update_monitor(owner, renamed, {"name": "Renamed", "severity": AlertSeverity.CRITICAL})
    await pause_monitor(owner, paused, "Holidays")
    await remove_monitor(owner, removed)
    assert [(await incidents(id_))[0]["resolution"] for id_ in (changed, renamed, paused, removed)] == [
        "The monitor was changed.",
        None,
        "The monitor was paused.",
        "The monitor was removed.",
    ]
    outcome = await look(slow, owner, NOON + MINUTE)
    assert not await finish(slow, NOON + MINUTE, outcome, NOON, next_at=NOON), "what it saw is of before the change"
    await db.execute("UPDATE monitors SET next_evaluation_at = $1", NOON + MINUTE)
    assert await at(NOON + MINUTE) == 2
    await resume_monitor(owner, paused)
    await db.execute("UPDATE monitors SET next_evaluation_at = $1", NOON + 2 * MINUTE)
    assert await at(NOON + 2 * MINUTE) == 3
    assert [one["state"] for one in await incidents(paused)] == ["RESOLVED", "FIRING"]


async def _claimed(id_: UUID) -> list[MonitorRow]:
    await db.execute("UPDATE monitors SET next_evaluation_at = $2 WHERE id = $1", id_, NOON)
    return await claim_due(NOON)


async def test_an_evaluation_costs_few_statements(house: House) -> None:
    await watch(house.actor(Role.ADMIN), window_seconds=60)
    await at(NOON)
    seen: list[str] = []
    token = db.queries_seen.set(seen)
    try:
        await evaluate_due(NOON + MINUTE, NOON + MINUTE)
    finally:
        db.queries_seen.reset(token)
    assert len(seen) <= 12, seen
