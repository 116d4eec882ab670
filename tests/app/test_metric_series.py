"""Series of metrics: by time in anybody's zone, by labels, beside the time before, and down to the rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.wiring import Program
from core import db
from core.ids import encode, new_id
from core.permissions import Permission, Role
from services.metrics import rollups
from services.sessions.lifecycle import NewSession, create_session
from tests.clients_of_graph import Client, Json, Refused
from tests.measuring import ROWS, Place, a_place, at, by_label, series, values

pytestmark = pytest.mark.anyio


@pytest.fixture
async def place(metric_database: Program) -> AsyncIterator[Place]:
    """On a server with TimescaleDB, and on one without it."""
    async with a_place(metric_database) as found:
        yield found


@pytest.fixture
async def plain_place(database: Program) -> AsyncIterator[Place]:
    """Where the kind of server makes no difference."""
    async with a_place(database) as found:
        yield found


async def put_ten_days(place: Place) -> None:
    """From 1 March 2026: on day n, n + 1 calls of `read` and one of each third day of `write`, which fails."""
    day = at("2026-03-01")
    calls = [
        {"at": day + timedelta(days=n, hours=h), "tool": "read", "duration_ms": 10.0 * (n + 1)}
        for n in range(10)
        for h in range(n + 1)
    ]
    calls += [
        {"at": day + timedelta(days=n, hours=1), "tool": "write", "outcome": "FAILED", "duration_ms": 1000.0}
        for n in range(0, 10, 3)
    ]
    await place.put("tool", *calls)
    while await rollups.roll():
        pass


TEN_DAYS: Json = {"start": "2026-03-01T00:00:00Z", "end": "2026-03-11T00:00:00Z"}


async def test_totals_are_the_sums_of_buckets_and_ratios_and_percentiles_are_of_the_whole_range(place: Place) -> None:
    await put_ten_days(place)
    admin = await place.client(Role.ADMIN)
    for bucket in ("HOUR", "DAY", "WEEK", "MONTH", None):
        calls = await series(admin, "tools.calls", **TEN_DAYS, bucket=bucket)
        [group] = calls["groups"]
        assert group["total"] == sum(values(group)) == 59, bucket
        assert (calls["rest"], calls["omittedGroups"]) == (None, 0)
    assert (calls["bucket"], calls["level"], calls["timezone"]) == ("DAY", "DAY", "UTC")
    rate = await series(admin, "tools.error_rate", **TEN_DAYS, bucket="DAY")
    [group] = rate["groups"]
    assert group["total"] == pytest.approx(4 / 59)
    assert values(group)[:3] == [0.5, 0, 0]
    assert group["total"] != pytest.approx(sum(values(group)) / 10)  # type: ignore[arg-type]
    p95 = await series(admin, "tools.duration_p95", **TEN_DAYS, bucket="DAY")
    [group] = p95["groups"]
    assert group["total"] == pytest.approx(1000, rel=0.05)
    assert values(group)[1] == pytest.approx(20, rel=0.05)


async def test_a_point_leads_to_the_rows_it_was_made_of(place: Place) -> None:
    await put_ten_days(place)
    admin = await place.client(Role.ADMIN)
    both = {"outcome": ["SUCCEEDED", "FAILED"]}
    for metric, asked in (
        ("tools.calls", {"group_by": ["tool"]}),
        ("tools.failed", {"group_by": ["tool"], "filter": both}),
        ("tools.failed", {"group_by": ["outcome"]}),
    ):
        answer = await series(admin, metric, **TEN_DAYS, bucket="DAY", **asked)
        for group in answer["groups"]:
            for point in group["points"]:
                rows = (await admin(ROWS, **point["rows"], first=1))["metricRows"]
                assert rows["totalCount"] == point["value"], (metric, group["labels"], point)
    answer = await series(admin, "tools.calls", **TEN_DAYS, bucket="MONTH", filter={"tool": ["read"]})
    [point] = answer["groups"][0]["points"]
    seen: list[str] = []
    after = None
    while True:
        page = (await admin(ROWS, **point["rows"], first=20, after=after))["metricRows"]
        seen += [row["at"] for row in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert len(seen) == point["value"] == 55
    assert seen == sorted(seen, reverse=True)
    row = page["nodes"][-1]
    assert {"dimension": "tool", "value": "read"} in row["labels"]
    assert {"name": "duration_ms", "value": 10} in row["measures"]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2025-10-26", 25),
        ("America/New_York", "2026-03-08", 23),
        ("America/New_York", "2025-11-02", 25),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("Asia/Kolkata", "2026-03-29", 24),
    ],
)
async def test_days_are_as_long_as_the_zone_has_them(place: Place, zone: str, day: str, hours: float) -> None:
    noon = at(f"{day}T12:00:00")
    first, last = noon - timedelta(days=2), noon + timedelta(days=2)
    minutes = int((last - first) / timedelta(minutes=30))
    await place.put("tool", *({"at": first + timedelta(minutes=30 * n)} for n in range(minutes)))
    while await rollups.roll():
        pass
    admin = await place.client(Role.ADMIN)
    answer = await series(
        admin, "tools.calls", start=first.isoformat(), end=last.isoformat(), bucket="DAY", timezone=zone
    )
    [group] = answer["groups"]
    assert group["total"] == sum(values(group)) == minutes
    lengths = {
        point["at"]: (datetime.fromisoformat(point["end"]) - datetime.fromisoformat(point["at"]))
        for point in group["points"]
    }
    assert timedelta(hours=hours) in lengths.values()
    for point in group["points"]:
        # A call every half hour: as many as the day has, the odd quarter aside.
        assert point["value"] == lengths[point["at"]] / timedelta(minutes=30)
    weeks = await series(
        admin, "tools.calls", start=first.isoformat(), end=last.isoformat(), bucket="WEEK", timezone=zone
    )
    months = await series(
        admin, "tools.calls", start=first.isoformat(), end=last.isoformat(), bucket="MONTH", timezone=zone
    )
    assert weeks["groups"][0]["total"] == months["groups"][0]["total"] == minutes


async def test_hours_of_a_zone_that_is_half_an_hour_off_begin_at_its_own(place: Place) -> None:
    begin = at("2026-03-10T18:30:00")  # midnight in Kolkata
    await place.put("tool", *({"at": begin + timedelta(minutes=20 * n)} for n in range(12)))
    while await rollups.roll():
        pass
    answer = await series(
        await place.client(Role.ADMIN),
        "tools.calls",
        start="2026-03-10T18:30:00Z",
        end="2026-03-10T22:30:00Z",
        bucket="HOUR",
        timezone="Asia/Kolkata",
    )
    [group] = answer["groups"]
    assert values(group) == [3, 3, 3, 3]
    assert group["points"][1]["at"] == "2026-03-10T19:30:00+00:00"


async def test_gaps_are_filled_as_asked_and_what_has_not_begun_stays_open(place: Place) -> None:
    admin = await place.client(Role.ADMIN)
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    await place.put("tool", {"at": hour - timedelta(hours=3), "duration_ms": 100.0})
    asked: Json = {
        "start": (hour - timedelta(hours=4)).isoformat(),
        "end": (hour + timedelta(hours=2)).isoformat(),
        "bucket": "HOUR",
    }
    [group] = (await series(admin, "tools.calls", **asked))["groups"]
    assert values(group) == [0, 1, 0, 0, 0, None]
    [group] = (await series(admin, "tools.calls", **asked, fill="NULL"))["groups"]
    assert values(group) == [None, 1, None, None, None, None]
    assert group["total"] == 1
    [group] = (await series(admin, "tools.duration_p50", **asked))["groups"]
    assert values(group)[2:] == [None] * 4
    [group] = (await series(admin, "tools.duration_p50", **asked, fill="PREVIOUS"))["groups"]
    assert values(group)[0] is None
    assert values(group)[1:5] == [values(group)[1]] * 4
    assert values(group)[5] is None
    [group] = (await series(admin, "runs.count", **asked))["groups"]
    assert (values(group), group["total"]) == ([0, 0, 0, 0, 0, None], 0)


async def test_the_greatest_groups_are_named_and_the_others_are_the_rest(place: Place) -> None:
    day = at("2026-03-01")
    await place.put(
        "tool",
        *(
            {"at": day + timedelta(hours=n % 48), "tool": f"tool{t:02}", "server": None}
            for t in range(30)
            for n in range(t + 1)
        ),
    )
    while await rollups.roll():
        pass
    admin = await place.client(Role.ADMIN)
    asked: Json = {
        "start": "2026-03-01T00:00:00Z",
        "end": "2026-03-03T00:00:00Z",
        "bucket": "DAY",
        "group_by": ["tool"],
    }
    answer = await series(admin, "tools.calls", **asked, top=3)
    assert [group["labels"][0]["value"] for group in answer["groups"]] == ["tool29", "tool28", "tool27"]
    assert [group["total"] for group in answer["groups"]] == [30, 29, 28]
    assert answer["rest"]["total"] == sum(range(1, 28))
    assert answer["rest"]["points"][0]["rows"] is None
    [whole] = (await series(admin, "tools.calls", **{**asked, "group_by": []}))["groups"]
    of_groups = [sum(parts) for parts in zip(*(values(g) for g in [*answer["groups"], answer["rest"]]), strict=True)]
    assert of_groups == values(whole)
    assert len((await series(admin, "tools.calls", **asked))["groups"]) == 10
    everything = await series(admin, "tools.calls", **asked, top=50)
    assert len(everything["groups"]) == 30
    assert everything["rest"] is None
    percentiles = await series(admin, "tools.duration_p95", **asked, top=2)
    assert set(by_label(percentiles)) == {"tool29", "tool28"}
    assert percentiles["rest"]["total"] == pytest.approx(10, rel=0.05)
    none = by_label(await series(admin, "tools.calls", **{**asked, "group_by": ["server"]}))
    rows = (await admin(ROWS, **none[None]["points"][0]["rows"]))["metricRows"]
    assert rows["totalCount"] == none[None]["points"][0]["value"]


async def test_a_range_is_compared_with_the_one_before_bucket_by_bucket(place: Place) -> None:
    await put_ten_days(place)
    admin = await place.client(Role.ADMIN)
    asked: Json = {"start": "2026-03-06T00:00:00Z", "end": "2026-03-11T00:00:00Z", "bucket": "DAY"}
    answer = await series(admin, "tools.calls", **asked, compare="PREVIOUS_PERIOD")
    assert (answer["previousFrom"], answer["previousTo"]) == ("2026-03-01T00:00:00+00:00", "2026-03-06T00:00:00+00:00")
    [group] = answer["groups"]
    assert [(point["value"], point["previous"]) for point in group["points"]] == [
        (6, 2),
        (8, 2),
        (8, 3),
        (9, 5),
        (11, 5),
    ]
    assert (group["total"], group["previousTotal"]) == (42, 17)
    groups = by_label(await series(admin, "tools.calls", **asked, compare="PREVIOUS_PERIOD", group_by=["tool"], top=1))
    assert groups["read"]["previousTotal"] == 15
    alone = await series(admin, "tools.calls", **asked, compare="PREVIOUS_PERIOD", group_by=["tool"], top=1)
    assert (alone["rest"]["total"], alone["rest"]["previousTotal"]) == (2, 2)
    rate = await series(admin, "tools.error_rate", **asked, compare="PREVIOUS_PERIOD")
    assert rate["groups"][0]["previousTotal"] == pytest.approx(2 / 17)
    months = await series(
        admin,
        "tools.calls",
        start="2026-03-01T00:00:00Z",
        end="2026-04-01T00:00:00Z",
        bucket="MONTH",
        compare="PREVIOUS_PERIOD",
        timezone="Europe/Berlin",
    )
    assert months["previousFrom"] == "2026-01-01T00:00:00+00:00" or months["previousTo"] == months["from"]


@pytest.mark.parametrize(
    ("name", "bucket", "points"),
    [("LAST_HOUR", "MINUTE", 60), ("LAST_24_HOURS", "FIFTEEN_MINUTES", None), ("LAST_7_DAYS", "DAY", 7),
     ("LAST_30_DAYS", "DAY", 30), ("LAST_90_DAYS", "DAY", 90), ("TODAY", None, None), ("THIS_MONTH", None, None)],
)  # fmt: skip
async def test_a_named_range_has_full_buckets_up_to_now(
    plain_place: Place, name: str, bucket: str | None, points: int | None
) -> None:
    admin = await plain_place.client(Role.ADMIN)
    await plain_place.put("run", {"at": datetime.now(UTC) - timedelta(seconds=1)})
    answer = await series(admin, "runs.count", range=name, timezone="Europe/Berlin")
    [group] = answer["groups"]
    assert group["total"] == 1
    assert values(group)[-1] == 1
    assert bucket is None or answer["bucket"] == bucket
    assert points is None or len(group["points"]) == points


@pytest.mark.parametrize(
    ("asked", "field", "said"),
    [
        ({"metric": "tools.call"}, "metric", "tools.calls"),
        ({"group_by": ["tol"]}, "groupBy", "tool"),
        ({"filter": {"modell": ["x"]}}, "filter", "model"),
        ({"timezone": "Europe/Berln"}, "timezone", "Europe/Berlin"),
        ({"timezone": "../../etc/passwd"}, "timezone", "no IANA"),
        ({"start": "1901-01-01T00:00:00Z"}, "from", "3,660"),
        ({"start": "2026-03-12T00:00:00Z"}, "to", "later"),
        ({"start": "2025-04-01T00:00:00Z", "bucket": "MINUTE"}, "bucket", "points"),
        ({"top": 51, "group_by": ["tool"]}, "top", "50"),
        ({"top": 0, "group_by": ["tool"]}, "top", "50"),
        ({"group_by": ["tool", "tool"]}, "groupBy", "different"),
        ({"group_by": ["tool", "model", "server", "runtime"]}, "groupBy", "3"),
        ({"filter": {"tool": []}}, "filter", "1 to 100"),
        ({"filter": {"tool": ["x" * 500]}}, "filter", "400"),
        ({"filter": {"user": ["nonsense"]}}, "filter", "not an id"),
        (
            {"filter": [{"dimension": "tool", "values": ["a"]}, {"dimension": "tool", "values": ["b"]}]},
            "filter",
            "once",
        ),
        ({"range": "TODAY"}, "range", "either"),
        ({"start": None, "end": None}, "from", "range"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_what_to_do(
    plain_place: Place, asked: dict[str, Any], field: str, said: str
) -> None:
    admin = await plain_place.client(Role.ADMIN)
    refused = await refusal(admin, **TEN_DAYS | asked)
    assert refused["code"] in ("BAD_INPUT", "NOT_FOUND")
    assert refused["field"] == field
    assert said in refused["message"]


async def test_all_that_is_wrong_is_said_at_once_and_too_many_points_with_the_bucket_that_would_do(
    plain_place: Place,
) -> None:
    admin = await plain_place.client(Role.ADMIN)
    refused = await refusal(admin, metric="tools.cals", timezone="Mars", group_by=["x"], start=None, end=None)
    assert [each["field"] for each in refused["fields"]] == ["metric", "timezone", "from"]
    refused = await refusal(admin, start="2025-04-01T00:00:00Z", end="2026-04-01T00:00:00Z", bucket="MINUTE")
    assert (refused["points"], refused["suggestedBucket"]) == (525_600, "DAY")
    refused = await refusal(
        admin, start="2026-03-01T00:00:00Z", end="2026-03-02T00:00:00Z", bucket="MINUTE", group_by=["tool"], top=50
    )
    assert refused["field"] == "top"
    week = datetime.now(UTC) - timedelta(days=800)
    refused = await refusal(admin, start=week.isoformat(), end=(week + timedelta(hours=5)).isoformat(), bucket="MINUTE")
    assert refused["field"] == "bucket"
    assert refused["keptDays"] > 0


async def test_words_of_sql_are_values_like_others(plain_place: Place) -> None:
    admin = await plain_place.client(Role.ADMIN)
    evil = "x'); DROP TABLE tool_facts; --"
    await plain_place.put("tool", {"at": at("2026-03-02"), "tool": evil})
    answer = await series(admin, "tools.calls", **TEN_DAYS, filter={"tool": [evil]}, group_by=["tool"])
    assert answer["groups"][0]["total"] == 1
    assert answer["groups"][0]["labels"][0]["value"] == evil


async def test_members_see_their_own_figures_and_strangers_none(plain_place: Place) -> None:
    place = plain_place
    member, viewer = (place.house.users[role]["id"] for role in (Role.MEMBER, Role.VIEWER))
    session = (await create_session(place.house.actor(Role.VIEWER), NewSession()))["id"]
    await place.put(
        "tool",
        {"at": at("2026-03-02"), "user_id": member},
        {"at": at("2026-03-02"), "user_id": viewer, "session_id": session},
        {"at": at("2026-03-02"), "user_id": None, "source": "OTLP"},
        {"at": at("2026-03-02"), "user_id": member, "session_id": session},
    )
    await place.put("tool", {"at": at("2026-03-02")}, organization=new_id())
    totals = {}
    rows = {}
    for role in Role:
        client = await place.client(role)
        totals[role] = (await series(client, "tools.calls", **TEN_DAYS))["groups"][0]["total"]
        page = await client(ROWS, fact="tool", **{"from": TEN_DAYS["start"], "to": TEN_DAYS["end"]})
        rows[role] = page["metricRows"]["totalCount"]
    assert totals == {Role.OWNER: 4, Role.ADMIN: 4, Role.MEMBER: 2, Role.VIEWER: 1}
    # A row in a session that one may not see is not listed, even where one's own run is behind it.
    assert rows == {Role.OWNER: 4, Role.ADMIN: 4, Role.MEMBER: 1, Role.VIEWER: 1}
    limited = await place.client(Role.ADMIN, Permission.SESSIONS_READ)
    assert (await refusal(limited, **TEN_DAYS))["code"] == "FORBIDDEN"


async def test_rows_lead_to_the_session_the_run_and_the_tool_execution(plain_place: Place) -> None:
    place = plain_place
    member = place.house.actor(Role.MEMBER)
    session = (await create_session(member, NewSession()))["id"]
    run, tool, organization = new_id(), new_id(), place.house.organization_id
    await db.execute(
        "INSERT INTO runs (id, organization_id, session_id, number, status, segment, started_by_id, queued_at, "
        "request_count) VALUES ($1, $2, $3, 1, 'FINISHED', 1, $4, now(), 0)",
        run,
        organization,
        session,
        member.user_id,
    )
    await db.execute(
        "INSERT INTO tool_executions (id, organization_id, session_id, run_id, seq, call_id, tool, arguments, status, "
        "truncated, created_at) VALUES ($1, $2, $3, $4, 1, 'c', 'read', '{}', 'SUCCEEDED', false, now())",
        tool,
        organization,
        session,
        run,
    )
    await place.put(
        "tool", {"at": datetime.now(UTC), "id": tool, "run_id": run, "session_id": session, "user_id": member.user_id}
    )
    client = await place.client(Role.MEMBER)
    answer = await series(client, "tools.calls", range="LAST_7_DAYS", group_by=["session"])
    [group] = answer["groups"]
    assert group["labels"][0]["value"] == encode("ses", session)
    page = (await client(ROWS, **group["points"][-1]["rows"]))["metricRows"]
    [row] = page["nodes"]
    assert row["session"]["id"] == encode("ses", session)
    assert row["run"] == {"id": encode("run", run), "number": 1}
    assert row["toolExecution"] == {"id": encode("tex", tool), "tool": "read"}
    for asked, field in (({"fact": "nonsense"}, "fact"), ({"filter": [{"dimension": "x", "values": ["y"]}]}, "filter")):
        given = {"fact": "tool", "from": TEN_DAYS["start"], "to": TEN_DAYS["end"]} | asked
        assert (await client.refused(ROWS, **given)).extensions["field"] == field


async def test_metrics_say_what_there_is(plain_place: Place) -> None:
    client = await plain_place.client(Role.VIEWER)
    found = (
        await client("{ metrics { name title description unit kind dimensions fact levels { level keptDays } } }")
    )["metrics"]
    by_name = {metric["name"]: metric for metric in found}
    assert list(by_name) == sorted(by_name)
    assert {"tools.calls", "runs.error_rate", "tools.duration_p95", "cost.usd"} <= by_name.keys()
    assert "tool" in by_name["tools.calls"]["dimensions"]
    assert [level["level"] for level in by_name["tools.calls"]["levels"]] == ["RAW", "MINUTE", "HOUR", "DAY"]
    for metric in found:
        assert (await series(client, metric["name"], range="LAST_7_DAYS"))["metric"]["unit"] == metric["unit"]
    # One of each kind of facts, by all that it says it can be grouped by.
    for metric in {metric["fact"]: metric for metric in found}.values():
        for dimension in metric["dimensions"]:
            await series(client, metric["name"], range="LAST_7_DAYS", group_by=[dimension])


async def refusal(client: Client, **asked: Any) -> Json:
    """The first error's extensions, with its message."""
    try:
        answer = await series(client, asked.pop("metric", "tools.calls"), **asked)
    except Refused as refused:
        return refused.extensions | {"message": refused.message}
    raise AssertionError(f"this should have been refused, and gave {answer}")
