"""Charts of series: specifications that programs draw, with what leads to their rows, and the page that does."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pypdf import PdfReader

from app.wiring import Program
from core.permissions import Role
from integrations import charts
from tests.clients_of_graph import Client, Json
from tests.measuring import ROWS, Place, a_place, at, series, values

pytestmark = pytest.mark.anyio

DAYS = {"start": "2026-03-02T00:00:00Z", "end": "2026-03-05T00:00:00Z"}
CHART = """
query ($metric: String!, $groupBy: [String!], $kind: ChartKind! = AUTO, $zone: String! = "UTC",
    $compare: MetricCompare! = NONE, $bucket: MetricBucket, $filter: [MetricConditionInput!]) {
  metricChart(metric: $metric, filter: $filter, groupBy: $groupBy, kind: $kind, timezone: $zone, compare: $compare,
    bucket: $bucket, from: "2026-03-02T00:00:00Z", to: "2026-03-05T00:00:00Z")
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


async def text_of(spec: Json) -> str:
    """What can be read in the chart as it is drawn."""
    return PdfReader(io.BytesIO(await charts.pdf(spec))).pages[0].extract_text()


async def test_the_specification_has_the_series_and_is_drawn(place: Place) -> None:
    admin = await place.client(Role.ADMIN)
    spec = await chart(admin, "tools.calls", bucket="DAY", groupBy=["tool"], zone="Europe/Berlin")
    assert spec["$schema"].endswith("v6.json")
    assert sum(value["value"] or 0 for value in spec["data"]["values"]) == 60
    assert "Others" in {value["group"] for value in spec["data"]["values"]}
    # Columns stand on each other, whatever is drawn first.
    upper = max(value["upper"] for value in spec["data"]["values"])
    [whole] = (await series(admin, "tools.calls", bucket="DAY", timezone="Europe/Berlin", **DAYS))["groups"]
    assert upper == max(values(whole))
    # The wall clock of the zone: its days begin at midnight.
    assert {value["time"][10:] for value in spec["data"]["values"]} <= {"T00:00:00Z", "T01:00:00Z"}
    drawn = await text_of(spec)
    assert "tool 00" in drawn
    assert "Tool calls" in drawn
    for kind in ("LINE", "COLUMN", "BAR"):
        assert "tool 00" in await text_of(await chart(admin, "tools.calls", kind=kind, groupBy=["tool"]))
    assert "Messages" in await text_of(await chart(admin, "messages.count", groupBy=["role"]))  # of nothing
    compared = await chart(admin, "tools.duration_p95", compare="PREVIOUS_PERIOD", bucket="DAY")
    assert len(compared["layer"]) == 2
    assert re.search(r"\d ms", await text_of(compared))


async def test_the_specification_leads_from_its_marks_to_their_rows(place: Place) -> None:
    admin = await place.client(Role.ADMIN)
    spec = await chart(admin, "tools.calls", bucket="DAY", groupBy=["tool"], zone="Europe/Berlin")
    meta = spec["usermeta"]["quarterdeck"]
    groups = {group["name"]: group for group in meta["groups"]}
    assert (len(groups), groups["Others"]["filter"], meta["filter"]) == (11, None, [])
    failed = (await chart(admin, "tools.failed"))["usermeta"]["quarterdeck"]
    assert failed["filter"] == failed["groups"][0]["filter"] == [{"dimension": "outcome", "values": ["FAILED"]}]
    narrowed = await chart(
        admin, "tools.failed", groupBy=["tool"], filter=[{"dimension": "tool", "values": ["tool 00", "tool 01"]}]
    )
    assert {each["dimension"]: each["values"] for each in narrowed["usermeta"]["quarterdeck"]["filter"]} == {
        "tool": ["tool 00", "tool 01"],
        "outcome": ["FAILED"],
    }
    for mark in spec["data"]["values"]:
        filter_ = groups[mark["group"]]["filter"]
        if filter_ is not None:
            start, end = meta["edges"][mark["bucket"] :][:2]
            asked = {"fact": meta["fact"], "from": start, "to": end, "filter": filter_}
            assert (await admin(ROWS, **asked))["metricRows"]["totalCount"] == mark["value"]


async def test_the_page_is_for_whoever_is_signed_in_and_its_parts_are_compressed(place: Place) -> None:
    admin = await place.client(Role.ADMIN)
    async with httpx.AsyncClient(base_url=place.base, headers=admin.headers) as http:
        page = await http.get("/dashboard")
        assert page.status_code == 200
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        assert "no-store" in page.headers["cache-control"]
        script = re.search(r'src="(/static/dashboard/assets/[^"]+)"', page.text)
        assert script, page.text
        part = await http.get(script.group(1))
        assert (part.status_code, part.headers["content-encoding"]) == (200, "gzip")
        assert "immutable" in part.headers["cache-control"]
    async with httpx.AsyncClient(base_url=place.base) as stranger:
        page = await stranger.get("/dashboard")
        assert (page.status_code, page.headers["location"]) == (303, "/sign-in?next=%2Fdashboard")
