"""What the tests of telemetry share: a served process with an organisation, and requests as no SDK would make them."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from app.web import WebApp
from app.wiring import Program, serving
from core import db
from core.permissions import Role
from services.identity.tokens import create_access_token
from tests.app.conftest import served
from tests.clients_of_graph import Client
from tests.services.identity_help import House, a_house

SCHEMA = "https://opentelemetry.io/schemas/1.37.0"
NOW = time.time_ns()


class Door:
    """A served process, an organisation, and what is stored of its telemetry."""

    def __init__(self, base: str, house: House, tokens: Mapping[Role, str]) -> None:
        self.base, self.house, self.tokens = base, house, tokens
        self.graph = Client(f"{base}/graphql", tokens[Role.ADMIN])

    def headers(self, role: Role = Role.MEMBER) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[role]}"}

    async def post(self, path: str, body: bytes, *, role: Role | None = Role.MEMBER, **headers: str) -> httpx.Response:
        given = {"content-type": "application/x-protobuf"} | (self.headers(role) if role else {})
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient() as http:
            return await http.post(f"{self.base}/v1/{path}", content=body, headers=given)

    async def rows(self, table: str) -> list[Any]:
        return await db.fetch(
            f"SELECT * FROM {table} WHERE organization_id = $1 ORDER BY at, id", self.house.organization_id
        )

    async def service(self, name: str) -> dict[str, Any]:
        body = await self.graph(
            "{ telemetryServices { nodes { id name usageSignal conventions spans points rejected ignored superseded "
            "lastRejection } } }"
        )
        return next(found for found in body["telemetryServices"]["nodes"] if found["name"] == name)


@asynccontextmanager
async def a_door(program: Program) -> AsyncIterator[Door]:
    house = await a_house()
    tokens = {
        role: (await create_access_token(house.actor(role), name="tests", scopes=None)).secret
        for role in (Role.ADMIN, Role.MEMBER, Role.VIEWER)
    }
    app = WebApp(program.parts.settings)
    async with serving(program), served(app, program.parts.settings) as base:
        yield Door(base, house, tokens)


def attributes(values: Mapping[str, Any]) -> list[KeyValue]:
    found = []
    for key, value in values.items():
        pair = KeyValue(key=key)
        match value:
            case bool():
                pair.value.bool_value = value
            case int():
                pair.value.int_value = value
            case float():
                pair.value.double_value = value
            case _:
                pair.value.string_value = value
        found.append(pair)
    return found


def spans(*given: Mapping[str, Any], service: str = "agent", start: int | None = None, end: int | None = None) -> bytes:
    """A request with one span of a second for each set of attributes."""
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    of_resource.resource.attributes.extend(attributes({"service.name": service}))
    of_scope = of_resource.scope_spans.add(schema_url=SCHEMA)
    for values in given:
        of_scope.spans.add(
            trace_id=secrets.token_bytes(16),
            span_id=secrets.token_bytes(8),
            name="work",
            start_time_unix_nano=NOW if start is None else start,
            end_time_unix_nano=NOW + 10**9 if end is None else end,
            attributes=attributes(values),
        )
    return request.SerializeToString()


def total(metric: str, value: float, at: int, *, start: int = NOW, temporality: int = 2, **more: Any) -> bytes:
    """A request with one point of a sum; temporality 1 is delta and 2 cumulative."""
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    of_resource.resource.attributes.extend(attributes({"service.name": "claude-code", "service.version": "2.1.0"}))
    found = of_resource.scope_metrics.add().metrics.add(name=metric)
    found.sum.aggregation_temporality = temporality  # type: ignore[assignment]
    found.sum.is_monotonic = True
    found.sum.data_points.add(
        start_time_unix_nano=start, time_unix_nano=at, as_double=value, attributes=attributes(more)
    )
    return request.SerializeToString()


TOKENS = {"gen_ai.token.type": "input", "gen_ai.request.model": "m"}
CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.model": "claude-sonnet-4-5",
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.output_tokens": 50,
    "gen_ai.usage.cache_read.input_tokens": 700,
    "gen_ai.usage.cache_creation.input_tokens": 100,
}
