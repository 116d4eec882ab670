"""What is dropped and what stays, and samples of what is used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core import db
from core.ids import new_id
from core.permissions import Role
from integrations.sandbox.usage import disk_bytes, sandbox_usage
from services.metrics import ingest, resources, retention, rollups
from services.metrics.engine import MetricScope, value
from services.metrics.families import Level
from services.metrics.metering import Metering
from services.metrics.store import store
from services.sessions.lifecycle import NewSession, create_session, session_directory
from tests.services.identity_help import a_house

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("metric_database")]

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def working_in(folder: Path, program: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program], cwd=folder, start_new_session=True)


async def calls(scope: MetricScope, at: datetime) -> float | None:
    return await value(scope, "tools.calls", start=at, end=at + timedelta(days=1))


async def test_old_facts_go_their_figures_stay_and_what_comes_once_more_is_not_counted_again() -> None:
    scope = MetricScope(uuid4())
    days = [NOW.replace(hour=0) - timedelta(days=days) for days in (600, 200, 100, 60, 1)]
    common = {"organization_id": scope.organization_id, "source": "OTLP", "tool": "t", "outcome": "SUCCEEDED"}
    facts = [common | {"at": day + timedelta(hours=3), "id": uuid4()} for day in days]
    async with db.transaction() as tx:
        assert await store(tx, {"tool_facts": facts}) == {"tool_facts": 5}
    while await rollups.roll():
        pass

    would = await retention.drop_old(dry_run=True, now=NOW)
    assert {(drop.table, drop.rows) for drop in would} == {("tool_facts", 3), ("tool_minutes", 8), ("tool_hours", 11)}
    assert await db.fetchval("SELECT count(*) FROM tool_facts") == 5
    gone = await retention.drop_old(now=NOW)
    assert [(drop.table, drop.rows) for drop in gone] == [(drop.table, drop.rows) for drop in would]
    assert await retention.drop_old(now=NOW) == []
    assert await db.fetchval("SELECT count(*) FROM tool_facts") == 2

    assert [await calls(scope, day) for day in days] == [1] * 5
    async with db.transaction() as tx:
        assert await store(tx, {"tool_facts": facts}) == {"tool_facts": 0}
    assert [await calls(scope, day) for day in days] == [1] * 5
    assert retention.kept(Level.RAW) == timedelta(days=90)
    assert retention.kept(Level.DAY) is None
    await retention.compress()


async def test_queues_and_sandboxes_are_sampled_once_for_whoever_they_belong_to() -> None:
    house = await a_house()
    actor = house.actor(Role.MEMBER)
    session = await create_session(actor, NewSession(title="at work", message="/tool shell {}"))
    folder = session_directory(session["organization_id"], session["id"])
    (folder / "file").write_bytes(b"x" * 50_000)
    # As a sandbox would have it: a program that works there, and one that it started and that went elsewhere.
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'], cwd='/')"
    with working_in(folder, program) as process:
        try:
            measure = resources.Sandboxes(sandbox_usage, disk_bytes)
            samplers = [resources.Sampler([measure], host="a"), resources.installation_sampler()]
            at = NOW
            for _ in range(40):
                at += timedelta(seconds=15)
                assert await samplers[0].sample(at) >= 0
                spent = await db.fetchval("SELECT sum(value) FROM resource_facts WHERE resource = 'cpu_seconds'")
                if spent:
                    break
            assert spent > 0
            assert await samplers[1].sample(at) == 2
            # Another worker of the same host sees the same.
            assert await resources.Sampler([resources.queues], host="installation").sample(at) == 0
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    rows = await db.fetch("SELECT * FROM resource_facts WHERE at = $1 OR resource = 'disk_bytes'", at)
    found = {row["resource"]: row for row in rows}
    assert set(found) >= {"memory_bytes", "cpu_seconds", "disk_bytes", "queue_depth", "sessions_active"}
    assert found["memory_bytes"]["value"] > 1_000_000
    assert found["disk_bytes"]["value"] >= 50_000
    assert (found["memory_bytes"]["session_id"], found["memory_bytes"]["user_id"]) == (session["id"], actor.user_id)
    assert (found["queue_depth"]["value"], found["sessions_active"]["value"]) == (1, 1)
    scope = MetricScope(house.organization_id)
    asked: Any = {"start": at, "end": at + timedelta(seconds=15)}
    assert await value(scope, "queue.depth", **asked) == 1
    strangers = resources.Sample(uuid4(), "memory_bytes", 1, session["id"])
    assert await resources.keep([strangers], at, host="a") == 0


async def test_sessions_become_facts_and_the_watermark_moves_on() -> None:
    house = await a_house()
    actor = house.actor(Role.MEMBER)
    before = datetime.now(UTC) - timedelta(seconds=1)
    assert await ingest.watermark() < before
    session = await create_session(actor, NewSession(title="new", message="/tool shell {}"))
    await db.execute(
        "INSERT INTO sessions SELECT (json_populate_record(sessions, json_build_object("
        "'id', $2::uuid, 'purpose', 'TEMPLATE_TEST'))).* FROM sessions WHERE id = $1",
        session["id"],
        test := new_id(),
    )
    await db.execute(
        "INSERT INTO session_events SELECT (json_populate_record(session_events, json_build_object("
        "'session_id', $2::uuid))).* FROM session_events WHERE session_id = $1",
        session["id"],
        test,
    )
    metering = Metering()
    await metering.follow()
    await metering.follow()
    assert await ingest.watermark() > before - timedelta(seconds=2)
    scope = MetricScope(house.organization_id)
    asked: Any = {"start": before, "end": before + timedelta(hours=1)}
    assert await value(scope, "sessions.created", **asked) == 1
    assert await value(scope, "messages.count", **asked, filter={"role": ["USER"]}) == 1
    assert await value(MetricScope(house.organization_id, [actor.user_id]), "messages.count", **asked) == 1  # type: ignore[list-item]
    assert await value(MetricScope(house.organization_id, [new_id()]), "messages.count", **asked) == 0


async def test_what_is_no_directory_of_a_session_is_nobodys(tmp_path: Path) -> None:
    assert sandbox_usage(tmp_path) == []
    assert sandbox_usage(tmp_path, proc=tmp_path / "none") == []
    assert disk_bytes(tmp_path / "none") is None
