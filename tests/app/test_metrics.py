"""/metrics, as Prometheus reads it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from app.http import metrics
from app.web import WebApp
from app.wiring import Program, serving
from core import db
from core.permissions import Role
from services.identity.tokens import create_access_token
from services.sessions.lifecycle import NewSession, create_session
from services.sessions.messages import send_message
from tests.app.conftest import served
from tests.clients_of_graph import Client
from tests.conftest import Server
from tests.services.identity_help import House, a_house
from tests.talking import eventually

pytestmark = pytest.mark.anyio

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Process:
    """A web process, with somebody who asks it."""

    def __init__(self, base: str, client: Client, house: House) -> None:
        self.base, self.client, self.house = base, client, house

    async def read(self, **headers: str) -> httpx.Response:
        async with httpx.AsyncClient() as http:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            return await http.get(f"{self.base}/metrics", headers=given)

    async def samples(self) -> Samples:
        response = await self.read()
        assert response.status_code == 200
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }

    async def value(self, name: str, **labels: str) -> float:
        return (await self.samples()).get((name, tuple(sorted(labels.items()))), 0.0)


@asynccontextmanager
async def process_of(program: Program, **settings: Any) -> AsyncIterator[Process]:
    house = await a_house()
    made = await create_access_token(house.actor(Role.ADMIN), name="tests", scopes=None)
    found = program.parts.settings.model_copy(update=settings)
    app = WebApp(found)
    async with serving(program), app.metrics.watching(), served(app, found) as base:
        yield Process(base, Client(f"{base}/graphql", made.secret), house)


@pytest.fixture
async def process(database: Program) -> AsyncIterator[Process]:
    async with process_of(database) as found:
        yield found


async def test_operations_are_counted_by_what_executed_them(process: Process) -> None:
    await process.client("{ viewer { user { id } } }")
    await process.client("{ viewer { user { id } } }")
    await process.client.refused('{ node(id: "ses_nonsense") { id } }')
    await process.client("{ __schema { queryType { name } } }")
    await process.client.raw("{ nothing }")
    found = await process.samples()
    assert found["quarterdeck_operations_total", (("executor", "plan"), ("reason", ""))] == 3
    assert found["quarterdeck_operations_total", (("executor", "graphql_core"), ("reason", "introspection"))] == 1
    assert found["quarterdeck_operation_outcomes_total", (("outcome", "ok"),)] == 3
    assert found["quarterdeck_operation_outcomes_total", (("outcome", "errors"),)] == 1
    assert found["quarterdeck_documents_cached", (("kind", "sent"),)] == 3
    assert found["quarterdeck_documents_cached_characters", (("kind", "sent"),)] > 50
    assert found["quarterdeck_plans_cached", (("kind", "sent"),)] == 3
    assert found["quarterdeck_plans_cached_fields", (("kind", "sent"),)] > 10


async def test_requests_are_counted_by_door_and_status_and_nobody_makes_up_labels(process: Process) -> None:
    await process.client("{ viewer { user { id } } }")
    async with httpx.AsyncClient() as http:
        await http.post(process.client.url, content=b"{", headers={"content-type": "application/json"})
        for path in ("/made/up", "/metricsx", "//", "/%00", "/graphql/more"):
            await http.get(process.base + path)
    found = await process.samples()
    requests = {labels: value for (name, labels), value in found.items() if name == "quarterdeck_http_requests_total"}
    assert requests[("door", "graphql"), ("status", "200")] == 1
    assert requests[("door", "graphql"), ("status", "400")] == 1
    assert {dict(labels)["door"] for labels in requests} <= {"graphql", "other", "metrics"}
    assert requests[("door", "other"), ("status", "404")] >= 3


async def test_sockets_streams_and_the_bus_are_told_while_they_are_open(process: Process) -> None:
    assert await process.value("quarterdeck_sockets_open") == 0
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(process.client.stream("subscription { sessionChanges { kind } }"))

        async def both() -> bool:
            return await process.value("quarterdeck_streams_open") == 2

        await eventually(both)
        found = await process.samples()
        assert found["quarterdeck_sockets_open", ()] == 2
        assert found["quarterdeck_bus_connected", ()] == 1
        assert found["quarterdeck_bus_subscribers", ()] >= 1
        assert found["quarterdeck_bus_channels", ()] >= 1
        assert found["quarterdeck_bus_reconnects_total", ()] == 0

    async def none() -> bool:
        return await process.value("quarterdeck_streams_open") == await process.value("quarterdeck_sockets_open") == 0

    await eventually(none)


async def test_the_pool_and_who_waits_for_it_are_told(process: Process, database: Program) -> None:
    most = database.parts.settings.database_pool_size
    assert await process.value("quarterdeck_database_connections_max") == most
    tasks = [asyncio.create_task(db.fetchval("SELECT pg_sleep(1)")) for _ in range(most + 2)]
    await asyncio.sleep(0.3)
    pool = db.pool()
    assert (pool.size, pool.idle, pool.waiting) == (most, 0, 2)
    await asyncio.gather(*tasks)
    assert (pool.idle, pool.waiting) == (pool.size, 0)


async def test_runs_are_counted_by_status_in_one_statement_for_all_who_ask(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "RUNS_EVERY_SECONDS", 3600.0)
    session = await create_session(process.house.actor(Role.ADMIN), NewSession(runtime="script"))
    for _ in range(3):
        await send_message(process.house.actor(Role.ADMIN), session["id"], "hello")
    assert await process.value("quarterdeck_runs", status="queued") == 3
    assert await process.value("quarterdeck_runs", status="waiting") == 0
    await send_message(process.house.actor(Role.ADMIN), session["id"], "hello")
    assert await process.value("quarterdeck_runs", status="queued") == 3  # remembered
    monkeypatch.setattr(metrics, "RUNS_EVERY_SECONDS", 0.0)
    assert await process.value("quarterdeck_runs", status="queued") == 4
    monkeypatch.setattr(metrics, "_RUNS", "SELECT broken")
    assert not [name for name, _ in await process.samples() if name == "quarterdeck_runs"]


async def test_the_event_loop_and_the_process_are_measured(process: Process) -> None:
    async def measured() -> bool:
        return await process.value("quarterdeck_event_loop_lag_seconds_count") > 1

    await eventually(measured)
    found = await process.samples()
    assert found["process_resident_memory_bytes", ()] > 10_000_000
    assert found["process_cpu_seconds_total", ()] > 0
    assert ("python_gc_collections_total", (("generation", "0"),)) in found


# -- who may read them


async def test_without_a_token_only_programs_of_the_same_machine_may_read(process: Process) -> None:
    assert (await process.read()).status_code == 200
    for header in ("x_forwarded_for", "forwarded", "x_real_ip", "via"):
        response = await process.read(**{header: "127.0.0.1"})
        assert response.status_code == 403, header
        assert "QUARTERDECK_METRICS_TOKEN" in response.text
        assert "quarterdeck_runs" not in response.text


async def test_addresses_elsewhere_are_refused(database: Program) -> None:
    app = WebApp(database.parts.settings)
    for address, status in (("192.0.2.1", 403), ("::1", 200), ("::ffff:127.0.0.1", 200), ("testclient", 403)):
        transport = httpx.ASGITransport(app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            assert (await http.get("/metrics")).status_code == status, address


async def test_with_a_token_everybody_needs_it(database: Program) -> None:
    async with process_of(database, metrics_token=SecretStr("tell-me")) as process:
        for headers in (
            {},
            {"authorization": "Bearer other"},
            {"authorization": "tell-me"},
            {"authorization": "Bearer"},
        ):
            response = await process.read(**headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
        assert (await process.read(authorization="Bearer tell-me", x_forwarded_for="192.0.2.1")).status_code == 200


# -- the real thing, and what is said of it


async def test_a_process_that_runs_tells_everything_that_is_documented(server: Server) -> None:
    await server.client("{ viewer { user { id } } }")
    async with httpx.AsyncClient() as http:
        response = await http.get(f"{server.base}/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    ours = {name for name in families if name.startswith("quarterdeck_") and not name.endswith("_created")}
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `(quarterdeck_\w+)` \|", page, re.MULTILINE))
    assert {f"{name}_total" if families[name].type == "counter" else name for name in ours} == documented
    assert all(families[name].documentation for name in ours)
