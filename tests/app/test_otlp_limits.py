"""What the door for telemetry refuses, and what one sender may not do to the others."""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib
from collections.abc import AsyncIterator

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
)

from app.http import otlp
from app.wiring import Program
from core import db
from core.permissions import Role
from services.identity.tokens import create_access_token
from tests.services.identity_help import a_house
from tests.telemetry import CHAT, NOW, Door, a_door, spans, total

pytestmark = pytest.mark.anyio


@pytest.fixture
async def door(database: Program) -> AsyncIterator[Door]:
    async with a_door(database) as found:
        yield found


def nested(*fields: int, count: int) -> bytes:
    """Protobuf: an empty message so many times, in messages that are these fields of each other."""
    data = bytes([fields[-1] << 3 | 2, 0]) * count
    for number in reversed(fields[:-1]):
        data = within(data, number)
    return data


def within(data: bytes, field: int) -> bytes:
    """Protobuf: a message in a field of another."""
    length, size = b"", len(data)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([field << 3 | 2]) + length + bytes([size]) + data


JSON = {"content_type": "application/json"}
GZIP = {"content_encoding": "gzip"}
REFUSED: list[tuple[str, bytes, dict[str, str], int]] = [
    ("bytes", b"\xff\xff\xff", {}, 400),
    ("list", b"[]", JSON, 400),
    ("deep", b"[" * 100_000, JSON, 400),
    ("number", b'{"resourceSpans": 7}', JSON, 400),
    ("id", b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}', JSON, 400),
    ("kind", b"{}", {"content_type": "text/plain"}, 415),
    ("encoding", b"", {"content_encoding": "br"}, 415),
    ("no gzip", b"no gzip", GZIP, 400),
    ("cut", gzip.compress(b"cut off")[:-6], GZIP, 400),
    ("bomb", gzip.compress(bytes(40 * 1024 * 1024)), GZIP, 413),
    ("large", bytes(17 * 1024 * 1024), {}, 413),
    ("large JSON", gzip.compress(b" " * (4 * 1024 * 1024 + 1)), JSON | GZIP, 413),
    ("spans", nested(1, 2, 2, count=10_001), {}, 413),
    ("scopes", nested(1, 2, count=10_001), {}, 413),
    ("resources", nested(1, count=2_000_000), {}, 413),
    ("fields", nested(1, 2, 2, 9, count=2_000_000), {}, 413),
    ("spans as JSON", b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b"{}," * 10_000 + b"{}]}]}]}", JSON, 413),
    (
        "values as JSON",
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"user.id","value":{"arrayValue":{"values":['
        + b"{}," * 300_000
        + b"{}]}}}]}]}]}]}",
        JSON,
        413,
    ),
]


async def test_what_is_malformed_or_too_much_is_refused_as_the_specification_says(door: Door) -> None:
    for name, body, headers, status in REFUSED:
        answer = await door.post("traces", body, **headers)
        assert answer.status_code == status, (name, answer.text)
        if answer.headers["content-type"] == "application/json":
            assert answer.json()["message"]
        else:
            assert ExportTracePartialSuccess.FromString(answer.content).error_message, "a google.rpc.Status"
    # A resource, a scope, a metric, its sum, and points.
    assert (await door.post("metrics", nested(1, 2, 2, 7, 1, count=10_001))).status_code == 413
    # Attributes in points; values in an attribute; resources of a resource; attributes that spans do not need.
    for path, fields, part in (
        ("metrics", (7,), 30_000),
        ("metrics", (7, 2, 5, 1), 30_000),
        ("metrics", (), 90_000),
        ("traces", (9,), 30_000),
    ):
        one = nested(1, *fields, count=part)
        if path == "metrics" and fields:
            # All in one sum, of differences.
            body = within(within(within(within(one * 20 + b"\x10\x01", 7), 2), 2), 1)
        elif fields:
            body = within(within(nested(2, *fields, count=part) * 80, 2), 1)
        else:
            body = within(b"\x0a\x00" * part, 1) * 8
        began = time.process_time()
        answer = await door.post(path, body)
        assert answer.status_code == 413, (path, fields, answer.text)
        assert time.process_time() - began < 4, (path, fields)
    assert not await db.fetchval("SELECT count(*) FROM telemetry_services")


async def test_prompts_of_any_length_cost_little(door: Door) -> None:
    """What is long is not read, in spans of any size; nor is a point that is larger than any can be."""
    messages = {f"llm.input_messages.{number}.message.content": "x" * 2000 for number in range(1000)}
    await door.post("traces", spans({**messages, "input.value": "y" * 4_000_000, **CHAT}))
    [row] = await door.rows("usage_facts")
    assert (row["input_tokens"], row["model"]) == (200, "claude-sonnet-4-5")
    bad = total("claude_code.commit.count", 1, NOW, temporality=1, padding="z" * 70_000)
    good = total("claude_code.commit.count", 2, NOW, temporality=1)
    answer = await door.post("metrics", bad + good)
    assert ExportMetricsServiceResponse.FromString(answer.content).partial_success.rejected_data_points == 1
    assert [row["value"] for row in await door.rows("resource_facts")] == [2]


async def test_who_sends_slowly_or_much_keeps_no_other_organisation_waiting(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "MOST_INSIDE", 12)
    host, port = door.base.removeprefix("http://").split(":")
    head = f"POST /v1/traces HTTP/1.1\r\nHost: {host}\r\nAuthorization: {door.headers()['Authorization']}\r\n"
    head += "Content-Type: application/x-protobuf\r\nContent-Length: 100\r\n\r\n"
    slow = []
    for number in range(1, 7):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode())
        await writer.drain()
        slow.append(writer)
        if number == 5:
            assert (await door.post("traces", spans(CHAT))).status_code == 200, "more than are worked on at once"
    async with asyncio.timeout(10):
        # The last one may be on its way.
        while (refused := await door.post("traces", spans(CHAT))).status_code == 200:
            await asyncio.sleep(0.02)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    stranger = await a_house("Other")
    made = await create_access_token(stranger.actor(Role.MEMBER), name="tests", scopes=None)
    authorization = f"Bearer {made.secret}"
    assert (await door.post("traces", spans(CHAT), role=None, authorization=authorization)).status_code == 200
    for writer in slow:
        writer.close()
    async with asyncio.timeout(10):
        while (await door.post("traces", spans(CHAT))).status_code != 200:
            await asyncio.sleep(0.02)


async def test_compressed_and_empty_requests_are_taken(door: Door) -> None:
    for body, encoding in (
        (gzip.compress(spans(CHAT)), "gzip"),
        (zlib.compress(spans(CHAT)), "deflate"),
        (b"", "identity"),
    ):
        answer = await door.post("traces", body, content_encoding=encoding)
        assert (answer.status_code, answer.content) == (200, b"")
    assert len(await door.rows("usage_facts")) == 2


async def test_telemetry_takes_a_token_that_may_send_it(door: Door) -> None:
    body = spans(CHAT)
    assert (await door.post("traces", body, role=None)).status_code == 401
    assert (await door.post("traces", body, role=None, authorization="Bearer nonsense")).status_code == 401
    assert (await door.post("traces", b"\xff", role=Role.VIEWER)).status_code == 403, "before anything is read"
    refused = await door.post("traces", body, role=Role.VIEWER)
    assert refused.status_code == 403
    assert "METRICS_INGEST" in ExportTracePartialSuccess.FromString(refused.content).error_message
    made = await create_access_token(door.house.actor(Role.ADMIN), name="narrow", scopes=["SESSIONS_READ"])
    assert (await door.post("metrics", b"", role=None, authorization=f"Bearer {made.secret}")).status_code == 403
    assert not await door.rows("usage_facts")
