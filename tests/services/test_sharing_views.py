"""Who reads what is in sessions is noted at no cost, and written for good."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from core import clock, db
from core.ids import new_id
from core.permissions import Actor, Role
from core.settings import Settings
from resolvers import sessions as reads
from schema.build import served_schema
from schema.context import Context
from schema.execution import Graph, Request
from services import workspace
from services.identity.tokens import create_access_token
from services.sessions.lifecycle import NewSession, create_session
from services.sharing import views as module
from services.sharing.views import Views, note_view, views
from tests.services.identity_help import HERE, House, a_house, audited

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]


@pytest.fixture
async def house(database: object) -> House:
    views._take()  # what other tests have read
    return await a_house()


@pytest.fixture
async def sessions(house: House) -> list[UUID]:
    return [(await create_session(house.actor(Role.MEMBER), NewSession(message="hello")))["id"] for _ in range(3)]


async def written() -> dict[tuple[UUID, UUID, str], int]:
    rows = await db.fetch("SELECT session_id, user_id, credential_kind, views FROM session_views")
    return {(row["session_id"], row["user_id"], row["credential_kind"]): row["views"] for row in rows}


async def test_a_read_notes_its_sessions_without_a_statement(house: House, sessions: list[UUID]) -> None:
    graph, actor = Graph(served_schema(), Settings()), house.actor(Role.MEMBER)
    seen: list[str] = []
    mark = db.queries_seen.set(seen)
    document = "{ sessions { nodes { id title messages(first: 1) { nodes { id } } } } }"
    body = await graph.execute(Request(document, {}, None), Context(actor, HERE))
    db.queries_seen.reset(mark)
    assert "errors" not in body
    assert len(seen) == 2
    await views.write()
    assert await written() == {(id_, actor.user_id, "NONE"): 1 for id_ in sessions}
    # Titles and the like are no content.
    await graph.execute(Request("{ sessions { nodes { id title } } }", {}, None), Context(actor, HERE))
    await views.write()
    assert set((await written()).values()) == {1}


async def test_single_reads_runs_approvals_and_files_are_views_too(house: House, sessions: list[UUID]) -> None:
    actor, session = house.actor(Role.ADMIN), sessions[0]
    message = await db.fetchval("SELECT id FROM messages WHERE session_id = $1", session)
    run = await reads.run(actor, await db.fetchval("SELECT id FROM runs WHERE session_id = $1", session))
    await reads.message(actor, message)
    await reads.messages_of_runs(actor, [run], {})
    await reads.pending_approvals(actor, first=None, after=None)
    await workspace.entries(actor, session, ".", first=None, after=None)
    await reads.message(actor, new_id())
    await views.write()
    assert await written() == {(session, actor.user_id, "NONE"): 4}


async def test_the_first_view_of_an_hour_has_a_record_and_all_are_counted(
    house: House, sessions: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    member, session = house.actor(Role.MEMBER), sessions[0]
    token = (await create_access_token(member, name="reading")).row["id"]
    by_token = replace(member, credential_id=token)
    noon = clock.now().replace(minute=10)
    monkeypatch.setattr(clock, "now", lambda: noon)
    for actor in (member, member, by_token):
        note_view(actor, [session], "messages")
    await views.write()
    monkeypatch.setattr(clock, "now", lambda: noon + timedelta(minutes=20))
    note_view(by_token, [session], "files")
    await views.write()
    user = member.user_id
    assert await written() == {(session, user, "NONE"): 2, (session, user, "TOKEN"): 2}
    row = await db.fetchrow("SELECT * FROM session_views WHERE credential_kind = 'TOKEN'")
    assert (row["first_at"], row["last_at"]) == (noon, noon + timedelta(minutes=20))
    records = await audited("session.view")
    assert sorted(record["details"]["credentialKind"] for record in records) == ["NONE", "TOKEN"]
    assert {record["target_name"] for record in records} == {"Untitled session"}
    assert {record["session_id"] for record in records} == {session}
    monkeypatch.setattr(clock, "now", lambda: noon + timedelta(hours=1))
    note_view(member, [session], "messages")
    await views.write()
    assert len(await audited("session.view")) == 3


async def test_agents_programs_and_what_is_not_there_leave_no_view(house: House, sessions: list[UUID]) -> None:
    note_view(house.system, sessions, "messages")
    note_view(house.actor(Role.MEMBER), [new_id()], "messages")
    await views.write()
    await views.write()
    assert await written() == {}


async def test_memory_is_bounded_and_what_is_dropped_is_said(
    house: House, sessions: list[UUID], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MOST_PENDING", 2)
    some = Views()
    for session in sessions:
        some.note(house.actor(Role.MEMBER), [session], "messages")
    await some._write_or_keep()
    assert len(await written()) == 2
    assert "1 reads of sessions were not recorded" in caplog.text
    some.note(house.actor(Role.MEMBER), [sessions[2]], "messages")
    await some.write()
    assert len(await written()) == 3


async def test_what_cannot_be_written_now_is_written_later(house: House, sessions: list[UUID]) -> None:
    async def rename(old: str, new: str) -> None:
        async with db.transaction() as tx:
            await tx.execute("SET LOCAL ROLE NONE")
            await tx.execute(f"ALTER TABLE {old} RENAME TO {new}")

    member, viewer = house.actor(Role.MEMBER), house.actor(Role.VIEWER)
    note_view(member, sessions[:2], "messages")
    await rename("session_views", "hidden_away")
    with pytest.raises(asyncpg.UndefinedTableError):
        await views.write()
    note_view(member, sessions[1:], "messages")
    note_view(viewer, sessions[:1], "messages")
    await rename("hidden_away", "session_views")
    await views.write()
    assert await written() == {
        (sessions[0], member.user_id, "NONE"): 1,
        (sessions[1], member.user_id, "NONE"): 2,
        (sessions[2], member.user_id, "NONE"): 1,
        (sessions[0], viewer.user_id, "NONE"): 1,
    }
    await views.write()
    assert sum((await written()).values()) == 5


async def test_processes_that_write_the_same_views_at_once_do_not_stop_each_other(
    house: House, sessions: list[UUID]
) -> None:
    people: list[Actor] = [house.actor(role) for role in Role]

    async def process(order: Any) -> None:
        own = Views()
        for _ in range(10):
            for actor in order(people):
                own.note(actor, order(sessions), "messages")
            await own.write()

    await asyncio.gather(*(process(order) for order in (list, lambda x: list(reversed(x)), list)))
    assert set((await written()).values()) == {30}
    assert len(await audited("session.view")) == len(people) * len(sessions)
