"""What is kept of metrics, and what would go: said by the graph, and true of the tables."""

from __future__ import annotations

import base64
import logging
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from app.wiring import Program
from core import db
from core.permissions import Role
from services.metrics import retention, rollups
from tests.clients_of_graph import Client, Json, Refused
from tests.measuring import Place, a_place, series

pytestmark = pytest.mark.anyio

RETENTION = """
{ metricRetention { fact level keptDays setting since droppedBefore rows bytes chunks compressedChunks compresses
  uncounted wouldGo { table before rows chunks first last } } }
"""


@pytest.fixture
async def place(metric_database: Program) -> AsyncIterator[Place]:
    """On a server with TimescaleDB, and on one without it."""
    async with a_place(metric_database) as found:
        yield found


async def retention_of(client: Client, fact: str = "tool") -> dict[str, Json]:
    """By level."""
    rows = (await client(RETENTION))["metricRetention"]
    assert len(rows) == 6 * 4
    return {row["level"]: row for row in rows if row["fact"] == fact}


async def test_what_is_kept_since_when_and_what_would_go_is_what_the_tables_have(
    place: Place, metric_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await place.client(Role.ADMIN)
    assert (await retention_of(admin))["RAW"]["rows"] == 0
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [midnight - timedelta(days=ago) for ago in (390, 60, 3)]
    await place.put("tool", *({"at": day} for day in days))
    await place.put("tool", {"at": days[0] - timedelta(days=1)}, organization=uuid4())
    while await rollups.roll():
        pass
    # Else what was inserted may be added once more to what ANALYZE finds.
    await db.execute("SELECT pg_stat_force_next_flush()")
    connection = await asyncpg.connect(metric_url)
    await connection.execute("ANALYZE tool_facts, tool_minutes, tool_hours, tool_days")
    await connection.close()

    found = await retention_of(admin)
    assert [(found[level]["keptDays"], found[level]["setting"]) for level in ("RAW", "MINUTE", "HOUR", "DAY")] == [
        (90, "QUARTERDECK_METRICS_RAW_DAYS"),
        (30, "QUARTERDECK_METRICS_MINUTE_DAYS"),
        (400, "QUARTERDECK_METRICS_HOUR_DAYS"),
        (None, "QUARTERDECK_METRICS_DAY_DAYS"),
    ]
    hyper = await db.fetchval("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')")
    for level, one in found.items():
        table = "tool_facts" if level == "RAW" else f"tool_{level.lower()}s"
        assert one["rows"] == await db.fetchval(f"SELECT count(*) FROM {table}")
        assert one["bytes"] >= 16_384
        assert datetime.fromisoformat(one["since"]) == days[0], "of one's own organisation"
        assert one["droppedBefore"] is None
        plain = not hyper or level == "DAY"
        assert (one["chunks"] is None, one["compressedChunks"]) == (plain, None if plain else 0)
        assert one["compresses"] is False
    [raw], [minutes] = found["RAW"]["wouldGo"], found["MINUTE"]["wouldGo"]
    assert (raw["table"], raw["rows"], minutes["table"]) == ("tool_facts", 2, "tool_minutes")
    assert datetime.fromisoformat(raw["last"]) == days[0]
    assert datetime.fromisoformat(raw["before"]) <= midnight - timedelta(days=90)
    assert raw["chunks"] == (found["RAW"]["chunks"] - 2 if hyper else None)
    assert found["HOUR"]["wouldGo"] == found["DAY"]["wouldGo"] == []
    assert await db.fetchval("SELECT count(*) FROM tool_facts") == 4, "nothing was dropped"

    await retention.drop_old()
    after = await retention_of(admin)
    assert after["RAW"]["droppedBefore"] == raw["before"]
    assert datetime.fromisoformat(after["RAW"]["since"]) == days[1]
    assert datetime.fromisoformat(after["HOUR"]["since"]) == days[0]
    assert after["RAW"]["wouldGo"] == []
    await _nothing_is_missing_without_a_word(admin, days, midnight, raw["before"])
    # No label is as long as this one's, which fits no index: it cannot be counted, and holds nobody else up.
    name = base64.b64encode(random.Random(1).randbytes(30_000)).decode()
    await place.put("tool", *({"at": midnight, "tool": tool} for tool in ("a", name, "b")))
    await place.put("tool", {"at": midnight}, organization=(other := uuid4()))
    with caplog.at_level(logging.ERROR):
        assert [await rollups.roll(), await rollups.roll()] == [4, 0]
    assert "metric_set_aside" in caplog.text
    told = await retention_of(admin)
    assert [told[level]["uncounted"] for level in ("RAW", "MINUTE", "HOUR", "DAY")] == [0, 1, 1, 1]
    calls = "SELECT sum(calls) FROM tool_days WHERE dimensions = '' AND at = $1 AND organization_id = $2"
    assert [await db.fetchval(calls, midnight, of) for of in (place.house.organization_id, other)] == [2, 1]
    aside = await db.fetchrow("SELECT * FROM metric_set_aside")
    assert (aside["fact"]["tool"], "index" in aside["reason"]) == (name, True)
    # More of them than a round looks for: each round comes to some.
    monkeypatch.setattr(rollups, "MOST_FAILURES", 4)
    await place.put("tool", *({"at": midnight, "tool": name} for _ in range(5)), {"at": midnight})
    while await rollups.roll():
        pass
    assert (await retention_of(admin))["DAY"]["uncounted"] == 6
    assert await db.fetchval(calls, midnight, place.house.organization_id) == 3

    member = await place.client(Role.MEMBER)
    assert (await member.refused(RETENTION)).codes == ["FORBIDDEN"]


async def _nothing_is_missing_without_a_word(
    admin: Client, days: list[datetime], midnight: datetime, dropped: str
) -> None:
    long: Json = {"start": (days[0] - timedelta(days=5)).isoformat(), "end": midnight.isoformat(), "bucket": "DAY"}
    answer = await series(admin, "tools.calls", **long)
    assert [group["total"] for group in answer["groups"]] == [3.0]
    recent = long | {"start": (midnight - timedelta(days=85)).isoformat()}
    assert (await series(admin, "tools.calls", **recent, group_by=["runtime"]))["groups"][0]["total"] == 2.0
    for asked in (
        long | {"group_by": ["runtime"]},
        long | {"filter": {"runtime": ["pydantic_ai"]}},
        long | {"timezone": "Asia/Kolkata"},
        # Whole chunks go: of the 200 days before these, some are gone on both kinds of database.
        long
        | {
            "start": (midnight - timedelta(days=200)).isoformat(),
            "group_by": ["runtime"],
            "compare": "PREVIOUS_PERIOD",
        },
    ):
        with pytest.raises(Refused, match="is kept from") as refused:
            await series(admin, "tools.calls", **asked)
        assert refused.value.extensions["code"] == "BAD_INPUT"
        assert datetime.fromisoformat(refused.value.extensions["keptSince"]) == datetime.fromisoformat(dropped)
