"""Figures of now: the same as the query's, computed once for all who watch, and not at all where nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from app.wiring import Program
from core import db
from core.ids import new_id
from core.permissions import Role
from services.identity.tokens import create_access_token, revoke_access_token
from services.metrics import live
from services.sessions.lifecycle import NewSession, create_session
from subscriptions.tails import Tail
from tests.clients_of_graph import Client, Json, Refused
from tests.measuring import NOW, Place, a_place, series

pytestmark = pytest.mark.anyio

LIVE = """
subscription ($metrics: [String!], $every: Int! = 1, $window: Int! = 60, $after: Cursor) {
  metricsLive(metrics: $metrics, every: $every, windowSeconds: $window, after: $after) {
    cursor at windowSeconds values { metric unit value }
  }
}
"""


@pytest.fixture
async def place(database: Program) -> AsyncIterator[Place]:
    async with a_place(database) as found:
        yield found


async def some_work(place: Place) -> None:
    """Within the last minute: calls, tokens, cost, runs; and two runs under way, and three in line."""
    member = place.house.actor(Role.MEMBER)
    user, now = member.user_id, datetime.now(UTC) - timedelta(seconds=5)
    await place.put("tool", *({"at": now, "user_id": user, "duration_ms": 10.0 * n} for n in range(1, 21)))
    await place.put("usage", {"at": now, "user_id": user, "input_tokens": 600, "cost_usd": 0.5})
    await place.put("run", *({"at": now, "user_id": user, "outcome": each} for each in ("FINISHED", "FAILED")))
    for number in range(5):
        session = (await create_session(member, NewSession()))["id"]
        await db.execute(
            "INSERT INTO runs (id, organization_id, session_id, number, status, segment, started_by_id, queued_at, "
            "started_at, request_count) VALUES ($1, $2, $3, 1, $4, 1, $5, $6, $7, 0)",
            new_id(),
            place.house.organization_id,
            session,
            "RUNNING" if number < 2 else "QUEUED",
            user,
            now,
            now if number < 2 else None,
        )


def named(snapshot: Json) -> dict[str, Any]:
    return {value["metric"]: value["value"] for value in snapshot["values"]}


async def sse(place: Place, client: Client, **variables: Any) -> AsyncIterator[Json]:
    headers = {"authorization": f"Bearer {client.token}", "accept": "text/event-stream"}
    async with (
        httpx.AsyncClient(timeout=20) as http,
        http.stream("POST", place.url, json={"query": LIVE, "variables": variables}, headers=headers) as response,
    ):
        async for line in response.aiter_lines():
            if line.startswith("data:") and line != "data:":
                yield orjson.loads(line.removeprefix("data:"))


async def test_what_is_told_live_is_what_the_query_says_of_the_same_instant(place: Place) -> None:
    await some_work(place)
    admin = await place.client(Role.ADMIN)
    async with admin.stream(LIVE) as stream:
        for _ in range(2):
            tick = (await stream.next())["metricsLive"]
            now = (await admin(NOW, at=tick["at"]))["metricsNow"]
            assert {key: tick[key] for key in ("at", "windowSeconds", "values")} == now
    found = named(now)
    assert set(found) == set(live.USUAL)
    assert (found["sessions.active"], found["runs.running"], found["queue.depth"]) == (2, 2, 3)
    assert found["tokens.per_second"] == pytest.approx(10)
    assert found["cost.per_hour"] == pytest.approx(30)
    assert found["runs.error_rate"] == 0.5
    assert found["tools.duration_p95"] == pytest.approx(190, rel=0.05)
    # And what the series say of that minute.
    start = (datetime.fromisoformat(now["at"]) - timedelta(seconds=60)).isoformat()
    for metric in ("tokens.per_second", "runs.error_rate", "tools.duration_p95", "cost.per_hour"):
        answer = await series(admin, metric, start=start, end=now["at"], bucket="HOUR")
        assert answer["groups"][0]["total"] == pytest.approx(found[metric])


async def test_a_stream_of_server_sent_events_tells_the_same(place: Place) -> None:
    await some_work(place)
    admin = await place.client(Role.ADMIN)
    stream = sse(place, admin, metrics=["tools.calls", "queue.depth"], window=600)
    ticks = [(await anext(stream))["data"]["metricsLive"] for _ in range(2)]
    await stream.aclose()  # type: ignore[attr-defined]
    assert [named(tick) for tick in ticks] == [{"tools.calls": 20, "queue.depth": 3}] * 2
    assert ticks[0]["at"] < ticks[1]["at"]


async def test_members_are_told_of_their_own_work(place: Place) -> None:
    await some_work(place)
    for role, calls in ((Role.MEMBER, 20), (Role.VIEWER, 0)):
        client = await place.client(role)
        async with client.stream(LIVE, metrics=["tools.calls", "runs.running"]) as stream:
            assert named((await stream.next())["metricsLive"]) == {"tools.calls": calls, "runs.running": calls / 10}


async def test_one_computation_serves_all_and_none_is_made_when_nobody_watches(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[datetime] = []
    statements: list[str] = []
    snapshot, note = live.snapshot, db._note

    async def counted(scope: Any, metrics: Any, at: Any, window: int) -> Any:
        made.append(at)
        return await snapshot(scope, metrics, at, window)

    def noted(sql: str) -> None:
        statements.append(sql)
        note(sql)

    monkeypatch.setattr(live, "snapshot", counted)
    monkeypatch.setattr(db, "_note", noted)
    await some_work(place)
    clients = [await place.client(role) for role in (Role.ADMIN, Role.OWNER)] * 5
    watchers, each = 500, 50
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(client.socket()) for client in clients]
        for socket in sockets:
            for _ in range(each):
                await socket.subscribe(LIVE, metrics=["tools.calls", "queue.depth"])
        async with asyncio.timeout(60):
            while place.app.live.joined < watchers:
                await asyncio.sleep(0.02)
        statements.clear()
        before, executed, delivered = len(made), place.app.live.executed, place.app.live.delivered
        told: dict[str, int] = {}
        async with asyncio.timeout(60):
            while max(told.values(), default=0) < watchers or place.app.live.executed - executed < 3:
                for socket in sockets:
                    for _ in range(each):
                        message = await socket.message()
                        tick = message["payload"]["data"]["metricsLive"]
                        assert named(tick) == {"tools.calls": 20, "queue.depth": 3}
                        told[tick["at"]] = told.get(tick["at"], 0) + 1
        computed = len(made) - before
        assert len(made) == len(set(made))
        # Two figures, two statements for each instant, however many watch.
        asked = [sql for sql in statements if "tool_facts" in sql or "runs.queued_at" in sql]
        assert abs(len(asked) - 2 * computed) <= 2, (len(asked), computed)
        told_each = (place.app.live.delivered - delivered) / (place.app.live.executed - executed)
        assert told_each >= watchers / 2  # two groups at most: owners and admins may do the same
    async with asyncio.timeout(5):
        while any(key[0] == "metrics" for key in Tail._living if isinstance(key, tuple)):
            await asyncio.sleep(0.02)
    before = len(made)
    await asyncio.sleep(1.2)
    assert len(made) == before


async def test_a_cursor_goes_on_with_the_next_instant(place: Place) -> None:
    admin = await place.client(Role.ADMIN)
    async with admin.stream(LIVE, metrics=["tools.calls"]) as stream:
        tick = (await stream.next())["metricsLive"]
        async with admin.stream(LIVE, metrics=["tools.calls"], after=tick["cursor"]) as second:
            assert (await second.next())["metricsLive"]["at"] > tick["at"]


async def test_whose_access_ends_is_told_no_more_within_a_second_or_so(place: Place) -> None:
    actor = place.house.actor(Role.ADMIN)
    made = await create_access_token(actor, name="short", scopes=None)
    client = Client(place.url, made.secret)
    async with client.stream(LIVE, metrics=["tools.calls"]) as stream:
        await stream.next()
        await revoke_access_token(actor, made.row["id"])
        async with asyncio.timeout(2.5):
            with pytest.raises(Exception):  # noqa: B017
                while True:
                    await stream.next()


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"metrics": ["tools.cals"]}, "metrics"),
        ({"metrics": []}, "metrics"),
        ({"every": 0}, "every"),
        ({"every": 301}, "every"),
        ({"window": 0}, "windowSeconds"),
        ({"window": 3601}, "windowSeconds"),
        ({"after": "nonsense"}, "after"),
    ],
)
async def test_what_cannot_be_told_is_refused(place: Place, asked: Json, field: str) -> None:
    admin = await place.client(Role.ADMIN)
    async with admin.stream(LIVE, **asked) as stream:
        with pytest.raises(Refused) as refused:
            await stream.next()
    assert (refused.value.codes, refused.value.extensions["field"]) == (["BAD_INPUT"], field)
