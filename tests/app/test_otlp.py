"""Telemetry of agents that run elsewhere: real OpenTelemetry SDKs, and what no SDK would send."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.metrics import Counter as SdkCounter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Status, StatusCode

from app.wiring import Program
from core import db
from core.permissions import Actor, Role
from models.identity import UserKind
from services.identity.accounts import create_service_account
from services.identity.actors import actor_of_user
from services.identity.tokens import create_access_token
from services.metrics.otlp import labels, receiving
from tests.clients_of_graph import Client
from tests.services.identity_help import HERE
from tests.telemetry import CHAT, NOW, SCHEMA, TOKENS, Door, a_door, attributes, spans, total

pytestmark = pytest.mark.anyio


@pytest.fixture
async def door(database: Program) -> AsyncIterator[Door]:
    async with a_door(database) as found:
        yield found


async def test_an_agent_with_the_opentelemetry_sdk_is_seen(door: Door) -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "support-agent"}))
    exporter = OTLPSpanExporter(endpoint=f"{door.base}/v1/traces", headers=door.headers())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("agents", schema_url=SCHEMA)
    with tracer.start_as_current_span("invoke_agent", attributes={"gen_ai.operation.name": "invoke_agent"}):
        with tracer.start_as_current_span("chat", attributes=CHAT):
            pass
        with tracer.start_as_current_span(
            "execute_tool", attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "mcp__git__log"}
        ) as tool:
            tool.set_status(Status(StatusCode.ERROR))
            tool.set_attribute("error.type", "timeout")
        with tracer.start_as_current_span("GET /"):
            pass
    await asyncio.to_thread(provider.shutdown)

    [usage] = await door.rows("usage_facts")
    assert (usage["model"], usage["provider"], usage["requests"]) == ("claude-sonnet-4-5", "anthropic", 1)
    assert (usage["input_tokens"], usage["output_tokens"]) == (200, 50), "the four kinds of tokens are disjoint"
    assert (usage["cache_read_tokens"], usage["cache_write_tokens"]) == (700, 100)
    assert usage["cost_usd"] is None, "no cost is invented"
    assert (usage["source"], usage["service"]) == ("OTLP", "support-agent")
    assert usage["conventions"] == "opentelemetry 1.37.0"
    assert usage["user_id"] == door.house.users[Role.MEMBER]["id"]
    [tool_call] = await door.rows("tool_facts")
    assert (tool_call["server"], tool_call["tool"]) == ("git", "git.log")
    assert (tool_call["outcome"], tool_call["error_kind"]) == ("FAILED", "timeout")
    [run] = await door.rows("run_facts")
    assert run["outcome"] == "FINISHED"
    assert run["duration_ms"] >= tool_call["duration_ms"] >= 0
    assert run["run_id"] == tool_call["run_id"] == usage["run_id"], "one trace is one run"
    service = await door.service("support-agent")
    assert (service["spans"], service["rejected"], service["usageSignal"]) == (4, 0, "TRACES")


@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
async def test_claude_code_is_seen_by_its_metrics(door: Door, temporality: str) -> None:
    preferred = AggregationTemporality.DELTA if temporality == "delta" else AggregationTemporality.CUMULATIVE
    exporter = OTLPMetricExporter(
        endpoint=f"{door.base}/v1/metrics", headers=door.headers(), preferred_temporality={SdkCounter: preferred}
    )
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    resource = Resource.create({"service.name": "claude-code", "service.version": "2.1.0"})
    provider = MeterProvider([reader], resource=resource)
    meter = provider.get_meter("com.anthropic.claude_code")
    tokens = meter.create_counter("claude_code.token.usage", unit="tokens")
    cost = meter.create_counter("claude_code.cost.usage", unit="USD")
    sessions = meter.create_counter("claude_code.session.count")
    commits = meter.create_counter("claude_code.commit.count")
    model = {"model": "claude-opus-4-5"}
    for _ in range(3):
        tokens.add(100, {**model, "type": "input"})
        tokens.add(40, {**model, "type": "cacheRead"})
        cost.add(0.0125, model)
        sessions.add(1)
        commits.add(2)
        await asyncio.to_thread(reader.force_flush)
    await asyncio.to_thread(provider.shutdown)

    usage = await door.rows("usage_facts")
    assert sum(row["input_tokens"] or 0 for row in usage) == 300
    assert sum(row["cache_read_tokens"] or 0 for row in usage) == 120
    assert sum(row["output_tokens"] or 0 for row in usage) == 0
    assert str(sum(row["cost_usd"] or 0 for row in usage).normalize()) == "0.0375"
    assert {row["model"] for row in usage} == {"claude-opus-4-5"}
    assert {row["conventions"] for row in usage} == {"claude_code 2.1.0"}
    assert len(await door.rows("session_facts")) == 3
    assert sum(row["value"] for row in await door.rows("resource_facts") if row["resource"] == "commits") == 6


async def test_json_and_protobuf_say_the_same(door: Door) -> None:
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    body = {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "agent"}}]},
                "scopeSpans": [
                    {
                        "schemaUrl": SCHEMA,
                        "somethingNew": [1],
                        "spans": [
                            {
                                "traceId": trace,
                                "spanId": span,
                                "name": "chat",
                                "kind": 3,
                                "startTimeUnixNano": str(NOW),
                                "endTimeUnixNano": str(NOW + 10**9),
                                "status": {"code": 2},
                                "attributes": [
                                    {"key": "gen_ai.operation.name", "value": {"stringValue": "execute_tool"}},
                                    {"key": "gen_ai.tool.name", "value": {"stringValue": "search"}},
                                ],
                            }
                        ],
                    }
                ],
            }
        ]
    }
    answer = await door.post("traces", json.dumps(body).encode(), content_type="application/json")
    assert answer.status_code == 200
    assert (answer.headers["content-type"], answer.json()) == ("application/json", {})
    request = ExportTraceServiceRequest()
    request.ParseFromString(
        spans({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search", "error.type": "x"})
    )
    sent = request.resource_spans[0].scope_spans[0].spans[0]
    sent.trace_id, sent.span_id = bytes.fromhex(trace), bytes.fromhex(span)
    answer = await door.post("traces", request.SerializeToString())
    assert answer.headers["content-type"] == "application/x-protobuf"
    ExportTraceServiceResponse.FromString(answer.content)
    [row] = await door.rows("tool_facts")
    assert (row["tool"], row["outcome"], row["duration_ms"]) == ("search", "FAILED", 1000.0)


async def test_what_is_sent_twice_is_counted_once(door: Door) -> None:
    body = spans(CHAT, CHAT)
    points = total("claude_code.session.count", 1, NOW + 1, temporality=1)
    await asyncio.gather(
        *(door.post("traces", body) for _ in range(4)), *(door.post("metrics", points) for _ in range(4))
    )
    assert len(await door.rows("usage_facts")) == 2
    assert len(await door.rows("session_facts")) == 1


async def test_totals_that_repeat_come_late_or_begin_again_are_counted_once(door: Door) -> None:
    name, second = "claude_code.token.usage", 10**9
    for value, at, start in (
        (100.0, NOW + 1 * second, NOW),
        (250.0, NOW + 3 * second, NOW),
        (250.0, NOW + 3 * second, NOW),  # again
        (180.0, NOW + 2 * second, NOW),  # late: it is part of the 250
        (40.0, NOW + 5 * second, NOW + 4 * second),  # the program was started again
        (60.0, NOW + 6 * second, NOW + 4 * second),
        (10.0, NOW + 7 * second, NOW + 4 * second),  # a counter that was set back without saying so
    ):
        answer = await door.post("metrics", total(name, value, at, start=start, type="output", model="m"))
        assert answer.status_code == 200, answer.text
    assert sum(row["output_tokens"] for row in await door.rows("usage_facts")) == 250 + 60 + 10

    # Two programs at once that say the same of themselves, but for when they began.
    earlier, later = NOW - 1000 * second, NOW - 900 * second
    for turn in range(1, 6):
        for value, at, start in (
            (100.0 * turn, NOW + (8 + turn) * second, earlier),
            (10.0 * turn, NOW + (8 + turn) * second + 1, later),
        ):
            await door.post("metrics", total(name, value, at, start=start, type="input", model="m"))
    assert sum(row["input_tokens"] or 0 for row in await door.rows("usage_facts")) == 500 + 50


async def test_a_service_that_sends_both_signals_is_not_counted_twice(door: Door) -> None:
    await door.post("traces", spans(CHAT, service="claude-code"))
    await door.post("metrics", total("gen_ai.client.token.usage", 1000, NOW + 1, temporality=1, **TOKENS))
    [row] = await door.rows("usage_facts")
    assert row["requests"] == 1
    service = await door.service("claude-code")
    assert (service["usageSignal"], service["superseded"]) == ("TRACES", 1)
    document = (
        "mutation($input: SetUsageSignalInput!) { setUsageSignal(input: $input) { telemetryService { usageSignal } } }"
    )
    changed = await door.graph(document, input={"telemetryServiceId": service["id"], "usageSignal": "METRICS"})
    assert changed["setUsageSignal"]["telemetryService"]["usageSignal"] == "METRICS"
    await door.post("metrics", total("gen_ai.client.token.usage", 7, NOW + 2, temporality=1, **TOKENS))
    await door.post("traces", spans(CHAT, service="claude-code"))
    assert [row["input_tokens"] for row in await door.rows("usage_facts")].count(7) == 1
    assert len(await door.rows("usage_facts")) == 2
    member = Client(f"{door.base}/graphql", door.tokens[Role.MEMBER])
    refused = await member.refused(document, input={"telemetryServiceId": service["id"], "usageSignal": "TRACES"})
    assert refused.codes == ["FORBIDDEN"]


async def test_calls_of_tools_by_traces_and_tokens_by_metrics_are_both_counted(door: Door) -> None:
    resource = Resource.create({"service.name": "mixed-agent"})
    tracing = TracerProvider(resource=resource)
    tracing.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{door.base}/v1/traces", headers=door.headers()))
    )
    tracer = tracing.get_tracer("agents", schema_url=SCHEMA)
    for operation in ("invoke_agent", "execute_tool"):
        tracer.start_span("work", attributes={"gen_ai.operation.name": operation}).end()
    await asyncio.to_thread(tracing.shutdown)
    assert (await door.service("mixed-agent"))["usageSignal"] is None, "neither says what a model used"

    exporter = OTLPMetricExporter(endpoint=f"{door.base}/v1/metrics", headers=door.headers())
    metering = MeterProvider([PeriodicExportingMetricReader(exporter, 3_600_000)], resource=resource)
    tokens = metering.get_meter("agents", schema_url=SCHEMA).create_histogram("gen_ai.client.token.usage")
    tokens.record(1000, TOKENS)
    await asyncio.to_thread(metering.shutdown)
    assert [(row["input_tokens"], row["conventions"]) for row in await door.rows("usage_facts")] == [
        (1000, "opentelemetry 1.37.0")
    ]
    assert (len(await door.rows("tool_facts")), len(await door.rows("run_facts"))) == (1, 1)
    service = await door.service("mixed-agent")
    assert (service["usageSignal"], service["superseded"]) == ("METRICS", 0)


async def test_only_a_service_account_speaks_of_others(door: Door) -> None:
    someone = door.house.users[Role.VIEWER]
    body = spans({**CHAT, "user.email": someone["email"].upper()})
    await door.post("traces", body)
    account = await create_service_account(door.house.actor(Role.ADMIN), name="Collector", role=Role.MEMBER)
    actor: Actor = actor_of_user(account, None, HERE)
    assert account["kind"] == UserKind.SERVICE
    secret = (await create_access_token(actor, name="otlp", scopes=["METRICS_INGEST"])).secret
    for email in (someone["email"].upper(), "somebody@elsewhere.example"):
        answer = await door.post(
            "traces", spans({**CHAT, "user.email": email}), role=None, authorization=f"Bearer {secret}"
        )
        assert answer.status_code == 200, answer.text
    users = [row["user_id"] for row in await door.rows("usage_facts")]
    assert sorted(map(str, users)) == sorted(map(str, [door.house.users[Role.MEMBER]["id"], someone["id"], None]))


async def test_one_bad_span_costs_the_others_nothing(door: Door) -> None:
    request = ExportTraceServiceRequest()
    request.ParseFromString(spans(CHAT, {**CHAT, "gen_ai.usage.input_tokens": -5}, CHAT, CHAT, CHAT))
    sent = request.resource_spans[0].scope_spans[0].spans
    sent[2].end_time_unix_nano = NOW + 3 * 86_400 * 10**9
    sent[3].end_time_unix_nano = 0
    sent[4].trace_id = b""
    answer = await door.post("traces", request.SerializeToString())
    assert answer.status_code == 200
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert partial.rejected_spans == 4
    for reason in ("which is no number of tokens", "check the sender's clock", "does not say when", "has no id"):
        assert reason in partial.error_message
    assert len(await door.rows("usage_facts")) == 1
    service = await door.service("agent")
    assert service["rejected"] == 4
    assert service["lastRejection"]


async def test_numbers_that_are_none_are_rejected_and_cost_the_others_nothing(door: Door) -> None:
    cost = {"model": "m", "temporality": 1}
    histogram = ExportMetricsServiceRequest()
    of_metric = histogram.resource_metrics.add().scope_metrics.add().metrics.add(name="gen_ai.client.token.usage")
    of_metric.histogram.aggregation_temporality = 2  # type: ignore[assignment]
    of_metric.histogram.data_points.add(
        start_time_unix_nano=NOW, time_unix_nano=NOW + 1, sum=5, count=2**63, attributes=attributes(TOKENS)
    )
    bad = [
        *(total("claude_code.cost.usage", value, NOW + 1, **cost) for value in (float("nan"), float("inf"), -1, 1e300)),
        *(total("claude_code.cost.usage", 1, NOW + 1, model="m", temporality=of, start=2**64 - 1) for of in (1, 2)),
        total("claude_code.token.usage", 1e11, NOW + 1, type="input", **cost),
        total("claude_code.session.count", 101, NOW + 1, temporality=1),
        histogram.SerializeToString(),
    ]
    # Requests of protobuf one after the other are one request.
    good = total("claude_code.cost.usage", 0.5, NOW + 1, **cost)
    answer = await door.post("metrics", b"".join([*bad, good]))
    partial = ExportMetricsServiceResponse.FromString(answer.content).partial_success
    assert (answer.status_code, partial.rejected_data_points) == (200, len(bad))
    [row] = await door.rows("usage_facts")
    assert str(row["cost_usd"]) == "0.5"

    many = [total("claude_code.session.count", 100, NOW + 1, temporality=1, start=NOW - nth) for nth in range(12)]
    answer = await door.post("metrics", b"".join(many))
    partial = ExportMetricsServiceResponse.FromString(answer.content).partial_success
    assert (partial.rejected_data_points, "too many sessions" in partial.error_message) == (2, True)
    assert len(await door.rows("session_facts")) == 1000


async def test_clocks_that_are_a_little_wrong_are_taken_as_they_are(door: Door) -> None:
    hour = 3600 * 10**9
    answer = await door.post("traces", spans(CHAT, start=NOW + 2 * hour, end=NOW + hour))
    assert not ExportTraceServiceResponse.FromString(answer.content).HasField("partial_success")
    [row] = await door.rows("usage_facts")
    assert row["duration_ms"] is None, "an end before the start has no length"
    answer = await door.post("traces", spans(CHAT, end=NOW - 500 * 24 * hour))
    assert "older than 400 days" in ExportTraceServiceResponse.FromString(answer.content).partial_success.error_message

    # Of a time of which facts have been dropped: nobody could tell whether these were among them.
    await db.execute("UPDATE metric_retention SET dropped_before = now() - interval '90 days' WHERE level = 'RAW'")
    late = NOW - 120 * 24 * hour
    answer = await door.post("traces", spans(CHAT, start=late, end=late + 10**9))
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert (partial.rejected_spans, "have been dropped" in partial.error_message) == (1, True)
    point = total("claude_code.commit.count", 1, late, temporality=1)
    answer = await door.post("metrics", point)
    assert ExportMetricsServiceResponse.FromString(answer.content).partial_success.rejected_data_points == 1
    assert [(await door.service(name))["rejected"] for name in ("agent", "claude-code")] == [2, 1]
    assert (len(await door.rows("usage_facts")), len(await door.rows("resource_facts"))) == (1, 0)


async def test_prompts_are_not_kept_anywhere(door: Door) -> None:
    secret = "the launch code is 0000"
    given = {**CHAT, "gen_ai.input.messages": secret, "input.value": secret, "gen_ai.system_instructions": secret}
    await door.post("traces", spans(given))
    for table in ("usage_facts", "telemetry_services", "metric_labels"):
        rows = await db.fetch(f"SELECT t::text AS text FROM {table} t")
        assert rows
        assert not [row for row in rows if secret in row["text"]]


async def test_names_that_are_ids_do_not_become_names_without_end(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "MOST", 10)  # and 5 of one service
    call = {"gen_ai.operation.name": "execute_tool"}
    for batch in range(3):
        body = spans(*({**call, "gen_ai.tool.name": f"call-{batch}-{number}"} for number in range(4)))
        await asyncio.gather(door.post("traces", body), door.post("traces", body))
    tools = [row["tool"] for row in await door.rows("tool_facts")]
    assert len(tools) == 12, "nothing is lost"
    assert len(set(tools)) == 6
    assert tools.count("(other)") == 7
    named = {**CHAT, "gen_ai.request.model": "one"}
    theirs = ["a", "b", "c", "d", "e", "late"]
    await door.post("traces", spans(*({**call, "gen_ai.tool.name": tool} for tool in theirs), named, service="another"))
    tools = [row["tool"] for row in await door.rows("tool_facts") if row["service"] == "another"]
    assert sorted(tools) == ["(other)", *theirs[:5]], "one that makes up names leaves room for others"
    body = await door.graph("{ labelDimensions { dimension names overflowed example limit since } }")
    [tool] = [found for found in body["labelDimensions"] if found["dimension"] == "tool"]
    assert tool["names"] == 10
    assert tool["overflowed"] >= 8
    assert tool["example"]

    body = await door.graph(
        "{ telemetryServices { nodes { name mergedLabels { dimension facts example since lastAt } } } }"
    )
    # Of versions of conventions, too, some are told.
    for batch in range(2):
        requests = [ExportTraceServiceRequest.FromString(spans(named, service="another")) for _ in range(12)]
        for number, request in enumerate(requests):
            request.resource_spans[0].scope_spans[0].schema_url = f"https://schemas.example/{batch}.{number}"
        await door.post("traces", b"".join(request.SerializeToString() for request in requests))
    assert len((await door.service("another"))["conventions"]) == 20

    [agent, another] = body["telemetryServices"]["nodes"]
    [ours], [theirs] = agent["mergedLabels"], another["mergedLabels"]
    assert ours["dimension"] == theirs["dimension"] == "tool"
    assert ours["facts"] + theirs["facts"] == tool["overflowed"]
    assert (theirs["facts"], theirs["example"]) == (1, "late")
    assert ours["example"].startswith("call-")
    assert ours["since"] == tool["since"] < theirs["since"] == theirs["lastAt"]

    day = datetime.fromtimestamp(NOW / 1e9, UTC)
    asked = f'from: "{(day - timedelta(hours=1)).isoformat()}", to: "{(day + timedelta(hours=1)).isoformat()}"'
    told = "{ mergedLabels { dimension label facts } }"
    body = await door.graph(
        f'{{ all: metricSeries(metric: "tools.calls", {asked}) {told} '
        f'of: metricSeries(metric: "tools.calls", {asked}, groupBy: ["tool"]) {told} '
        f'one: metricSeries(metric: "tools.calls", {asked}, '
        f'filter: [{{dimension: "tool", values: ["x"]}}, {{dimension: "service", values: ["another"]}}]) {told} '
        f'tokens: metricSeries(metric: "tokens.total", {asked}, groupBy: ["model"]) {told} }}'
    )
    assert body["all"]["mergedLabels"] == body["tokens"]["mergedLabels"] == []
    assert body["of"]["mergedLabels"] == [{"dimension": "tool", "label": "(other)", "facts": 8}]
    assert body["one"]["mergedLabels"] == [{"dimension": "tool", "label": "(other)", "facts": 1}]

    # What nobody brought for a month makes room.
    await db.execute("UPDATE metric_labels SET seen_on = seen_on - 31 WHERE value LIKE 'call-0%'")
    await door.post("traces", spans({**call, "gen_ai.tool.name": "new"}))
    assert "new" in [row["tool"] for row in await door.rows("tool_facts")]
    kept = await db.fetch("SELECT value FROM metric_labels WHERE dimension = 'tool' AND value LIKE 'call-%'")
    assert len(kept) == 1


async def test_services_beyond_the_most_are_counted_together_and_told(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "MOST", 1)
    for name in ("first", "second"):
        await door.post("traces", spans(CHAT, service=name))
    assert {row["service"] for row in await door.rows("usage_facts")} == {"first", "(other)"}
    body = await door.graph("{ labelDimensions { dimension overflowed example } }")
    assert {"dimension": "service", "overflowed": 1, "example": "second"} in body["labelDimensions"]


async def test_series_that_count_from_a_start_are_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "MOST_SERIES", 2)
    answers = [
        await door.post("metrics", total("claude_code.commit.count", 1, NOW + 1, user=f"{number}"))
        for number in range(3)
    ]
    partial = ExportMetricsServiceResponse.FromString(answers[2].content).partial_success
    assert partial.rejected_data_points == 1
    assert "temporality" in partial.error_message.lower()
    assert len(await door.rows("resource_facts")) == 2

    # One that was not heard of for a day, and has begun again, makes room.
    await db.execute("UPDATE telemetry_series SET seen_at = now() - interval '2 days'")
    answer = await door.post("metrics", total("claude_code.commit.count", 1, NOW + 3, start=NOW + 2, user="0"))
    assert not ExportMetricsServiceResponse.FromString(answer.content).HasField("partial_success")
    assert len(await door.rows("resource_facts")) == 3


async def test_a_series_that_is_sent_again_does_not_make_room_for_others(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "MOST_SERIES", 1)
    for days in (2, 31):
        started, again = NOW + days, NOW + days + 40
        name, user = "claude_code.commit.count", f"{days}"
        await door.post("metrics", total(name, 100, NOW + 50, start=started, user=user))
        await db.execute("UPDATE telemetry_series SET seen_at = now() - $1 * interval '1 day'", days)
        # What goes on, and what has begun again since, in one request.
        goes_on = total(name, 101, NOW + 60, start=started, user=user)
        await door.post("metrics", goes_on + total(name, 7, NOW + 60, start=again, user=user))
        assert sum(row["value"] for row in await door.rows("resource_facts")) == 101
        await db.execute("DELETE FROM telemetry_series")
        await db.execute("DELETE FROM resource_facts")


async def test_sql_in_names_is_text(door: Door) -> None:
    name = "'; DROP TABLE tool_facts; -- \0"
    await door.post("traces", spans({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name}, service=name))
    [row] = await door.rows("tool_facts")
    assert row["tool"] == row["service"] == name.replace("\0", "\ufffd")
