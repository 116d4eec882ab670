"""Reports: defined, made by a worker, downloaded; their totals are those of the graph."""

from __future__ import annotations

import asyncio
import csv
import io
import resource
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import orjson
import pytest
from pypdf import PdfReader

from app.wiring import Program
from core import db
from core.ids import decode, encode
from core.permissions import Permission, Role
from models.reports import ReportSchedule
from services.metrics import rollups
from services.reports import making, tables
from services.reports.focus import COLUMNS
from services.reports.schedules import next_moment
from tests.clients_of_graph import Client, Json
from tests.measuring import Place, a_place, at, series, values

pytestmark = pytest.mark.anyio

REPORT = "report { id status rows size sha256 errorCode errorMessage start end downloadUrl expiresAt }"
DEFINE = """
mutation ($input: DefineReportInput!) { defineReport(input: $input) { reportDefinition {
  id name kind format timezone question schedule nextAt problem owner { id }
} } }
"""
RUN = f"mutation ($input: RunReportInput!) {{ runReport(input: $input) {{ {REPORT} }} }}"
ONE = f"query ($id: ID!) {{ node(id: $id) {{ ... on Report {{ {REPORT.removeprefix('report ')[1:-1]} }} }} }}"
MARCH: Json = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-11T00:00:00Z"}


@pytest.fixture
async def place(database: Program) -> AsyncIterator[Place]:
    async with a_place(database) as found:
        yield found


async def put_ten_days(place: Place) -> None:
    """From 1 March 2026: on day n, n + 1 calls of `read` and one of `=write`; and usage of three models."""
    day = at("2026-03-01")
    calls = [{"at": day + timedelta(days=n, hours=h), "tool": "read"} for n in range(10) for h in range(n + 1)]
    calls += [{"at": day + timedelta(days=n, hours=1), "tool": "=write", "outcome": "FAILED"} for n in range(10)]
    await place.put("tool", *calls)
    usage = [
        {
            "at": day + timedelta(days=n, minutes=7),
            "provider": provider,
            "model": model,
            "input_tokens": 1000 * n + 1,
            "output_tokens": 10,
            "cache_read_tokens": 5,
        }
        for n in range(10)
        for provider, model in (
            ("anthropic", "claude-sonnet-4-5"),
            ("openai", "gpt-4o"),
            ("nobody", "model-without-price"),
        )
    ]
    await place.put("usage", *usage)


async def made(client: Client, **asked: Any) -> tuple[Json, bytes]:
    """A report that was defined, made in this process, and downloaded."""
    asked = {"name": "A report", "kind": "METRICS", "format": "CSV"} | asked
    definition = (await client(DEFINE, input=asked))["defineReport"]["reportDefinition"]
    report = (await client(RUN, input={"reportDefinitionId": definition["id"]}))["runReport"]["report"]
    assert (report["status"], report["downloadUrl"]) == ("QUEUED", None)
    while await making.make_one():
        pass
    report = (await client(ONE, id=report["id"]))["node"]
    if report["status"] != "READY":
        return report, b""
    async with httpx.AsyncClient() as http:
        answer = await http.get(local(client, report["downloadUrl"]))
    assert answer.status_code == 200, answer.text
    assert len(answer.content) == report["size"]
    return report, answer.content


def local(client: Client, url: str) -> str:
    return client.url.removesuffix("/graphql") + httpx.URL(url).path


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


async def test_series_of_metrics_have_the_totals_of_the_graph(place: Place) -> None:
    await put_ten_days(place)
    admin = await place.client(Role.ADMIN)
    question = {**MARCH, "metrics": ["tools.calls", "tools.error_rate"], "groupBy": ["tool"], "bucket": "DAY"}
    report, content = await made(admin, question=question)
    rows = rows_of(content)
    assert report["rows"] == len(rows)
    for metric in ("tools.calls", "tools.error_rate"):
        told = await series(admin, metric, start=MARCH["from"], end=MARCH["to"], group_by=["tool"], bucket="DAY")
        for group in told["groups"]:
            name = group["labels"][0]["value"]
            shown = f"'{name}" if name.startswith("=") else name
            own = [row for row in rows if row["metric"] == metric and row["tool"] == shown]
            [total] = [float(row["value"]) for row in own if row["row"] == "TOTAL"]
            assert total == pytest.approx(group["total"])
            buckets = [float(row["value"]) if row["value"] else None for row in own if row["row"] == "BUCKET"]
            assert buckets == pytest.approx(values(group))
    _, as_json = await made(admin, question=question, format="JSON")
    told = orjson.loads(as_json)
    assert (told["report"], told["kind"], told["from"]) == ("A report", "METRICS", "2026-03-01T00:00:00Z")
    assert len(told["rows"]) == len(rows)
    assert {row["tool"] for row in told["rows"]} == {"read", "=write"}, "JSON is not for spreadsheets"


async def test_costs_add_up_to_the_total_of_the_graph_also_as_focus(place: Place) -> None:
    await put_ten_days(place)
    admin = await place.client(Role.ADMIN)
    told = await admin(
        "query ($from: DateTime!, $to: DateTime!) { costBreakdown(from: $from, to: $to, groupBy: [MODEL]) "
        "{ total { amounts { totalUsd } } } }",
        **MARCH,
    )
    total = Decimal(told["costBreakdown"]["total"]["amounts"]["totalUsd"])
    assert total > 0
    _, content = await made(admin, kind="COSTS", question={**MARCH, "groupBy": ["model"]})
    rows = rows_of(content)
    groups = [row for row in rows if row["row"] == "GROUP"]
    assert {row["model"] for row in groups} == {"claude-sonnet-4-5", "gpt-4o", "model-without-price"}
    assert sum(Decimal(row["total_usd"] or 0) for row in groups) == total
    [last] = [row for row in rows if row["row"] == "TOTAL"]
    assert Decimal(last["total_usd"]) == total
    await db.execute("UPDATE usage_facts SET user_id = gen_random_uuid() WHERE model = 'gpt-4o'")
    _, content = await made(admin, kind="COSTS", question={**MARCH, "groupBy": ["user"]})
    groups = [row for row in rows_of(content) if row["row"] == "GROUP"]
    assert sum(Decimal(row["total_usd"] or 0) for row in groups) == total
    assert {row["user"] for row in groups} == {"", "(others)"}, (
        "by the organisation's policy single people are not named"
    )
    _, content = await made(admin, kind="FOCUS", question=MARCH)
    rows = rows_of(content)
    assert tuple(rows[0]) == COLUMNS
    assert sum(Decimal(row["BilledCost"]) for row in rows) == total
    assert sum(Decimal(row["ConsumedQuantity"]) for row in rows) == 3 * (45_000 + 10 + 100 + 50)
    for row in rows:
        quantity, price = Decimal(row["PricingQuantity"]), Decimal(row["ListUnitPrice"])
        assert Decimal(row["ListCost"]) == pytest.approx(quantity * price, abs=Decimal("1e-9"))
        assert quantity * 1_000_000 == Decimal(row["ConsumedQuantity"])
        assert row["BillingPeriodStart"] == "2026-03-01T00:00:00Z"
        assert row["BillingPeriodEnd"] == "2026-04-01T00:00:00Z"
    untold = [row for row in rows if row["ResourceId"] == "model-without-price"]
    assert {(row["BilledCost"], row["Tags"]) for row in untold} == {("0.0", '{"priced":"false"}')}


async def test_a_pdf_has_charts_and_text_that_can_be_selected(place: Place) -> None:
    await put_ten_days(place)
    admin = await place.client(Role.ADMIN)
    question = {**MARCH, "metrics": ["tools.calls", "tokens.total"], "groupBy": [], "bucket": "DAY"}
    report, content = await made(admin, name="Für <b>Björn</b> & Co", question=question, format="PDF")
    assert report["status"] == "READY", report
    pages = PdfReader(io.BytesIO(content)).pages
    text = "\n".join(page.extract_text() for page in pages)
    assert "Für <b>Björn</b> & Co" in text
    assert "2026-03-01 00:00 to 2026-03-11 00:00 (UTC)" in text
    assert "65" in text, "the total of the table"
    assert "5 Mar" in text, "the axis of the chart is text as well"
    _, content = await made(admin, kind="COSTS", question={**MARCH, "groupBy": ["model"]}, format="PDF")
    text = "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(content)).pages)
    assert "gpt-4o" in text
    assert "TOTAL" in text


async def test_facts_stream_in_memory_that_does_not_grow(place: Place) -> None:
    admin = await place.client(Role.ADMIN)
    count = 100_000
    await db.execute(
        "INSERT INTO tool_facts (at, organization_id, id, source, tool, outcome, duration_ms) "
        "SELECT $2::timestamptz + n * interval '1 second', $1, gen_random_uuid(), 'QUARTERDECK', 'read', "
        "'SUCCEEDED', n FROM generate_series(0, $3::int - 1) AS n",
        place.house.organization_id,
        at("2026-03-01"),
        count,
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    definition = (
        await admin(
            DEFINE,
            input={"name": "All", "kind": "FACTS", "format": "CSV", "question": {**MARCH, "fact": "tool"}},
        )
    )["defineReport"]["reportDefinition"]
    report = (await admin(RUN, input={"reportDefinitionId": definition["id"]}))["runReport"]["report"]
    assert await making.make_one()
    report = (await admin(ONE, id=report["id"]))["node"]
    assert (report["status"], report["rows"]) == ("READY", count)
    lines = 0
    async with httpx.AsyncClient() as http, http.stream("GET", local(admin, report["downloadUrl"])) as answer:
        async for chunk in answer.aiter_bytes():
            lines += chunk.count(b"\n")
    assert lines == count + 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert report["size"] > 8_000_000
    assert grown < 25, f"{grown:.0f} MiB more for {report['size'] / 1e6:.0f} MB"


async def test_only_those_it_is_for_read_a_report(place: Place) -> None:
    await put_ten_days(place)
    admin, member = await place.client(Role.ADMIN), await place.client(Role.MEMBER)
    viewer = await place.client(Role.VIEWER)
    question = {**MARCH, "metrics": ["tools.calls"]}
    report, _ = await made(admin, question=question, recipientIds=[encode("usr", place.house.users[Role.VIEWER]["id"])])
    assert (await viewer(ONE, id=report["id"]))["node"]["downloadUrl"]
    assert (await member(ONE, id=report["id"]))["node"] is None
    listed = await member("{ reports { nodes { id } } reportDefinitions { nodes { id } } }")
    assert listed == {"reports": {"nodes": []}, "reportDefinitions": {"nodes": []}}
    told = (await viewer("{ viewer { notifications { nodes { kind title } } } }"))["viewer"]["notifications"]["nodes"]
    assert told == [{"kind": "REPORT", "title": "The report “A report” is ready"}]
    own, content = await made(member, question=question)
    assert own["status"] == "READY"
    assert sum(float(row["value"]) for row in rows_of(content) if row["row"] == "TOTAL") == 0, "their own facts alone"
    refused = await viewer.refused(
        DEFINE, input={"name": "A", "kind": "METRICS", "format": "CSV", "question": question}
    )
    assert refused.codes == ["FORBIDDEN"]
    token = await place.client(Role.ADMIN, Permission.METRICS_READ, Permission.PROFILE_READ)
    url = local(token, (await token(ONE, id=report["id"]))["node"]["downloadUrl"])
    await db.execute("UPDATE access_tokens SET revoked_at = now() WHERE name = 'tests'")
    async with httpx.AsyncClient() as http:
        assert (await http.get(url)).status_code == 404, "a link ends with the token that asked for it"
        assert (await http.get(url[:-5] + "AAAAA")).status_code == 404


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ({"question": {}}, {"metrics"}),
        ({"question": {"metrics": ["tools.calls"]}}, {"range"}),
        ({"question": {**MARCH, "metrics": ["tools.cals"]}}, {"metric"}),
        ({"kind": "FOCUS", "format": "PDF", "question": {**MARCH, "groupBy": ["tool"]}}, {"format", "groupBy"}),
        ({"kind": "FACTS", "question": {**MARCH, "fact": "'; DROP TABLE tool_facts"}}, {"fact"}),
        ({"kind": "COSTS", "question": {**MARCH, "groupBy": ["nonsense"]}}, {"groupBy"}),
        (
            {
                "name": "",
                "timezone": "Mars/Olympus",
                "question": {**MARCH, "metrics": ["tools.calls"]},
                "timetable": {"schedule": "WEEKLY", "day": 8},
            },
            {"name", "timezone", "timetable.day", "range"},
        ),
        (
            {"question": {"from": "1900-01-01T00:00:00Z", "to": "2500-01-01T00:00:00Z", "metrics": ["tools.calls"]}},
            {"from"},
        ),
    ],
    ids=["nothing", "no range", "metric", "kind", "sql", "dimension", "all", "centuries"],
)
async def test_what_makes_no_sense_is_said_at_once(place: Place, asked: Json, fields: set[str]) -> None:
    admin = await place.client(Role.ADMIN)
    refused = await admin.refused(DEFINE, input={"name": "A", "kind": "METRICS", "format": "CSV"} | asked)
    assert refused.codes == ["BAD_INPUT"]
    extensions = refused.extensions
    found = {each["field"] for each in extensions.get("fields", [])} or {extensions.get("field")}
    assert fields <= found, extensions


async def test_a_timetable_makes_one_report_for_each_moment_however_many_workers(place: Place) -> None:
    admin = await place.client(Role.ADMIN)
    asked = {
        "name": "Daily",
        "kind": "METRICS",
        "format": "JSON",
        "timezone": "Europe/Berlin",
        "question": {"range": "LAST_24_HOURS", "metrics": ["runs.count"]},
        "timetable": {"schedule": "DAILY", "hour": 6},
    }
    definition = (await admin(DEFINE, input=asked))["defineReport"]["reportDefinition"]
    due = datetime.fromisoformat(definition["nextAt"])
    assert due.astimezone(ZoneInfo("Europe/Berlin")).hour == 6
    assert await making.queue_due(due - timedelta(seconds=1)) == 0
    later = due + timedelta(days=3, hours=1)
    assert sum(await asyncio.gather(*(making.queue_due(later) for _ in range(4)))) == 1
    [run] = await db.fetch('SELECT scheduled_for, start, "end" FROM report_runs')
    assert run["scheduled_for"] == run["end"] == due + timedelta(days=3), "of what was missed the latest is made"
    assert (await db.fetchval("SELECT next_at FROM report_definitions")) == due + timedelta(days=4)
    again = await admin(DEFINE, input=asked | {"idempotencyKey": "same"})
    assert again == await admin(DEFINE, input=asked | {"idempotencyKey": "same"})


async def test_a_worker_that_dies_or_comes_back_late_spoils_no_report(place: Place) -> None:
    await put_ten_days(place)
    admin = await place.client(Role.ADMIN)
    report, first = await made(admin, question={**MARCH, "metrics": ["tools.calls"]})
    id_ = decode("rpr", report["id"])
    # As a worker leaves it that is killed in the middle.
    await db.execute("UPDATE report_runs SET status = 'RUNNING', lease_until = now() - interval '1 second'")
    await db.execute("UPDATE report_pieces SET content = 'half'::bytea")
    stale = await db.fetchrow("SELECT * FROM report_runs WHERE id = $1", id_)
    assert await making.make_one()
    assert not await making.make_one()
    async with httpx.AsyncClient() as http:
        url = local(admin, (await admin(ONE, id=report["id"]))["node"]["downloadUrl"])
        assert (await http.get(url)).content == first
    await making._end(stale, making.ReportStatus.FAILED, error_code="INTERNAL")
    assert (await admin(ONE, id=report["id"]))["node"]["status"] == "READY", "the late one has no say"


async def test_a_report_of_somebody_who_left_is_not_made_any_more(place: Place) -> None:
    member = await place.client(Role.MEMBER)
    asked = {
        "name": "Mine",
        "kind": "METRICS",
        "format": "CSV",
        "question": {"range": "LAST_7_DAYS", "metrics": ["runs.count"]},
        "timetable": {"schedule": "WEEKLY", "day": 1},
    }
    await member(DEFINE, input=asked)
    await db.execute("UPDATE users SET deactivated_at = now() WHERE id = $1", place.house.users[Role.MEMBER]["id"])
    assert await making.queue_due(datetime.now(UTC) + timedelta(days=8)) == 1
    assert await making.make_one()
    admin = await place.client(Role.ADMIN)
    body = await admin("{ reports { nodes { status errorMessage } } reportDefinitions { nodes { problem nextAt } } }")
    [report] = body["reports"]["nodes"]
    assert report["status"] == "FAILED"
    assert "deactivated" in report["errorMessage"]
    assert body["reportDefinitions"]["nodes"] == [{"problem": "Its owner has been deactivated.", "nextAt": None}]


async def test_bills_are_not_made_of_what_is_gone_in_part(place: Place) -> None:
    await put_ten_days(place)
    admin = await place.client(Role.ADMIN)
    await db.execute("UPDATE metric_retention SET dropped_before = $1 WHERE level = 'RAW'", at("2026-03-05"))
    report, _ = await made(admin, kind="FOCUS", question=MARCH)
    assert report["status"] == "READY", "of the organisation's own, nothing is known to be gone"
    while await rollups.roll():
        pass
    for kind, more in (("COSTS", {}), ("FOCUS", {}), ("FACTS", {"fact": "tool"})):
        report, _ = await made(admin, kind=kind, question=MARCH | more)
        assert (report["status"], report["errorCode"]) == ("FAILED", "BAD_INPUT"), kind
        assert "before 2026-03-05" in report["errorMessage"]
    report, _ = await made(admin, kind="COSTS", question=MARCH | {"from": "2026-03-05T00:00:00Z"})
    assert report["status"] == "READY"


async def test_what_is_too_large_leaves_nothing_behind(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await put_ten_days(place)
    monkeypatch.setattr(making, "PIECE", 100)
    monkeypatch.setattr(making, "LARGEST_BYTES", 1000)
    admin = await place.client(Role.ADMIN)
    report, _ = await made(admin, kind="FACTS", question=MARCH | {"fact": "tool"})
    assert (report["status"], report["errorCode"]) == ("FAILED", "TOO_LARGE")
    assert await db.fetchval("SELECT count(*) FROM report_pieces") == 0


async def test_a_zone_that_is_not_known_here_stops_its_own_reports_alone(place: Place) -> None:
    admin = await place.client(Role.ADMIN)
    timetable = {"schedule": "DAILY", "hour": 6}
    question = {"range": "LAST_24_HOURS", "metrics": ["runs.count"]}
    asked = {"kind": "METRICS", "format": "CSV", "timetable": timetable, "question": question}
    for name in ("Lost", "Fine"):
        await admin(DEFINE, input={"name": name} | asked)
    await db.execute("UPDATE report_definitions SET timezone = 'Mars/Olympus' WHERE name = 'Lost'")
    assert await making.queue_due(datetime.now(UTC) + timedelta(days=2)) == 1
    told = (await admin("{ reportDefinitions { nodes { name problem } } }"))["reportDefinitions"]["nodes"]
    problems = {one["name"]: one["problem"] for one in told}
    assert problems["Fine"] is None
    assert "Mars/Olympus" in problems["Lost"]


@pytest.mark.parametrize("text", ["=1+1", "\n=1+1", "  =1+1", "\uff1d1+1", "@x", "-1"])
def test_text_is_no_formula_to_a_spreadsheet(text: str) -> None:
    assert tables._cell(text) == f'"\'{text}"'
    assert tables._lines([["x;=1+1", None, 1, Decimal("1.50"), 'a"b']]) == b'"x;=1+1",,1,1.5,"a""b"\r\n'


@pytest.mark.parametrize(
    ("schedule", "day", "after", "expected"),
    [
        (ReportSchedule.DAILY, 1, "2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z"),  # 02:00 that day is 03:00
        (ReportSchedule.DAILY, 1, "2026-10-24T12:00:00Z", "2026-10-25T00:00:00Z"),  # 02:00 comes twice
        (ReportSchedule.DAILY, 1, "2026-10-25T00:00:00Z", "2026-10-26T01:00:00Z"),
        (ReportSchedule.WEEKLY, 7, "2026-11-26T00:00:00Z", "2026-11-29T01:00:00Z"),
        (ReportSchedule.MONTHLY, 28, "2026-01-28T01:00:00Z", "2026-02-28T01:00:00Z"),
    ],
    ids=["spring", "autumn", "after autumn", "week", "month"],
)
async def test_moments_are_those_of_the_wall_clock(
    schedule: ReportSchedule, day: int, after: str, expected: str
) -> None:
    found = next_moment(schedule, 2, day, ZoneInfo("Europe/Berlin"), datetime.fromisoformat(after))
    assert found == datetime.fromisoformat(expected)
