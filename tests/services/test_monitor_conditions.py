"""What monitors ask, how groups move between states, and what a season lets expect. No clock, no database."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from models.monitors import MonitorNoData, MonitorState
from services.monitors.anomaly import TooLittle, Verdict, by_local_time, estimate, judge
from services.monitors.conditions import (
    Absence,
    Anomaly,
    BudgetBurn,
    Change,
    Condition,
    Limit,
    MonitorChangeUnit,
    MonitorComparison,
    MonitorOperator,
    MonitorSeason,
    Threshold,
    describe,
    duration,
    kind_of,
    limit_of,
    problems,
    restored,
    stored,
)
from services.monitors.incidents import moved
from services.monitors.states import Group, Reading, Rules, Step, step, worst

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ABOVE_TEN = Limit(MonitorOperator.GREATER, 10.0)
INCIDENT = UUID(int=7)

ALL: list[Condition] = [
    Threshold(MonitorOperator.LESS_OR_EQUAL, 0.5),
    Change(MonitorOperator.GREATER, 50, MonitorChangeUnit.PERCENT, MonitorComparison.LAST_WEEK),
    Absence(600),
    Anomaly(4, MonitorSeason.WEEK, 28, "America/New_York"),
    BudgetBurn(uuid4(), 6, 2.5),
]


def rules(
    limit: Limit = ABOVE_TEN, *, hold: timedelta = timedelta(0), no_data: MonitorNoData = MonitorNoData.KEEP
) -> Rules:
    return Rules(limit, hold, no_data)


def seen(measure: float | None) -> Reading:
    return Reading("", None, measure, measure, None if measure is not None else "nothing")


def follow(measures: list[float | None], given: Rules, *, gaps: tuple[int, ...] = ()) -> list[Step]:
    """A minute apart; incidents are opened as the caller of `step` does."""
    group: Group | None = None
    steps = []
    for number, measure in enumerate(measures):
        done = step(group, seen(measure), given, NOON + number * MINUTE, after_gap=number in gaps)
        steps.append(done)
        group = done.group
        if done.opened:
            group = Group(group.key, group.label, group.state, group.since, incident_id=INCIDENT)
    return steps


def states(steps: list[Step]) -> list[str]:
    return [each.group.state.value for each in steps]


# -- conditions


@pytest.mark.parametrize("condition", ALL, ids=lambda one: type(one).__name__)
def test_conditions_come_back_from_the_database_as_they_were(condition: Condition) -> None:
    assert restored(kind_of(condition).value, stored(condition)) == condition
    assert describe(condition)
    window = 3600
    assert problems(condition, window, None) == []


def test_anomalies_of_before_there_were_zones_are_of_utc() -> None:
    before = {"sensitivity": 5, "season": "DAY", "training_days": 14}
    assert restored("ANOMALY", before) == Anomaly(5, MonitorSeason.DAY, 14, "UTC")


@pytest.mark.parametrize(
    ("condition", "recovery", "field"),
    [
        (Threshold(MonitorOperator.GREATER, math.nan), None, "condition.threshold.value"),
        (Threshold(MonitorOperator.GREATER, math.inf), None, "condition.threshold.value"),
        (Threshold(MonitorOperator.GREATER, 10), 11, "recovery"),
        (Threshold(MonitorOperator.LESS, 10), 9, "recovery"),
        (Threshold(MonitorOperator.LESS, 10), math.nan, "recovery"),
        (
            Change(MonitorOperator.LESS, -1e300, MonitorChangeUnit.PERCENT, MonitorComparison.LAST_WEEK),
            None,
            "condition.change.value",
        ),
        (Absence(59), None, "condition.absence.forSeconds"),
        (Absence(600), 1.0, "recovery"),
        (Anomaly(0.5, MonitorSeason.DAY, 14), None, "condition.anomaly.sensitivity"),
        (Anomaly(5, MonitorSeason.DAY, 2), None, "condition.anomaly.trainingDays"),
        (Anomaly(5, MonitorSeason.DAY, 85), None, "condition.anomaly.trainingDays"),
        (Anomaly(5, MonitorSeason.WEEK, 20), None, "condition.anomaly.trainingDays"),
        (Anomaly(5, MonitorSeason.DAY, 14, "Europe/Berlim"), None, "condition.anomaly.timezone"),
        (Anomaly(5, MonitorSeason.WEEK, 28), 6, "recovery"),
        (BudgetBurn(uuid4(), 0, 1), None, "condition.budgetBurn.hours"),
        (BudgetBurn(uuid4(), 1, 0), None, "condition.budgetBurn.ratio"),
        (BudgetBurn(uuid4(), 1, math.nan), None, "condition.budgetBurn.ratio"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_field(condition: Condition, recovery: float | None, field: str) -> None:
    assert [name for name, _ in problems(condition, 3600, recovery)] == [field]


def test_anomalies_take_windows_that_divide_their_season() -> None:
    assert [name for name, _ in problems(Anomaly(5, MonitorSeason.DAY, 14), 300, None)] == ["windowSeconds"]
    assert [name for name, _ in problems(Anomaly(5, MonitorSeason.WEEK, 21), 900, None)] == []
    assert [name for name, _ in problems(Anomaly(5, MonitorSeason.WEEK, 22), 900, None)] == [
        "condition.anomaly.trainingDays"
    ]


def test_every_operator_has_its_side_and_its_limit() -> None:
    for operator, below, at, above in (
        (MonitorOperator.GREATER, False, False, True),
        (MonitorOperator.GREATER_OR_EQUAL, False, True, True),
        (MonitorOperator.LESS, True, False, False),
        (MonitorOperator.LESS_OR_EQUAL, True, True, False),
    ):
        assert [operator.passes(measure, 10) for measure in (9, 10, 11)] == [below, at, above]
    assert limit_of(Absence(60), None).passed(1.0, already=False)
    assert not limit_of(Absence(60), None).passed(0.0, already=True)
    assert Limit(MonitorOperator.GREATER, 50).passed(math.inf, already=False)


def test_durations_are_told_in_whole_units() -> None:
    assert [duration(n) for n in (90, 60, 900, 5400, 3600, 86400, 604800)] == [
        "90 s",
        "1 min",
        "15 min",
        "90 min",
        "1 h",
        "1 d",
        "7 d",
    ]


# -- states


def test_a_group_fires_and_is_well_again() -> None:
    steps = follow([5, 11, 12, 9, 8], rules())
    assert states(steps) == ["OK", "FIRING", "FIRING", "OK", "OK"]
    assert [each.opened for each in steps] == [False, True, False, False, False]
    assert [each.resolved for each in steps] == [None, None, None, "It is back within the limit.", None]
    assert steps[2].group.since == steps[1].group.since == NOON + MINUTE
    assert steps[3].group.incident_id is None


def test_it_fires_once_it_has_held_for_long_enough() -> None:
    steps = follow([11, 11, 11, 11], rules(hold=2 * MINUTE))
    assert states(steps) == ["PENDING", "PENDING", "FIRING", "FIRING"]
    assert [each.group.pending_since for each in steps[:2]] == [NOON, NOON]
    steps = follow([11, 11, 9, 11, 11, 11], rules(hold=2 * MINUTE))
    assert states(steps) == ["PENDING", "PENDING", "OK", "PENDING", "PENDING", "FIRING"], "it begins anew"


def test_what_is_pending_outlasts_a_lack_of_data_for_as_long_as_it_must_hold() -> None:
    given = rules(hold=2 * MINUTE)
    assert states(follow([11, None, 11], given)) == ["PENDING", "NO_DATA", "FIRING"]
    assert states(follow([11, None, None, None, 11], given)) == ["PENDING", "NO_DATA", "NO_DATA", "NO_DATA", "PENDING"]
    assert states(follow([11, None, 9, 11], given)) == ["PENDING", "NO_DATA", "OK", "PENDING"]
    assert states(follow([11, None, 11], given, gaps=(1,))) == ["PENDING", "NO_DATA", "PENDING"]


def test_what_was_pending_before_an_outage_begins_anew_and_what_fired_goes_on() -> None:
    steps = follow([11, 11, 11, 11, 11], rules(hold=2 * MINUTE), gaps=(2,))
    assert states(steps) == ["PENDING", "PENDING", "PENDING", "PENDING", "FIRING"]
    assert states(follow([11, 11, 11], rules(), gaps=(1, 2))) == ["FIRING"] * 3


def test_with_a_recovery_it_does_not_flap() -> None:
    given = rules(Limit(MonitorOperator.GREATER, 10, recovery=8))
    steps = follow([9, 11, 9, 8.5, 8, 9, 11], given)
    assert states(steps) == ["OK", "FIRING", "FIRING", "FIRING", "OK", "OK", "FIRING"]
    low = rules(Limit(MonitorOperator.LESS, 10, recovery=12))
    assert states(follow([9, 11, 12, 11], low)) == ["FIRING", "FIRING", "OK", "OK"]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (MonitorNoData.KEEP, ["NO_DATA", "FIRING", "FIRING", "OK", "NO_DATA"]),
        (MonitorNoData.OK, ["OK", "FIRING", "OK", "OK", "OK"]),
        (MonitorNoData.FIRING, ["FIRING", "FIRING", "FIRING", "OK", "FIRING"]),
    ],
)
def test_what_no_data_means_is_for_the_monitor_to_say(policy: MonitorNoData, expected: list[str]) -> None:
    steps = follow([None, 11, None, 9, None], rules(no_data=policy))
    assert states(steps) == expected
    assert steps[2].resolved == ("There is no data any more." if policy is MonitorNoData.OK else None)


def test_a_clock_that_was_set_back_lets_nothing_wait_in_the_future() -> None:
    ahead = Group("", None, MonitorState.PENDING, NOON + 60 * MINUTE, pending_since=NOON + 60 * MINUTE)
    first = step(ahead, seen(11), rules(hold=MINUTE), NOON)
    assert (first.group.pending_since, first.group.since) == (NOON, NOON)
    assert step(first.group, seen(11), rules(hold=MINUTE), NOON + MINUTE).opened


def test_an_error_in_between_ends_no_incident() -> None:
    failed = Group("", None, MonitorState.ERROR, NOON, incident_id=INCIDENT)
    assert step(failed, seen(11), rules(), NOON).group.incident_id == INCIDENT
    assert not step(failed, seen(11), rules(), NOON).opened
    assert step(failed, seen(9), rules(), NOON).resolved


def test_the_worst_of_its_groups_is_a_monitor_s_state() -> None:
    assert worst([]) is MonitorState.OK
    assert worst([MonitorState.OK, MonitorState.NO_DATA, MonitorState.PENDING]) is MonitorState.PENDING
    assert worst([MonitorState.ERROR, MonitorState.FIRING]) is MonitorState.FIRING


def test_a_timeline_notes_values_that_moved_by_a_tenth() -> None:
    assert not moved(100.0, 109.0)
    assert moved(100.0, 112.0)
    assert moved(0.0, 1.0)
    assert not moved(0.0, 0.0)
    assert moved(None, 1.0)
    assert moved(1.0, None)
    assert not moved(None, None)


# -- anomalies


def seasonal(points: int, period: int, *, seed: int, noise: float = 5.0, weekly: bool = False) -> list[float | None]:
    random = np.random.default_rng(seed)
    hours = np.arange(points)
    day = period if not weekly else 24
    values = 100 + 50 * np.sin(2 * np.pi * hours / day) + random.normal(0, noise, points)
    if weekly:
        values += np.where((hours // 24) % 7 >= 5, -40, 0)
    return [float(value) for value in values]


@pytest.mark.parametrize(("period", "seasons", "weekly"), [(24, 14, False), (96, 7, False), (168, 4, True)])
def test_a_clean_season_gives_no_false_alarm_and_a_spike_is_found(period: int, seasons: int, weekly: bool) -> None:
    length = period * seasons
    for seed in range(4):
        series = seasonal(length + 40, period, seed=seed, weekly=weekly)
        for ahead in range(0, 40, 8):
            history, value = series[ahead : length + ahead], series[length + ahead]
            assert value is not None
            clean = judge(history, value, period=period, season="day", counted=False)
            assert isinstance(clean, Verdict)
            assert clean.deviations < 5
            for spike in (60, -60):
                found = judge(history, value + spike, period=period, season="day", counted=False)
                assert isinstance(found, Verdict)
                assert found.deviations > 5


def test_the_same_history_gives_the_same_verdict_and_spikes_of_before_change_little() -> None:
    series = seasonal(24 * 14, 24, seed=1)
    first = judge(series, 100, period=24, season="day", counted=False)
    assert first == judge(series, 100, period=24, season="day", counted=False)
    spiked = [*series]
    for place in (50, 170, 290, 334):
        spiked[place] = 5000.0
    second = judge(spiked, 100, period=24, season="day", counted=False)
    assert isinstance(first, Verdict)
    assert isinstance(second, Verdict)
    assert abs(first.expected - second.expected) < 10
    assert second.spread < 2 * first.spread


def test_the_groups_of_an_anomaly_that_are_judged_are_those_whose_estimate_is_far() -> None:
    usual = [seasonal(24 * 7 + 1, 24, seed=seed) for seed in range(30)]
    far = {key: estimate(series[:-1], series[-1] or 0.0, period=24, counted=False) for key, series in enumerate(usual)}
    spike = estimate(usual[0][:-1], (usual[0][-1] or 0.0) + 60, period=24, counted=False)
    assert all(one is not None and spike is not None and one < spike for one in far.values())
    assert estimate(usual[0][:40], 1.0, period=24, counted=False) is None
    assert estimate([None] * 500, 1.0, period=24, counted=True) is None


def test_too_little_history_says_what_is_missing() -> None:
    for history in ([], [None] * 500, seasonal(71, 24, seed=1), [None] * 400 + seasonal(40, 24, seed=1)):
        found = judge(history, 1.0, period=24, season="day", counted=False)
        assert isinstance(found, TooLittle)
        assert "3 days" in found.explanation
    holes = [value if number % 2 else None for number, value in enumerate(seasonal(24 * 14, 24, seed=1))]
    found = judge(holes, 1.0, period=24, season="day", counted=False)
    assert isinstance(found, TooLittle)
    assert "has no value" in found.explanation


def test_gaps_are_filled_from_the_same_time_of_other_days() -> None:
    series = seasonal(24 * 14, 24, seed=3)
    gappy = [None if number % 11 == 0 and number > 0 else value for number, value in enumerate(series)]
    whole = judge(series, 100, period=24, season="day", counted=False)
    found = judge(gappy, 100, period=24, season="day", counted=False)
    assert isinstance(whole, Verdict)
    assert isinstance(found, Verdict)
    assert abs(whole.expected - found.expected) < 5


def test_what_never_changes_is_no_anomaly_by_a_hair_and_counts_scatter() -> None:
    flat: list[float | None] = [50.0] * 24 * 7
    hair = judge(flat, 50.5, period=24, season="day", counted=False)
    jump = judge(flat, 60.0, period=24, season="day", counted=False)
    counted = judge(flat, 60.0, period=24, season="day", counted=True)
    nothing = judge([0.0] * 24 * 7, 1.0, period=24, season="day", counted=True)
    assert all(isinstance(one, Verdict) for one in (hair, jump, counted, nothing))
    assert hair.deviations < 2 < jump.deviations  # type: ignore[union-attr]
    assert counted.deviations < 2  # type: ignore[union-attr]
    assert nothing.deviations <= 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("zone", "minutes", "off"),
    [("Europe/Berlin", 15, 8), ("America/St_Johns", 60, 2), ("Australia/Lord_Howe", 15, 4), ("UTC", 60, 0)],
)
def test_every_window_is_at_its_place_by_the_clock_but_where_clocks_are_changed(
    zone: str, minutes: int, off: int
) -> None:
    """Over a year: what is skipped is missing, what comes twice is the mean of both, and nothing else is elsewhere."""
    window, start = minutes * MINUTE, datetime(2026, 1, 1, tzinfo=UTC)
    judged = start + timedelta(days=365)
    times = [(start + number * window).timestamp() for number in range((judged - start) // window)]
    length = timedelta(days=360) // window
    found = by_local_time(times, start=start, window=window, zone=ZoneInfo(zone), judged=judged, length=length)
    last = judged.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    elsewhere = [
        value
        for place, value in enumerate(found)
        if value is None
        or datetime.fromtimestamp(value, ZoneInfo(zone)).replace(tzinfo=None) != last - (length - place) * window
    ]
    assert len(elsewhere) == off
    assert elsewhere.count(None) == off / 2


def test_a_season_follows_the_clock_when_it_is_changed() -> None:
    """Work from nine to five in New York, and no more at night: before and after clocks went back, in the hour that
    comes twice, and where clocks went forward."""
    zone, hour = ZoneInfo("America/New_York"), timedelta(hours=1)
    random = np.random.default_rng(7)

    def usual(at: datetime) -> float:
        return float((200 if 9 <= at.astimezone(zone).hour < 17 else 20) + random.normal(0, 3))

    def verdicts(judged: datetime, timezone: ZoneInfo) -> float:
        start = judged - timedelta(days=14, hours=3)
        history = [usual(start + number * hour) for number in range((judged - start) // hour)]
        series = by_local_time(history, start=start, window=hour, zone=timezone, judged=judged, length=14 * 24)
        found = judge(series, usual(judged), period=24, season="day", counted=False)
        assert isinstance(found, Verdict)
        return found.deviations

    back = datetime(2026, 11, 1, 6, tzinfo=UTC)  # from 02:00 to 01:00
    forward = datetime(2026, 3, 8, 7, tzinfo=UTC)  # from 02:00 to 03:00
    for moment in (back, forward):
        for hours in (-2, -1, 0, 1, 8, 15, 24 + 7):
            assert verdicts(moment + hours * hour, zone) < 5, (moment, hours)
    # At nine of the new time it is at work, where UTC lets expect the hour before, and the other way round.
    assert verdicts(forward + 6 * hour, zone) < 5 < verdicts(forward + 6 * hour, ZoneInfo("UTC"))
    assert verdicts(back + 15 * hour, zone) < 5 < verdicts(back + 15 * hour, ZoneInfo("UTC"))
