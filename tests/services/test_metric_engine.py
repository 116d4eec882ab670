"""Figures are the same from whatever level they are read, at any moment, with TimescaleDB and without it."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from core import db
from core.errors import BadInput
from services.metrics import rollups
from services.metrics.calendar import BUCKETS, BucketName, edges, zone_of
from services.metrics.definitions import METRICS
from services.metrics.engine import REST, MetricPoint, MetricScope, read, value
from services.metrics.families import FAMILIES, Level, middle_of
from services.metrics.store import store

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("metric_database")]

START = datetime(2026, 3, 24, tzinfo=UTC)
"""With the days of five and 23 hours: Europe/Berlin moves its clocks on 29 March."""
DAYS = 9


def tool_facts(organization_id: UUID, count: int, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    users = [UUID(int=number + 1) for number in range(4)]
    return [
        {
            "at": START + timedelta(seconds=rng.randrange(86_400 * DAYS * 1000) / 1000),
            "organization_id": organization_id,
            "id": uuid4(),
            "source": "QUARTERDECK",
            "user_id": rng.choice(users),
            "tool": rng.choice(["read", "write", "git.log"]),
            "server": rng.choice([None, "git"]),
            "outcome": rng.choice(["SUCCEEDED", "SUCCEEDED", "FAILED", "DENIED"]),
            "duration_ms": rng.choice([None, float(int(rng.lognormvariate(4, 2)))]),
        }
        for _ in range(count)
    ]


async def stored(facts: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, int]:
    async with db.transaction() as tx:
        return await store(tx, facts)


async def rolled() -> None:
    while await rollups.roll():
        pass


def percentile(durations: Sequence[float], quantile: float) -> float:
    return sorted(durations)[max(math.ceil(quantile * len(durations)) - 1, 0)]


async def test_sums_stop_at_the_largest_number_and_hold_up_nobody() -> None:
    vast, other = MetricScope(uuid4()), MetricScope(uuid4())
    asked: Any = {"start": START, "end": START + timedelta(days=1)}

    async def used(scope: MetricScope, *tokens: int) -> None:
        common = {"organization_id": scope.organization_id, "source": "OTLP", "requests": 1, "model": "m"}
        hours = [START + timedelta(hours=number) for number in range(len(tokens))]
        facts = [common | {"at": at, "id": uuid4(), "input_tokens": of} for at, of in zip(hours, tokens, strict=True)]
        await stored({"usage_facts": facts})
        await rolled()

    for _ in range(3):
        await used(vast, *[2**63 - 1] * 3)
    await used(other, 7)
    await used(other, 8)
    assert await value(vast, "tokens.input", **asked) == float(2**63 - 1), "of the day, though each hour has as much"
    assert await value(vast, "tokens.total", **asked) == float(2**63 - 1)
    assert await value(vast, "tokens.output", **asked) is None, "what nobody says stays unsaid"
    assert await value(other, "tokens.input", **asked) == 15
    assert await db.fetchval("SELECT count(*) FROM usage_pending") == 0


async def test_buckets_of_every_level_and_zone_hold_what_the_facts_say_while_they_are_being_counted() -> None:
    scope = MetricScope(uuid4())
    facts = tool_facts(scope.organization_id, 3000, 1)
    rng = random.Random(7)
    levels = set()
    for part in range(3):
        await stored({"tool_facts": facts[part * 1000 : part * 1000 + 1000]})
        if part < 2:
            await rollups.roll(batch=700)  # the rest stays in line, and late facts come to counted buckets
    for name, zone, groups in (
        (BucketName.MINUTE, "UTC", [(), ("tool",)]),
        (BucketName.HOUR, "Asia/Kolkata", [("tool",), ("user", "tool")]),
        (BucketName.HOUR, "UTC", [(), ("user", "tool")]),
        (BucketName.DAY, "Europe/Berlin", [(), ("user", "tool")]),
        (BucketName.DAY, "UTC", [("user",), ("server", "outcome")]),
        (BucketName.WEEK, "UTC", [()]),
        (BucketName.MONTH, "America/New_York", [("tool",)]),
    ):
        for group_by in groups:
            start = START + timedelta(seconds=rng.randrange(86_400))
            end = START + timedelta(days=DAYS) - timedelta(seconds=rng.randrange(86_400))
            if name is BucketName.MINUTE:
                end = start + timedelta(hours=10)
            inside = [fact for fact in facts if start <= fact["at"] < end]
            cuts = edges(start, end, BUCKETS[name], zone_of(zone))
            expected: dict[tuple[Any, ...], int] = {}
            for fact in inside:
                at = max(edge for edge in cuts if edge <= fact["at"])
                labels = tuple(
                    str(fact["user_id"]) if dimension == "user" else fact[dimension] for dimension in group_by
                )
                expected[(at, labels)] = expected.get((at, labels), 0) + 1
            found = await read(
                scope,
                "tools.calls",
                start=start,
                end=end,
                bucket=BUCKETS[name],
                timezone=zone,
                group_by=group_by,
            )
            levels.add(found.level)
            assert {(row.at, row.labels): row.value for row in found.rows} == expected
            assert all(row.count == row.value for row in found.rows)
    assert levels == set(Level)


@pytest.mark.parametrize("metric", ["tools.duration_p50", "tools.duration_p95", "tools.duration_p99"])
async def test_percentiles_are_the_same_from_every_level_and_within_five_per_cent(metric: str) -> None:
    scope = MetricScope(uuid4())
    facts = tool_facts(scope.organization_id, 2000, 2)
    await stored({"tool_facts": facts})
    end = START + timedelta(days=DAYS)
    before = [await value(scope, metric, start=START, end=end), await read(scope, metric, start=START, end=end)]
    await rolled()
    counted = [await value(scope, metric, start=START, end=end), await read(scope, metric, start=START, end=end)]
    assert counted == before
    # By server and outcome no level has it: facts are read.
    raw = await read(
        scope,
        metric,
        start=START,
        end=end,
        filter={"server": [None, "git"], "outcome": ["SUCCEEDED", "FAILED", "DENIED"]},
    )
    assert raw.level is Level.RAW
    assert raw.rows[0].value == counted[0]
    durations = [fact["duration_ms"] for fact in facts if fact["duration_ms"] is not None]
    exact = percentile(durations, METRICS[metric].quantile or 0)
    assert counted[0] == pytest.approx(exact, rel=0.05)


async def test_figures_by_time_come_with_those_of_the_whole_range_and_are_what_the_facts_say_one_by_one() -> None:
    scope = MetricScope(uuid4())
    await stored({"tool_facts": tool_facts(scope.organization_id, 2000, 9)})
    # Neither begin nor end are edges: minutes and facts are read at both ends.
    start = START + timedelta(hours=5, minutes=7, seconds=3)
    end = START + timedelta(days=DAYS, minutes=-131, seconds=-1)
    everything: Any = {"server": [None, "git"], "outcome": ["SUCCEEDED", "FAILED", "DENIED"]}
    for part in range(3):
        for metric, zone, name, group_by, top in (
            ("tools.duration_p95", "UTC", BucketName.DAY, (), None),
            ("tools.duration_p95", "UTC", BucketName.HOUR, ("tool",), None),
            ("tools.duration_p50", "Europe/Berlin", BucketName.DAY, ("tool",), None),
            ("tools.duration_p50", "UTC", BucketName.DAY, ("tool",), 1),
            ("tools.error_rate", "UTC", BucketName.HOUR, ("tool",), 2),
            ("tools.calls", "UTC", BucketName.DAY, ("tool",), 2),
        ):
            asked: Any = {"start": start, "end": end, "timezone": zone, "group_by": group_by, "top": top}
            found = await read(scope, metric, **asked, bucket=BUCKETS[name], whole=True)
            raw = await read(scope, metric, **asked, bucket=BUCKETS[name], whole=True, filter=everything)
            assert raw.level is Level.RAW
            assert found.level is not Level.RAW
            assert found.rows == raw.rows
            alone = await read(scope, metric, **asked)
            assert by_labels(found.whole) == by_labels(raw.whole) == by_labels(alone.rows)
            assert by_labels((await read(scope, metric, **asked, whole=True)).whole) == by_labels(alone.rows)
        # First nothing of it is counted, then some, then all.
        await rollups.roll(batch=900)
        if part == 1:
            await rolled()


def by_labels(points: Sequence[MetricPoint]) -> dict[Any, tuple[Any, ...]]:
    return {point.labels: (point.at, point.value, point.count) for point in points}


async def test_no_duration_is_further_than_five_per_cent_from_the_middle_of_its_bin() -> None:
    for step in range(-40, 300):
        milliseconds = 1.1 ** (step / 2)
        bin_ = math.floor(math.log(milliseconds) / math.log(1.1) + 1e-9) + 64
        assert middle_of(bin_) == pytest.approx(milliseconds, rel=0.05)


async def test_what_comes_twice_is_counted_once_and_numbers_that_are_none_are_left_out() -> None:
    scope = MetricScope(uuid4())
    facts = tool_facts(scope.organization_id, 50, 3)
    assert await stored({"tool_facts": facts + facts[:10]}) == {"tool_facts": 50}
    await rolled()
    bad = [facts[0] | {"id": uuid4(), "duration_ms": number} for number in (math.nan, math.inf, -math.inf, -1.0)] + [
        facts[0] | {"id": uuid4(), "duration_ms": 2**70}
    ]
    assert await stored({"tool_facts": [*facts, *bad]}) == {"tool_facts": 0}
    await rolled()
    assert await value(scope, "tools.calls", start=START, end=START + timedelta(days=DAYS)) == 50


async def test_the_first_groups_are_those_of_the_whole_range_and_the_rest_is_put_together() -> None:
    scope = MetricScope(uuid4())
    facts = tool_facts(scope.organization_id, 600, 4)
    for place, fact in enumerate(facts):
        fact["tool"] = f"tool{min(place % 20, place % 7)}"
    await stored({"tool_facts": facts})
    end = START + timedelta(days=DAYS)
    asked: Any = {"start": START, "end": end, "group_by": ("tool",), "top": 2}
    whole = await read(scope, "tools.calls", **asked)
    days = await read(scope, "tools.calls", **asked, bucket=BUCKETS[BucketName.DAY])
    assert len(whole.rows) == 3
    assert {row.labels for row in days.rows} == {row.labels for row in whole.rows}
    assert (REST,) in {row.labels for row in whole.rows}
    assert sum(row.value or 0 for row in whole.rows) == 600
    for row in whole.rows:
        assert sum(day.value or 0 for day in days.rows if day.labels == row.labels) == row.value
    durations = await read(scope, "tools.duration_p95", **asked)
    assert len(durations.rows) == 3


async def test_tokens_that_nobody_told_stay_unknown_and_costs_are_exact() -> None:
    scope = MetricScope(uuid4())
    use = {
        "at": START,
        "organization_id": scope.organization_id,
        "source": "OTLP",
        "model": "m",
        "requests": 1,
    }
    await stored(
        {
            "usage_facts": [
                use | {"id": uuid4(), "input_tokens": 3, "cost_usd": Decimal("0.1")},
                use | {"id": uuid4(), "input_tokens": 4, "cost_usd": Decimal("0.2")},
                use | {"id": uuid4(), "model": "unsaid"},
            ]
        }
    )
    asked: Any = {"start": START, "end": START + timedelta(hours=1)}
    for _ in range(2):
        assert await value(scope, "tokens.total", **asked) == 7
        assert await value(scope, "tokens.output", **asked) is None
        assert await value(scope, "cost.usd", **asked) == 0.3
        assert await value(scope, "cost.usd", **asked, filter={"model": ["unsaid"]}) is None
        assert await value(scope, "tokens.per_second", **asked) == 7 / 3600
        assert await value(scope, "cost.per_hour", **asked) == 0.3
        await rolled()


async def test_users_read_their_own_facts_and_nobody_those_of_another_organisation() -> None:
    organization_id = uuid4()
    facts = tool_facts(organization_id, 200, 5)
    await stored({"tool_facts": facts})
    asked: Any = {"start": START, "end": START + timedelta(days=DAYS)}
    somebody = facts[0]["user_id"]
    own = sum(fact["user_id"] == somebody for fact in facts)
    for _ in range(2):
        assert await value(MetricScope(organization_id, [somebody]), "tools.calls", **asked) == own
        others = {"user": [str(fact["user_id"]) for fact in facts if fact["user_id"] != somebody]}
        assert await value(MetricScope(organization_id, [somebody]), "tools.calls", **asked, filter=others) == 0
        assert await value(MetricScope(organization_id, []), "tools.calls", **asked) == 0
        assert await value(MetricScope(uuid4()), "tools.calls", **asked) == 0
        await rolled()


async def test_every_metric_can_be_grouped_and_filtered_by_each_of_its_dimensions() -> None:
    scope = MetricScope(uuid4())
    asked: Any = {"start": START, "end": START + timedelta(days=3), "bucket": BUCKETS[BucketName.DAY]}
    for name, metric in METRICS.items():
        for dimension in metric.dimensions:
            found = await read(scope, name, **asked, group_by=(dimension,), top=3)
            assert found.rows == []
            evil = {dimension: ["'; DROP TABLE tool_facts; --", "no uuid", None, str(uuid4())]}
            assert (await read(scope, name, **asked, filter=evil)).rows == []
    assert set(FAMILIES) == {metric.family.name for metric in METRICS.values()}


async def test_questions_that_make_no_sense_are_refused_with_what_there_is() -> None:
    scope = MetricScope(uuid4())
    asked: Any = {"start": START, "end": START + timedelta(days=1)}
    with pytest.raises(BadInput, match=r"Did you mean tools\.calls"):
        await read(scope, "tool.calls", **asked)
    with pytest.raises(BadInput, match="no dimension 'role'; it has error, model") as refused:
        await read(scope, "tools.calls", **asked, filter={"role": ["x"]}, group_by=("1; DROP TABLE runs",))
    assert [problem["field"] for problem in refused.value.details["fields"]] == ["filter", "groupBy"]
    with pytest.raises(BadInput, match="later than its start"):
        await read(scope, "tools.calls", start=START, end=START)
    with pytest.raises(BadInput, match="Take a wider bucket"):
        await read(
            scope,
            "tools.calls",
            start=START,
            end=START + timedelta(days=36_500),
            bucket=BUCKETS[BucketName.MINUTE],
        )


async def test_gauges_are_averages_of_samples_added_up_over_hosts() -> None:
    scope = MetricScope(uuid4())
    sample = {"organization_id": scope.organization_id, "source": "QUARTERDECK", "resource": "sockets"}
    await stored(
        {
            "resource_facts": [
                sample
                | {"id": uuid4(), "at": START + timedelta(seconds=15 * tick), "host": host, "value": float(open_)}
                for tick in range(8)
                for host, open_ in (("a", 2 + tick % 2 * 2), ("b", 10))
            ]
        }
    )
    for _ in range(2):
        assert await value(scope, "sockets.open", start=START, end=START + timedelta(minutes=2)) == 13
        await rolled()
