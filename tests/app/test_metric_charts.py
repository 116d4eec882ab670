"""Charts of series: specifications that programs draw, and the page that draws them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.wiring import Program
from core.permissions import Permission, Role
from integrations import charts
from tests.clients_of_graph import Client, Json
from tests.measuring import Place, a_place, at, series, values

pytestmark = pytest.mark.anyio

DAYS = {"start": "2026-03-02T00:00:00Z", "end": "2026-03-05T00:00:00Z"}
CHART = """
query ($metric: String!, $groupBy: [String!], $kind: ChartKind! = AUTO, $zone: String! = "UTC",
    $compare: MetricCompare! = NONE, $bucket: MetricBucket) {
  metricChart(metric: $metric, groupBy: $groupBy, kind: $kind, timezone: $zone, compare: $compare, bucket: $bucket,
    from: "2026-03-02T00:00:00Z", to: "2026-03-05T00:00:00Z")
}
"""


@pytest.fixture
async def place(database: Program) -> AsyncIterator[Place]:
    async with a_place(database) as found:
        await found.put(
            "tool",
            *({"at": at("2026-03-02") + timedelta(hours=n), "tool": f"tool {n % 12:02}"} for n in range(60)),
            *({"at": datetime.now(UTC) - timedelta(minutes=n), "tool": "now"} for n in range(5)),
        )
        yield found


async def chart(client: Client, metric: str, **asked: Any) -> Json:
    return (await client(CHART, metric=metric, **asked))["metricChart"]  # type: ignore[no-any-return]


async def test_the_specification_has_the_series_and_is_drawn(place: Place) -> None:
    admin = await place.client(Role.ADMIN)
    spec = await chart(admin, "tools.calls", bucket="DAY", groupBy=["tool"], zone="Europe/Berlin")
    assert spec["$schema"].endswith("v5.json")
    assert sum(value["value"] or 0 for value in spec["data"]["values"]) == 60
    assert "Others" in {value["group"] for value in spec["data"]["values"]}
    # Columns stand on each other, whatever is drawn first.
    upper = max(value["upper"] for value in spec["data"]["values"])
    [whole] = (await series(admin, "tools.calls", bucket="DAY", timezone="Europe/Berlin", **DAYS))["groups"]
    assert upper == max(values(whole))
    # The wall clock of the zone: its days begin at midnight.
    assert {value["time"][10:] for value in spec["data"]["values"]} <= {"T00:00:00Z", "T01:00:00Z"}
    drawn = await charts.svg(spec)
    assert "tool 00" in drawn
    assert "Tool calls" in drawn
    for kind in ("LINE", "COLUMN", "BAR"):
        assert (await charts.svg(await chart(admin, "tools.calls", kind=kind, groupBy=["tool"]))).startswith("<svg")
    assert (await charts.svg(await chart(admin, "messages.count", groupBy=["role"]))).startswith("<svg")  # of nothing
    compared = await chart(admin, "tools.duration_p95", compare="PREVIOUS_PERIOD", bucket="DAY")
    assert len(compared["layer"]) == 2
    assert (await charts.svg(compared)).startswith("<svg")


async def test_the_page_draws_for_whoever_is_signed_in(place: Place) -> None:
    admin = await place.client(Role.ADMIN)
    async with httpx.AsyncClient(base_url=place.base, headers=admin.headers) as http:
        page = await http.get("/dashboard")
        assert page.status_code == 200
        assert "script-src 'self'" in page.headers["content-security-policy"]
        drawn = await http.get("/dashboard/chart.svg", params={"metric": "tools.calls", "range": "LAST_24_HOURS"})
        assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/svg+xml")
        assert drawn.text.startswith("<svg")
        assert "no-store" in drawn.headers["cache-control"]
        refused = await http.get("/dashboard/chart.svg", params={"metric": "nonsense", "range": "LAST_24_HOURS"})
        assert (refused.status_code, refused.json()["extensions"]["code"]) == (400, "BAD_INPUT")
        for bad in ({"range": "x"}, {"range": "TODAY", "timezone": "Mars"}, {"range": "TODAY", "groupBy": "x"}):
            assert (await http.get("/dashboard/chart.svg", params={"metric": "tools.calls", **bad})).status_code == 400
    async with httpx.AsyncClient(base_url=place.base) as stranger:
        page = await stranger.get("/dashboard")
        assert (page.status_code, page.headers["location"]) == (303, "/sign-in?next=%2Fdashboard")
        assert (await stranger.get("/dashboard/chart.svg", params={"metric": "tools.calls"})).status_code == 401
    limited = await place.client(Role.ADMIN, Permission.SESSIONS_READ)
    async with httpx.AsyncClient(base_url=place.base, headers=limited.headers) as http:
        assert (await http.get("/dashboard/chart.svg", params={"metric": "tools.calls"})).status_code == 403
